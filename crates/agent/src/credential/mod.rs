//! The credential: watched for in the home, asked of the tool itself, sealed.

pub mod bundle;
mod changes;
pub mod keyring;
pub mod portability;
pub mod status;
mod turn;
mod values;
pub mod watch;
