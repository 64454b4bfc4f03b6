//! Sealed credentials.

use anteroom_fail_point::fail_point;
use anteroom_session::SessionId;
use sqlx::Row;

use super::{SqliteStore, signed};
use crate::store::{CredentialStore, StoreError};

impl CredentialStore for SqliteStore {
    async fn put_credential(
        &self,
        session: SessionId,
        sealed: &[u8],
        recipient: &str,
        now: u64,
    ) -> Result<(), StoreError> {
        self.file.check()?;
        fail_point("store.credential")
            .map_err(StoreError::failed("storing the sealed credential"))?;
        sqlx::query(
            "INSERT INTO credentials (session, sealed, recipient, stored_at) VALUES (?, ?, ?, ?)",
        )
        .bind(session.to_string())
        .bind(sealed)
        .bind(recipient)
        .bind(signed(now))
        .execute(&self.writes)
        .await
        .map_err(StoreError::failed("storing the sealed credential"))?;
        Ok(fail_point("store.credential_durable")?)
    }

    async fn credential(&self, session: SessionId) -> Result<Option<Vec<u8>>, StoreError> {
        let row = sqlx::query("SELECT sealed FROM credentials WHERE session = ?")
            .bind(session.to_string())
            .fetch_optional(&self.reads)
            .await
            .map_err(StoreError::failed("reading the sealed credential"))?;
        Ok(row.map(|row| row.get("sealed")))
    }

    async fn has_credentials_of_vault(&self) -> Result<bool, StoreError> {
        let row =
            sqlx::query("SELECT COUNT(*) AS n FROM credentials").fetch_one(&self.reads).await?;
        Ok(row.get::<i64, _>("n") > 0)
    }
}
