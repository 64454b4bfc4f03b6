//! What the store could not do.

use std::error::Error;
use std::io;
use std::path::PathBuf;

use anteroom_guest_protocol::chain;

/// SQLite's code where there is no space (`SQLITE_FULL`); an extended code has it in its last byte.
const FULL: i32 = 13;

/// Something could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// What was tried.
    #[error("{operation} failed")]
    Failed {
        /// In a few words.
        operation: String,
        /// Why.
        #[source]
        source: Box<StoreError>,
    },
    /// SQLite refused it.
    #[error("{0}")]
    Database(String),
    /// The system refused it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It has no form as JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// What is stored is not what this version stores.
    #[error("{what}")]
    Invalid {
        /// What is wrong with it.
        what: String,
        /// Why.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The number of a stored link's generation is none.
    #[error("a stored link has the number {0}")]
    Generation(i64),
    /// SQLite goes on with a file that is not there any more.
    #[error("the database {} was removed or replaced while it was open; start this Anteroom again", .0.display())]
    Replaced(PathBuf),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        // The library's error repeats SQLite's, and what it says around that is about itself.
        Self::Database(match error.as_database_error() {
            Some(refusal) => {
                let code = refusal.code().unwrap_or_default();
                let is_full = code.parse().is_ok_and(|code: i32| code & 0xff == FULL);
                let to_do =
                    if is_full { "; free space on the disk of the state folder" } else { "" };
                format!("SQLite reported \"{}\" (code {code}){to_do}", refusal.message())
            }
            None => chain(&error),
        })
    }
}

impl StoreError {
    /// The causes without the operation, for a sentence that says itself what was not stored.
    pub fn cause(&self) -> String {
        match self {
            Self::Failed { source, .. } => chain(source),
            other => chain(other),
        }
    }

    pub(super) fn failed<E: Into<Self>>(operation: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed { operation: operation.into(), source: Box::new(source.into()) }
    }

    pub(super) fn invalid<E: Error + Send + Sync + 'static>(
        what: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Invalid { what: what.into(), source: Box::new(source) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_full_database_is_reported_once_and_with_what_to_do() {
        let options = sqlx::sqlite::SqlitePoolOptions::new().max_connections(1);
        let pool = options.connect("sqlite::memory:").await.unwrap();
        sqlx::raw_sql("CREATE TABLE t (x BLOB); PRAGMA max_page_count = 3")
            .execute(&pool)
            .await
            .unwrap();
        let insert = sqlx::query("INSERT INTO t VALUES (randomblob(100000))");
        let full = insert.execute(&pool).await.map_err(StoreError::failed("storing it"));
        let full = full.unwrap_err();
        let cause = "SQLite reported \"database or disk is full\" (code 13); free space on the disk of the \
                     state folder";
        assert_eq!(chain(&full), format!("storing it failed: {cause}"));
        assert_eq!(full.cause(), cause);
    }
}
