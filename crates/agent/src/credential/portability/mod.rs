//! Whether a credential works away from the machine that made it: the tool is asked in an environment
//! without a network, and in one where nothing is as it was but the credential's files: another host, user,
//! group, machine id and boot, other folders, no network card, no language or time zone of the end user,
//! and none of the keys that the kernel keeps for a user (keyrings(7)).
//!
//! The agent starts itself with [`ARGUMENT`] as the program that makes the environment and runs a command in
//! it.

mod environment;
mod isolate;
mod names;

pub use environment::{ARGUMENT, Environment};
pub use isolate::{CANNOT_ISOLATE, run};
