//! The store: SQLite, written before effects are carried out.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anteroom_api::{EgressEntry, Idempotency};
use anteroom_confine::SessionUser;
use anteroom_fail_point::fail_point;
use anteroom_session::{SessionId, TimelineEntry};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{Connection, Row};

use super::record::Record;

mod holders;
mod keys;

pub use holders::{Cookie, Exchanged, Unusable};
pub use keys::KeptKey;

/// The tables. Rows hold a session as JSON of the session crate's types, and beside it what is
/// searched for; one is `finished` when it is over and nothing is left of it.
const SCHEMA: &str = "
    CREATE TABLE IF NOT EXISTS sessions (
        id TEXT PRIMARY KEY, state TEXT NOT NULL, finished INTEGER NOT NULL, created_at INTEGER NOT NULL,
        record TEXT NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS timeline (
        session TEXT NOT NULL REFERENCES sessions(id), at INTEGER NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS timeline_by_session ON timeline(session);
    CREATE TABLE IF NOT EXISTS credentials (
        session TEXT PRIMARY KEY REFERENCES sessions(id), sealed BLOB NOT NULL, recipient TEXT NOT NULL,
        stored_at INTEGER NOT NULL
    ) STRICT;
    DROP TABLE IF EXISTS viewer_links;
    DROP TABLE IF EXISTS viewers;
    CREATE TABLE IF NOT EXISTS holders (
        session TEXT NOT NULL REFERENCES sessions(id), generation INTEGER NOT NULL, made_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL, link_hash BLOB UNIQUE, opened_at INTEGER, cookie_hash BLOB UNIQUE,
        PRIMARY KEY (session, generation)
    ) STRICT;
    CREATE TABLE IF NOT EXISTS api_keys (
        key_hash BLOB PRIMARY KEY, name TEXT NOT NULL UNIQUE, created_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS idempotency (
        key_hash BLOB PRIMARY KEY, body_hash BLOB NOT NULL, session TEXT NOT NULL REFERENCES sessions(id),
        expires_at INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE IF NOT EXISTS health (
        id INTEGER PRIMARY KEY CHECK (id = 0), checked_at INTEGER NOT NULL
    ) STRICT;
";

/// How long the answer to a call with an `Idempotency-Key` is remembered.
const IDEMPOTENCY_KEPT_SECONDS: u64 = 24 * 3600;

/// The open store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    /// Whoever asks waits for no write: each of them waits for the disk.
    reads: SqlitePool,
    /// One connection, since SQLite has one writer at a time: here they queue without polling a lock.
    writes: SqlitePool,
    file: DatabaseFile,
}

/// The file that was opened: SQLite goes on with one that was removed or replaced under it, and what
/// it then keeps is gone with this process.
#[derive(Clone, Debug)]
struct DatabaseFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl DatabaseFile {
    fn of(path: &Path) -> Result<Self> {
        let identity = identity(path)
            .with_context(|| format!("looking at the database {} failed", path.display()))?;
        Ok(Self { path: path.to_owned(), identity })
    }

    fn check(&self) -> Result<()> {
        match identity(&self.path) {
            Ok(now) if now == self.identity => Ok(()),
            _ => bail!(
                "the database {} was removed or replaced while it was open; start this Anteroom again",
                self.path.display()
            ),
        }
    }
}

fn identity(path: &Path) -> std::io::Result<(u64, u64)> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Reads that may go on at once.
const READERS: u32 = 4;

/// Secrets are kept as hashes: 256 random bits need no slow hash.
fn hash(secret: &str) -> Vec<u8> {
    Sha256::digest(secret.as_bytes()).to_vec()
}

#[expect(
    clippy::cast_possible_wrap,
    reason = "SQLite's integers are signed; times fit for 292 million years"
)]
fn signed(millis: u64) -> i64 {
    millis as i64
}

impl Store {
    /// Opens or creates the database.
    pub async fn open(path: &Path) -> Result<Self> {
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            // A credential that was acknowledged must survive a power cut.
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(10));
        let open = async |connections, options: SqliteConnectOptions| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .connect_with(options)
                .await
                .with_context(|| format!("opening the database {} failed", path.display()))
        };
        let writes = open(1, options.clone()).await?;
        sqlx::raw_sql(SCHEMA)
            .execute(&writes)
            .await
            .context("creating the database's tables failed")?;
        add_columns(&writes).await?;
        let reads = open(READERS, options.read_only(true)).await?;
        Ok(Self { reads, writes, file: DatabaseFile::of(path)? })
    }

    /// Carries out `work` whole or not at all.
    async fn in_transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T>,
    ) -> Result<T> {
        self.file.check()?;
        let mut connection = self.writes.acquire().await.context("reaching the database failed")?;
        let done = async {
            let mut transaction = connection.begin().await?;
            let value = work(&mut transaction).await?;
            transaction.commit().await?;
            Ok(value)
        };
        let result = done.await;
        if result.is_err() {
            // On a full disk SQLite rolls back by itself; sqlx (0.9) then counts one transaction too
            // many on this connection, and never commits another, and holds the lock.
            connection.close_on_drop();
        }
        result
    }

    /// Writes a new session, its first one-use link and by which call it began, or nothing.
    pub async fn create(
        &self,
        record: &Record,
        link_secret: &str,
        idempotency: Option<&Idempotency>,
    ) -> Result<()> {
        let terms = &record.session.terms;
        let work = async |connection: &mut SqliteConnection| {
            write_record(connection, record).await?;
            fail_point("store.create")?;
            let (made_at, expires_at) = (terms.created_at.0, terms.last_moment().0);
            holders::begin(connection, terms.id, Some(link_secret), made_at, expires_at).await?;
            if let Some(call) = idempotency {
                let expires_at = terms.created_at.plus_seconds(IDEMPOTENCY_KEPT_SECONDS);
                // One that is expired is as good as none.
                sqlx::query(
                    "INSERT OR REPLACE INTO idempotency (key_hash, body_hash, session, expires_at) VALUES (?, ?, ?, ?)",
                )
                .bind(&call.key[..])
                .bind(&call.body[..])
                .bind(terms.id.to_string())
                .bind(signed(expires_at.0))
                .execute(connection)
                .await?;
            }
            Ok(())
        };
        self.in_transaction(work).await.context("storing a new session failed")
    }

    /// The session that a call with this key began, and the hash of that call's body.
    pub async fn begun_by(
        &self,
        call: &Idempotency,
        now: u64,
    ) -> Result<Option<(SessionId, Vec<u8>)>> {
        let row = sqlx::query(
            "SELECT session, body_hash FROM idempotency WHERE key_hash = ? AND expires_at > ?",
        )
        .bind(&call.key[..])
        .bind(signed(now))
        .fetch_optional(&self.reads)
        .await
        .context("looking for an earlier call failed")?;
        row.map(|row| {
            let session = row.get::<&str, _>("session").parse();
            Ok((session.context("a stored session has no id")?, row.get("body_hash")))
        })
        .transpose()
    }

    /// Writes a session's state, and the entries that its history has got since, or neither.
    pub async fn save(&self, record: &Record, entries: &[TimelineEntry]) -> Result<()> {
        let work = async |connection: &mut SqliteConnection| {
            write_record(connection, record).await?;
            fail_point("store.save")?;
            for entry in entries {
                write_entry(connection, record.id(), entry).await?;
            }
            Ok(())
        };
        self.in_transaction(work).await.context("storing a session's state failed")
    }

    /// A session with its history.
    pub async fn load(&self, id: SessionId) -> Result<Option<Record>> {
        let row = sqlx::query("SELECT record FROM sessions WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.reads)
            .await
            .context("reading a session failed")?;
        let Some(row) = row else { return Ok(None) };
        let mut record: Record =
            serde_json::from_str(row.get("record")).context("a stored session cannot be read")?;
        let rows = sqlx::query(
            "SELECT at, kind, message, actor, explanation FROM timeline WHERE session = ? ORDER BY rowid",
        )
        .bind(id.to_string())
        .fetch_all(&self.reads)
        .await
        .context("reading a session's timeline failed")?;
        record.timeline = rows
            .iter()
            .map(|row| TimelineEntry {
                at: anteroom_session::Timestamp(row.get::<i64, _>("at").unsigned_abs()),
                kind: row.get("kind"),
                message: row.get("message"),
                // What another version wrote in another form is not worth the session.
                by: json(row, "actor"),
                explanation: json(row, "explanation"),
            })
            .collect();
        Ok(Some(record))
    }

    /// The last thousand sessions, newest first, without their history. One that cannot be read is
    /// logged and left out: it must not hide the others.
    pub async fn all(&self) -> Result<Vec<Record>> {
        let rows =
            sqlx::query("SELECT id, record FROM sessions ORDER BY created_at DESC LIMIT 1000")
                .fetch_all(&self.reads)
                .await
                .context("reading the sessions failed")?;
        let read = |row: &SqliteRow| {
            serde_json::from_str(row.get("record"))
                .inspect_err(|error| {
                    let id: &str = row.get("id");
                    tracing::error!(session = id, "a stored session cannot be read: {error}");
                })
                .ok()
        };
        Ok(rows.iter().filter_map(read).collect())
    }

    /// Who a session's processes run as, of one that may be unreadable otherwise.
    pub async fn user_of(&self, id: SessionId) -> Result<Option<SessionUser>> {
        #[derive(serde::Deserialize)]
        struct Run {
            #[serde(default)]
            user: Option<SessionUser>,
        }
        let json: Option<String> = sqlx::query_scalar("SELECT record FROM sessions WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.reads)
            .await
            .context("reading a session's user failed")?;
        Ok(json.and_then(|json| serde_json::from_str::<Run>(&json).ok()?.user))
    }

    /// Sessions that an earlier controller left unfinished, or of which something is left.
    pub async fn unfinished(&self) -> Result<Vec<SessionId>> {
        let rows = sqlx::query("SELECT id FROM sessions WHERE finished = 0")
            .fetch_all(&self.reads)
            .await
            .context("reading the unfinished sessions failed")?;
        rows.iter()
            .map(|row| row.get::<&str, _>("id").parse().context("a stored session has no id"))
            .collect()
    }

    /// Removes what is expired at `now`, and finished sessions begun before `before` that have no
    /// credential; says how many. Both in milliseconds since the Unix epoch.
    pub async fn forget(&self, before: u64, now: u64) -> Result<u64> {
        const OLD: &str = "SELECT id FROM sessions WHERE finished = 1 AND created_at < ?
             AND id NOT IN (SELECT session FROM credentials)";
        let work = async |connection: &mut SqliteConnection| {
            for table in ["holders", "idempotency"] {
                let expired = format!("DELETE FROM {table} WHERE expires_at < ?");
                sqlx::query(sqlx::AssertSqlSafe(expired))
                    .bind(signed(now))
                    .execute(&mut *connection)
                    .await?;
            }
            for table in ["holders", "idempotency", "timeline"] {
                let old = format!("DELETE FROM {table} WHERE session IN ({OLD})");
                sqlx::query(sqlx::AssertSqlSafe(old))
                    .bind(signed(before))
                    .execute(&mut *connection)
                    .await?;
            }
            let sessions = format!("DELETE FROM sessions WHERE id IN ({OLD})");
            let done = sqlx::query(sqlx::AssertSqlSafe(sessions))
                .bind(signed(before))
                .execute(connection)
                .await?;
            Ok(done.rows_affected())
        };
        self.in_transaction(work).await.context("forgetting old sessions failed")
    }

    /// Makes a sealed credential durable.
    pub async fn put_credential(
        &self,
        session: SessionId,
        sealed: &[u8],
        recipient: &str,
        now: u64,
    ) -> Result<()> {
        self.file.check()?;
        fail_point("store.credential").context("storing the sealed credential failed")?;
        sqlx::query(
            "INSERT INTO credentials (session, sealed, recipient, stored_at) VALUES (?, ?, ?, ?)",
        )
        .bind(session.to_string())
        .bind(sealed)
        .bind(recipient)
        .bind(signed(now))
        .execute(&self.writes)
        .await
        .context("storing the sealed credential failed")?;
        Ok(fail_point("store.credential_durable")?)
    }

    /// The sealed credential.
    pub async fn credential(&self, session: SessionId) -> Result<Option<Vec<u8>>> {
        let row = sqlx::query("SELECT sealed FROM credentials WHERE session = ?")
            .bind(session.to_string())
            .fetch_optional(&self.reads)
            .await
            .context("reading the sealed credential failed")?;
        Ok(row.map(|row| row.get("sealed")))
    }

    /// Whether credentials sealed to this key are stored.
    pub async fn has_credentials_of_vault(&self) -> Result<bool> {
        let row =
            sqlx::query("SELECT COUNT(*) AS n FROM credentials").fetch_one(&self.reads).await?;
        Ok(row.get::<i64, _>("n") > 0)
    }

    /// Adds to the history of a session that has no task.
    pub async fn add_entry(&self, session: SessionId, entry: &TimelineEntry) -> Result<()> {
        let work =
            async |connection: &mut SqliteConnection| write_entry(connection, session, entry).await;
        self.in_transaction(work).await.context("storing what happened failed")
    }

    /// Writes, durably: a full disk and a read-only folder answer reads as if nothing were wrong.
    pub async fn check(&self, now: u64) -> Result<()> {
        self.file.check()?;
        sqlx::query(
            "INSERT INTO health (id, checked_at) VALUES (0, ?)
             ON CONFLICT (id) DO UPDATE SET checked_at = excluded.checked_at",
        )
        .bind(signed(now))
        .execute(&self.writes)
        .await
        .context("writing to the database failed")?;
        Ok(())
    }
}

#[cfg(test)]
impl Store {
    pub async fn run_for_tests(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.writes).await.unwrap();
    }

    /// A row for a session, so that others may refer to it.
    async fn reserve_for_tests(&self, id: SessionId) {
        sqlx::query("INSERT INTO sessions VALUES (?, 'requested', 0, 0, '{}')")
            .bind(id.to_string())
            .execute(&self.writes)
            .await
            .unwrap();
    }
}

