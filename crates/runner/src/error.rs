//! What ends a runner before its session can say why.

use std::io;

/// The sockets are missing, or the controller cannot be reached any more.
#[derive(Debug, thiserror::Error)]
pub enum RunnerError {
    /// The system refused something.
    #[error("{operation} failed")]
    System {
        /// What was tried.
        operation: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The control socket cannot be prepared.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Nothing started this as a runner.
    #[error("{0} names no socket; `anteroom session` is started by `anteroom serve`")]
    NoSocket(&'static str),
    /// A socket was to be inherited.
    #[error("{variable} names a descriptor that is not open")]
    NotOpen {
        /// The variable that has its number.
        variable: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The controller is gone.
    #[error("the controller closed the socket before the configuration")]
    NoConfiguration,
}

impl RunnerError {
    pub(crate) fn system<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> Self {
        move |source| Self::System { operation, source: source.into() }
    }
}
