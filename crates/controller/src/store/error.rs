//! What the store could not do.

use std::error::Error;
use std::io;
use std::path::PathBuf;

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
    #[error(transparent)]
    Database(#[from] sqlx::Error),
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

impl StoreError {
    pub(super) fn failed<E: Into<Self>>(operation: impl Into<String>) -> impl FnOnce(E) -> Self {
        move |source| Self::Failed { operation: operation.into(), source: Box::new(source.into()) }
    }

    pub(super) fn invalid<E: Error + Send + Sync + 'static>(
        what: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::Invalid { what: what.into(), source: Box::new(source) }
    }
}