async fn write_record(connection: &mut SqliteConnection, record: &Record) -> Result<()> {
    let terms = &record.session.terms;
    let json = serde_json::to_string(record).context("writing a session as JSON failed")?;
    sqlx::query(
        "INSERT INTO sessions (id, state, finished, created_at, record) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, finished = excluded.finished, record = excluded.record",
    )
    .bind(terms.id.to_string())
    .bind(record.session.state.name().as_str())
    .bind(i64::from(record.is_gone()))
    .bind(signed(terms.created_at.0))
    .bind(json)
    .execute(connection)
    .await?;
    Ok(())
}

/// Columns that tables of earlier versions lack.
const ADDED: [(&str, &str, &str); 4] = [
    ("timeline", "explanation", "TEXT"),
    ("timeline", "actor", "TEXT"),
    ("api_keys", "role", "TEXT NOT NULL DEFAULT 'caller'"),
    ("api_keys", "last_used_at", "INTEGER"),
];

async fn add_columns(writes: &SqlitePool) -> Result<()> {
    for (table, column, form) in ADDED {
        let has = "SELECT count(*) FROM pragma_table_info(?) WHERE name = ?";
        let has: i64 = sqlx::query_scalar(has).bind(table).bind(column).fetch_one(writes).await?;
        if has == 0 {
            let add = format!("ALTER TABLE {table} ADD COLUMN {column} {form}");
            sqlx::query(sqlx::AssertSqlSafe(add))
                .execute(writes)
                .await
                .context("bringing the database up to date failed")?;
        }
    }
    Ok(())
}

