//! What a controller cannot begin without.

use anteroom_guest_protocol::chain;
use anteroom_node_protocol::NodeError;
use anteroom_private::PrivateError;
use anteroom_session::SessionId;
use anteroom_vault::{ControllerKeyError, VaultError};

use crate::store::StoreError;

/// The controller could not be opened, or did not do what only this machine asks for.
#[derive(Debug, thiserror::Error)]
pub enum ControllerError {
    /// The vault cannot be used, or does not take a credential.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// There is no key to sign envelopes with.
    #[error(transparent)]
    Key(#[from] ControllerKeyError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Something runs of a session whose record cannot be read.
    #[error("tearing down the session {session}, whose record cannot be read, failed")]
    TearDown {
        /// Whose sandbox it is.
        session: SessionId,
        /// Why.
        #[source]
        source: NodeError,
    },
    /// A client got no key of its own.
    #[error("{0}")]
    NoClientKey(String),
    /// A client's file was not written.
    #[error(transparent)]
    ClientFile(#[from] PrivateError),
}

impl ControllerError {
    /// The causes, for a sentence that says itself what was not stored.
    pub(super) fn cause(&self) -> String {
        match self {
            Self::Store(error) => error.cause(),
            other => chain(other),
        }
    }
}
