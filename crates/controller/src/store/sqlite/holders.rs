//! Who may view a session: one link at a time, and the cookie that it was exchanged for.
//!
//! A row is a generation. The newest alone is good: a new one revokes, in one write, the link and the
//! cookie of every one before it. What nobody knows is looked up among the readers; only a link that
//! is good takes the writer.

use anteroom_session::{HolderGeneration, SessionId};
use sqlx::Row;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{SqliteStore, hash, signed};
use crate::store::{Cookie, Exchanged, HolderStore, StoreError, Unusable};

/// When the generation of a row `h` was revoked, if it was.
const REVOKED_AT: &str = "(SELECT MIN(made_at) FROM holders n
    WHERE n.session = h.session AND n.generation > h.generation) AS revoked_at";

impl HolderStore for SqliteStore {
    async fn begin_generation(
        &self,
        session: SessionId,
        link: Option<&str>,
        now: u64,
        expires_at: u64,
    ) -> Result<HolderGeneration, StoreError> {
        let work = async |connection: &mut SqliteConnection| {
            begin(connection, session, link, now, expires_at).await
        };
        self.in_transaction(work).await.map_err(StoreError::failed("storing a viewer link"))
    }

    async fn exchange(
        &self,
        session: SessionId,
        link: &str,
        cookie: &str,
        now: u64,
    ) -> Result<Exchanged, StoreError> {
        if let Some(unusable) = self.unusable(session, link, now).await? {
            return Ok(Exchanged::Refused(unusable));
        }
        let work = async |connection: &mut SqliteConnection| {
            let opened = sqlx::query(
                "UPDATE holders SET opened_at = ?, cookie_hash = ?
                 WHERE session = ? AND link_hash = ? AND opened_at IS NULL AND expires_at > ?
                 AND generation = (SELECT MAX(generation) FROM holders n WHERE n.session = holders.session)
                 RETURNING generation",
            )
            .bind(signed(now))
            .bind(hash(cookie))
            .bind(session.to_string())
            .bind(hash(link))
            .bind(signed(now))
            .fetch_optional(connection)
            .await?;
            opened.as_ref().map(generation).transpose()
        };
        let opened = self
            .in_transaction(work)
            .await
            .map_err(StoreError::failed("exchanging a viewer link"))?;
        match opened {
            Some(generation) => Ok(Exchanged::Opened(generation)),
            // Somebody was faster.
            None => Ok(Exchanged::Refused(
                self.unusable(session, link, now).await?.unwrap_or(Unusable::Unknown),
            )),
        }
    }

