//! Sessions, their timelines, and the calls that began them.

use anteroom_api::Idempotency;
use anteroom_confine::SessionUser;
use anteroom_fail_point::fail_point;
use anteroom_session::{SessionId, TimelineEntry};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{SqliteStore, holders, signed};
use crate::record::Record;
use crate::store::{SessionStore, StoreError};

/// How long the answer to a call with an `Idempotency-Key` is remembered.
const IDEMPOTENCY_KEPT_SECONDS: u64 = 24 * 3600;

impl SessionStore for SqliteStore {
    async fn create(
        &self,
        record: &Record,
        link_secret: &str,
        idempotency: Option<&Idempotency>,
    ) -> Result<(), StoreError> {
        let params = &record.session.params;
        let work = async |connection: &mut SqliteConnection| {
            write_record(connection, record).await?;
            fail_point("store.create")?;
            let (made_at, expires_at) = (params.created_at.0, params.last_moment().0);
            holders::begin(connection, params.id, Some(link_secret), made_at, expires_at).await?;
            if let Some(call) = idempotency {
                let expires_at = params.created_at.plus_seconds(IDEMPOTENCY_KEPT_SECONDS);
                // One that is expired is as good as none.
                sqlx::query(
                    "INSERT OR REPLACE INTO idempotency (key_hash, body_hash, session, expires_at) VALUES (?, ?, ?, ?)",
                )
                .bind(&call.key[..])
                .bind(&call.body[..])
                .bind(params.id.to_string())
                .bind(signed(expires_at.0))
                .execute(connection)
                .await?;
            }
            Ok(())
        };
        self.in_transaction(work).await.map_err(StoreError::failed("storing a new session"))
    }

    async fn begun_by(
        &self,
        call: &Idempotency,
        now: u64,
    ) -> Result<Option<(SessionId, Vec<u8>)>, StoreError> {
        let row = sqlx::query(
            "SELECT session, body_hash FROM idempotency WHERE key_hash = ? AND expires_at > ?",
        )
        .bind(&call.key[..])
        .bind(signed(now))
        .fetch_optional(&self.reads)
        .await
        .map_err(StoreError::failed("looking for an earlier call"))?;
        row.map(|row| {
            let session = row.get::<&str, _>("session").parse();
            Ok((
                session.map_err(StoreError::invalid("a stored session has no id"))?,
                row.get("body_hash"),
            ))
        })
        .transpose()
    }

    async fn save(&self, record: &Record, entries: &[TimelineEntry]) -> Result<(), StoreError> {
        let work = async |connection: &mut SqliteConnection| {
            write_record(connection, record).await?;
            fail_point("store.save")?;
            for entry in entries {
                write_entry(connection, record.id(), entry).await?;
            }
            Ok(())
        };
        self.in_transaction(work).await.map_err(StoreError::failed("storing a session's state"))
    }