fn json<T: serde::de::DeserializeOwned>(row: &SqliteRow, column: &str) -> Option<T> {
    row.get::<Option<&str>, _>(column).and_then(|json| serde_json::from_str(json).ok())
}

async fn write_entry(
    connection: &mut SqliteConnection,
    session: SessionId,
    entry: &TimelineEntry,
) -> Result<()> {
    let insert = "INSERT INTO timeline (session, at, kind, message, actor, explanation) VALUES (?, ?, ?, ?, ?, ?)";
    let actor = entry.by.as_ref().map(serde_json::to_string).transpose()?;
    let explanation = entry.explanation.as_ref().map(serde_json::to_string).transpose()?;
    sqlx::query(insert)
        .bind(session.to_string())
        .bind(signed(entry.at.0))
        .bind(&entry.kind)
        .bind(&entry.message)
        .bind(actor)
        .bind(explanation)
        .execute(connection)
        .await?;
    Ok(())
}

/// Entries of a session's list of hosts.
pub const MAX_HOSTS: usize = 500;

/// Adds a connection to a session's list of hosts.
pub fn count_connection(egress: &mut Vec<EgressEntry>, connection: EgressEntry) {
    let same = |entry: &EgressEntry| {
        entry.host == connection.host
            && entry.port == connection.port
            && entry.verdict == connection.verdict
    };
    if let Some(entry) = egress.iter_mut().find(|entry| same(entry)) {
        entry.connections += connection.connections;
        entry.bytes_up = entry.bytes_up.saturating_add(connection.bytes_up);
        entry.bytes_down = entry.bytes_down.saturating_add(connection.bytes_down);
        entry.detail = connection.detail.or(entry.detail.take());
    } else if egress.len() < MAX_HOSTS {
        // A guest that asks for endless names gets a list that ends.
        egress.push(connection);
    }
}