    async fn cookie(
        &self,
        session: SessionId,
        cookie: &str,
        now: u64,
    ) -> Result<Option<Cookie>, StoreError> {
        let query = format!(
            "SELECT generation, {REVOKED_AT} FROM holders h WHERE cookie_hash = ? AND session = ? AND expires_at > ?"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(hash(cookie))
            .bind(session.to_string())
            .bind(signed(now))
            .fetch_optional(&self.reads)
            .await
            .map_err(StoreError::failed("looking for a viewer"))?;
        row.map(|row| match time(&row, "revoked_at") {
            Some(at) => Ok(Cookie::Revoked(at)),
            None => generation(&row).map(Cookie::Good),
        })
        .transpose()
    }
}

impl SqliteStore {
    async fn unusable(
        &self,
        session: SessionId,
        link: &str,
        now: u64,
    ) -> Result<Option<Unusable>, StoreError> {
        let query = format!(
            "SELECT opened_at, {REVOKED_AT} FROM holders h WHERE link_hash = ? AND session = ? AND expires_at > ?"
        );
        let row = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(hash(link))
            .bind(session.to_string())
            .bind(signed(now))
            .fetch_optional(&self.reads)
            .await
            .map_err(StoreError::failed("looking for a viewer link"))?;
        let Some(row) = row else { return Ok(Some(Unusable::Unknown)) };
        let revoked = time(&row, "revoked_at").map(Unusable::Revoked);
        Ok(revoked.or(time(&row, "opened_at").map(Unusable::Opened)))
    }
}

/// Begins a generation on this connection.
pub(super) async fn begin(
    connection: &mut SqliteConnection,
    session: SessionId,
    link: Option<&str>,
    now: u64,
    expires_at: u64,
) -> Result<HolderGeneration, StoreError> {
    let row = sqlx::query(
        "INSERT INTO holders (session, generation, made_at, expires_at, link_hash)
         SELECT ?1, COALESCE(MAX(generation), 0) + 1, ?2, ?3, ?4 FROM holders WHERE session = ?1
         RETURNING generation",
    )
    .bind(session.to_string())
    .bind(signed(now))
    .bind(signed(expires_at))
    .bind(link.map(hash))
    .fetch_one(connection)
    .await?;
    generation(&row)
}

fn generation(row: &SqliteRow) -> Result<HolderGeneration, StoreError> {
    let number = row.get::<i64, _>("generation");
    HolderGeneration::from_number(number).ok_or(StoreError::Generation(number))
}

fn time(row: &SqliteRow, column: &str) -> Option<u64> {
    row.get::<Option<i64>, _>(column).map(i64::unsigned_abs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_generation_alone_is_good() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("a.db")).await.unwrap();
        let id = SessionId::generate();
        store.reserve_for_tests(id).await;
        let first = store.begin_generation(id, Some("l1"), 10, 1000).await.unwrap();
        assert_eq!(first, HolderGeneration::FIRST);
        let refused = Exchanged::Refused;
        let other = SessionId::generate();
        for (session, link) in [(id, "x"), (other, "l1")] {
            let exchanged = store.exchange(session, link, "c", 20).await.unwrap();
            assert_eq!(exchanged, refused(Unusable::Unknown));
        }
        assert_eq!(store.exchange(id, "l1", "c1", 20).await.unwrap(), Exchanged::Opened(first));
        assert_eq!(store.exchange(id, "l1", "c", 21).await.unwrap(), refused(Unusable::Opened(20)));
        assert_eq!(store.cookie(id, "c1", 22).await.unwrap(), Some(Cookie::Good(first)));
        assert_eq!(store.cookie(other, "c1", 22).await.unwrap(), None);
        assert_eq!(store.cookie(id, "c1", 1000).await.unwrap(), None);

        let second = store.begin_generation(id, Some("l2"), 30, 1000).await.unwrap();
        assert!(second > first);
        assert_eq!(store.cookie(id, "c1", 31).await.unwrap(), Some(Cookie::Revoked(30)));
        assert_eq!(
            store.exchange(id, "l1", "c", 31).await.unwrap(),
            refused(Unusable::Revoked(30))
        );
        store.begin_generation(id, None, 40, 1000).await.unwrap();
        assert_eq!(
            store.exchange(id, "l2", "c", 41).await.unwrap(),
            refused(Unusable::Revoked(40))
        );
        assert_eq!(store.cookie(id, "c1", 41).await.unwrap(), Some(Cookie::Revoked(30)));
    }

    #[tokio::test]
    async fn of_many_who_open_one_link_at_once_one_gets_in() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("a.db")).await.unwrap();
        let id = SessionId::generate();
        store.reserve_for_tests(id).await;
        store.begin_generation(id, Some("l"), 10, 1000).await.unwrap();
        let tries = (0..16).map(|n| {
            let store = store.clone();
            async move { store.exchange(id, "l", &format!("c{n}"), 20).await.unwrap() }
        });
        let tries: Vec<_> = tries.map(tokio::spawn).collect();
        let mut opened = 0;
        for one in tries {
            opened += usize::from(matches!(one.await.unwrap(), Exchanged::Opened(_)));
        }
        assert_eq!(opened, 1);
    }
}
