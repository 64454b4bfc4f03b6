//! What this machine refused.

use std::io;

/// Something that sessions need of this machine could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LocalNodeError {
    /// The system refused something.
    #[error("{operation} failed")]
    System {
        /// What was tried.
        operation: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Sockets cannot be prepared.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is to be started and was not prepared.
    #[error("the session was not prepared, or is already running")]
    NotPrepared,
    /// Its runner has no process.
    #[error("the runner ended at once")]
    RunnerGone,
}

impl LocalNodeError {
    pub(crate) fn system<E: Into<io::Error>>(
        operation: impl Into<String>,
    ) -> impl FnOnce(E) -> Self {
        move |source| Self::System { operation: operation.into(), source: source.into() }
    }
}
