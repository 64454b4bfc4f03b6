//! The store in a SQLite database: a file a concern, transactions here.

mod credentials;
mod holders;
mod keys;
mod sessions;

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use sqlx::Connection;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};

use super::{Store, StoreError};

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

/// The open store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct SqliteStore {
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
    fn of(path: &Path) -> Result<Self, StoreError> {
        let identity = identity(path)
            .map_err(StoreError::failed(format!("looking at the database {}", path.display())))?;
        Ok(Self { path: path.to_owned(), identity })
    }

    fn check(&self) -> Result<(), StoreError> {
        match identity(&self.path) {
            Ok(now) if now == self.identity => Ok(()),
            _ => Err(StoreError::Replaced(self.path.clone())),
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

impl SqliteStore {
    /// Opens or creates the database.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
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
                .map_err(StoreError::failed(format!("opening the database {}", path.display())))
        };
        let writes = open(1, options.clone()).await?;
        sqlx::raw_sql(SCHEMA)
            .execute(&writes)
            .await
            .map_err(StoreError::failed("creating the database's tables"))?;
        add_columns(&writes).await?;
        let reads = open(READERS, options.read_only(true)).await?;
        Ok(Self { reads, writes, file: DatabaseFile::of(path)? })
    }

    /// Carries out `work` whole or not at all.
    async fn in_transaction<T>(
        &self,
        work: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.file.check()?;
        let mut connection =
            self.writes.acquire().await.map_err(StoreError::failed("reaching the database"))?;
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
}

impl Store for SqliteStore {
    async fn check(&self, now: u64) -> Result<(), StoreError> {
        self.file.check()?;
        sqlx::query(
            "INSERT INTO health (id, checked_at) VALUES (0, ?)
             ON CONFLICT (id) DO UPDATE SET checked_at = excluded.checked_at",
        )
        .bind(signed(now))
        .execute(&self.writes)
        .await
        .map_err(StoreError::failed("writing to the database"))?;
        Ok(())
    }
}

#[cfg(test)]
impl SqliteStore {
    /// Has SQLite run this.
    pub async fn run_for_tests(&self, statement: &'static str) {
        sqlx::query(statement).execute(&self.writes).await.unwrap();
    }

    /// A row for a session, so that others may refer to it.
    async fn reserve_for_tests(&self, id: anteroom_session::SessionId) {
        sqlx::query("INSERT INTO sessions VALUES (?, 'requested', 0, 0, '{}')")
            .bind(id.to_string())
            .execute(&self.writes)
            .await
            .unwrap();
    }
}

/// Columns that tables of earlier versions lack.
const ADDED: [(&str, &str, &str); 5] = [
    ("timeline", "explanation", "TEXT"),
    ("timeline", "actor", "TEXT"),
    ("timeline", "waited", "TEXT"),
    ("api_keys", "role", "TEXT NOT NULL DEFAULT 'caller'"),
    ("api_keys", "last_used_at", "INTEGER"),
];

async fn add_columns(writes: &SqlitePool) -> Result<(), StoreError> {
    for (table, column, form) in ADDED {
        let has = "SELECT count(*) FROM pragma_table_info(?) WHERE name = ?";
        let has: i64 = sqlx::query_scalar(has).bind(table).bind(column).fetch_one(writes).await?;
        if has == 0 {
            let add = format!("ALTER TABLE {table} ADD COLUMN {column} {form}");
            sqlx::query(sqlx::AssertSqlSafe(add))
                .execute(writes)
                .await
                .map_err(StoreError::failed("bringing the database up to date"))?;
        }
    }
    Ok(())
}