    async fn load(&self, id: SessionId) -> Result<Option<Record>, StoreError> {
        let row = sqlx::query("SELECT record FROM sessions WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.reads)
            .await
            .map_err(StoreError::failed("reading a session"))?;
        let Some(row) = row else { return Ok(None) };
        let mut record: Record = serde_json::from_str(row.get("record"))
            .map_err(StoreError::invalid("a stored session cannot be read"))?;
        let rows = sqlx::query(
            "SELECT at, kind, message, actor, explanation, waited FROM timeline WHERE session = ? ORDER BY rowid",
        )
        .bind(id.to_string())
        .fetch_all(&self.reads)
        .await
        .map_err(StoreError::failed("reading a session's timeline"))?;
        record.timeline = rows
            .iter()
            .map(|row| TimelineEntry {
                at: anteroom_session::Timestamp(row.get::<i64, _>("at").unsigned_abs()),
                kind: row.get("kind"),
                message: row.get("message"),
                // What another version wrote in another form is not worth the session.
                by: json(row, "actor"),
                explanation: json(row, "explanation"),
                waited: json(row, "waited"),
            })
            .collect();
        Ok(Some(record))
    }

    async fn all(&self) -> Result<Vec<Record>, StoreError> {
        let rows =
            sqlx::query("SELECT id, record FROM sessions ORDER BY created_at DESC LIMIT 1000")
                .fetch_all(&self.reads)
                .await
                .map_err(StoreError::failed("reading the sessions"))?;
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

    async fn user_of(&self, id: SessionId) -> Result<Option<SessionUser>, StoreError> {
        #[derive(serde::Deserialize)]
        struct Run {
            #[serde(default)]
            user: Option<SessionUser>,
        }
        let json: Option<String> = sqlx::query_scalar("SELECT record FROM sessions WHERE id = ?")
            .bind(id.to_string())
            .fetch_optional(&self.reads)
            .await
            .map_err(StoreError::failed("reading a session's user"))?;
        Ok(json.and_then(|json| serde_json::from_str::<Run>(&json).ok()?.user))
    }

    async fn unfinished(&self) -> Result<Vec<SessionId>, StoreError> {
        let rows = sqlx::query("SELECT id FROM sessions WHERE finished = 0")
            .fetch_all(&self.reads)
            .await
            .map_err(StoreError::failed("reading the unfinished sessions"))?;
        rows.iter()
            .map(|row| {
                row.get::<&str, _>("id")
                    .parse()
                    .map_err(StoreError::invalid("a stored session has no id"))
            })
            .collect()
    }

    async fn forget(&self, before: u64, now: u64) -> Result<u64, StoreError> {
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
        self.in_transaction(work).await.map_err(StoreError::failed("forgetting old sessions"))
    }

    async fn add_entry(&self, session: SessionId, entry: &TimelineEntry) -> Result<(), StoreError> {
        let work =
            async |connection: &mut SqliteConnection| write_entry(connection, session, entry).await;
        self.in_transaction(work).await.map_err(StoreError::failed("storing what happened"))
    }
}

async fn write_record(
    connection: &mut SqliteConnection,
    record: &Record,
) -> Result<(), StoreError> {
    let params = &record.session.params;
    let json =
        serde_json::to_string(record).map_err(StoreError::failed("writing a session as JSON"))?;
    sqlx::query(
        "INSERT INTO sessions (id, state, finished, created_at, record) VALUES (?, ?, ?, ?, ?)
         ON CONFLICT (id) DO UPDATE SET state = excluded.state, finished = excluded.finished, record = excluded.record",
    )
    .bind(params.id.to_string())
    .bind(record.session.state.name().as_str())
    .bind(i64::from(record.is_gone()))
    .bind(signed(params.created_at.0))
    .bind(json)
    .execute(connection)
    .await?;
    Ok(())
}

fn json<T: serde::de::DeserializeOwned>(row: &SqliteRow, column: &str) -> Option<T> {
    row.get::<Option<&str>, _>(column).and_then(|json| serde_json::from_str(json).ok())
}

async fn write_entry(
    connection: &mut SqliteConnection,
    session: SessionId,
    entry: &TimelineEntry,
) -> Result<(), StoreError> {
    let insert = "INSERT INTO timeline (session, at, kind, message, actor, explanation, waited) VALUES (?, ?, ?, ?, ?, ?, ?)";
    let actor = entry.by.as_ref().map(serde_json::to_string).transpose()?;
    let explanation = entry.explanation.as_ref().map(serde_json::to_string).transpose()?;
    let waited = entry.waited.as_ref().map(serde_json::to_string).transpose()?;
    sqlx::query(insert)
        .bind(session.to_string())
        .bind(signed(entry.at.0))
        .bind(&entry.kind)
        .bind(&entry.message)
        .bind(actor)
        .bind(explanation)
        .bind(waited)
        .execute(connection)
        .await?;
    Ok(())
}
