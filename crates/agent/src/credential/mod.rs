//! The credential: watched for in the home and the keyring, asked of the tool itself, sealed.

pub mod bundle;
mod changes;
mod complete;
pub mod keyring;
pub mod look;
pub mod missing;
pub mod portability;
pub mod seal;
pub mod status;
mod turn;
mod values;
pub mod watch;
mod watched_file;
mod watched_keyring;
