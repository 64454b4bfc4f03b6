//! API keys: their hashes, names and times. A key itself is nowhere.

use anteroom_api::{KeyId, KeyRole, Principal};
use anteroom_session::KeyName;
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{SqliteStore, hash, signed};
use crate::store::{KeptKey, KeyStore, StoreError};

impl KeyStore for SqliteStore {
    async fn api_key(&self, key: &str) -> Result<Option<Principal>, StoreError> {
        let row = sqlx::query("SELECT key_hash, name, role FROM api_keys WHERE key_hash = ?")
            .bind(hash(key))
            .fetch_optional(&self.reads)
            .await
            .map_err(StoreError::failed("looking for an API key"))?;
        row.map(|row| Ok(Principal::caller(id(&row)?, name(&row)?, role(&row)?))).transpose()
    }

    async fn api_keys(&self) -> Result<Vec<KeptKey>, StoreError> {
        let rows = sqlx::query(
            "SELECT key_hash, name, role, created_at, last_used_at FROM api_keys ORDER BY name",
        )
        .fetch_all(&self.reads)
        .await
        .map_err(StoreError::failed("reading the API keys"))?;
        let kept = |row: &SqliteRow| {
            Ok(KeptKey {
                id: id(row)?,
                name: name(row)?,
                role: role(row)?,
                created_at: row.get::<i64, _>("created_at").unsigned_abs(),
                last_used_at: row.get::<Option<i64>, _>("last_used_at").map(i64::unsigned_abs),
            })
        };
        rows.iter().map(kept).collect()
    }

    async fn add_api_key(
        &self,
        name: &KeyName,
        role: KeyRole,
        key: &str,
        now: u64,
    ) -> Result<bool, StoreError> {
        let work = async |connection: &mut SqliteConnection| {
            let done = sqlx::query(
                "INSERT INTO api_keys (key_hash, name, role, created_at) VALUES (?, ?, ?, ?)
                 ON CONFLICT (name) DO NOTHING",
            )
            .bind(hash(key))
            .bind(name.as_str())
            .bind(<&str>::from(role))
            .bind(signed(now))
            .execute(connection)
            .await?;
            Ok(done.rows_affected() == 1)
        };
        self.in_transaction(work).await.map_err(StoreError::failed("storing an API key"))
    }

    async fn rotate_api_key(
        &self,
        name: &str,
        key: &str,
        now: u64,
    ) -> Result<Option<(KeyId, KeyRole)>, StoreError> {
        let work = async |connection: &mut SqliteConnection| {
            let Some(before) = of_name(connection, name).await? else { return Ok(None) };
            sqlx::query(
                "UPDATE api_keys SET key_hash = ?, created_at = ?, last_used_at = NULL WHERE name = ?",
            )
            .bind(hash(key))
            .bind(signed(now))
            .bind(name)
            .execute(connection)
            .await?;
            Ok(Some(before))
        };
        self.in_transaction(work).await.map_err(StoreError::failed("storing an API key"))
    }

    async fn remove_api_key(&self, name: &str) -> Result<Option<KeyId>, StoreError> {
        let work = async |connection: &mut SqliteConnection| {
            let Some((before, _)) = of_name(connection, name).await? else { return Ok(None) };
            sqlx::query("DELETE FROM api_keys WHERE name = ?")
                .bind(name)
                .execute(connection)
                .await?;
            Ok(Some(before))
        };
        self.in_transaction(work).await.map_err(StoreError::failed("removing an API key"))
    }

    async fn keys_were_used(&self, used: &[(KeyId, u64)]) -> Result<(), StoreError> {
        let work = async |connection: &mut SqliteConnection| {
            for (key, at) in used {
                sqlx::query("UPDATE api_keys SET last_used_at = ? WHERE key_hash = ?")
                    .bind(signed(*at))
                    .bind(&key.0[..])
                    .execute(&mut *connection)
                    .await?;
            }
            Ok(())
        };
        self.in_transaction(work)
            .await
            .map_err(StoreError::failed("storing when API keys were used"))
    }
}

async fn of_name(
    connection: &mut SqliteConnection,
    name: &str,
) -> Result<Option<(KeyId, KeyRole)>, StoreError> {
    let row = sqlx::query("SELECT key_hash, role FROM api_keys WHERE name = ?")
        .bind(name)
        .fetch_optional(connection)
        .await?;
    row.map(|row| Ok((id(&row)?, role(&row)?))).transpose()
}

fn id(row: &SqliteRow) -> Result<KeyId, StoreError> {
    let hash: [u8; 32] = row
        .get::<&[u8], _>("key_hash")
        .try_into()
        .map_err(StoreError::invalid("a stored API key is not a hash"))?;
    Ok(KeyId(hash))
}

fn name(row: &SqliteRow) -> Result<KeyName, StoreError> {
    row.get::<&str, _>("name")
        .parse()
        .map_err(StoreError::invalid("a stored API key has an invalid name"))
}

fn role(row: &SqliteRow) -> Result<KeyRole, StoreError> {
    let role: &str = row.get("role");
    role.parse()
        .map_err(StoreError::invalid(format!("a stored API key has the unknown role {role}")))
}
