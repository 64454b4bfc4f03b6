//! The sign-in: the CLI in its terminal, the URL it wants opened, the credential it writes.

mod bundle;
mod changes;
pub mod cli;
pub mod credential;
pub mod desktop_entry;
pub mod elsewhere;
pub mod keyring;
pub mod opener;
pub mod printed;
pub mod secrets;
pub mod status;
pub mod terminal;
mod turn;
mod values;
