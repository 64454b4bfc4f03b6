//! The desktop's keyring: a Secret Service (freedesktop.org) on a session bus of its own, for a tool that
//! keeps its secret there.
//!
//! It is GNOME's, started by the bus when somebody asks for it. It keeps a keyring without a password as a
//! text file in the end user's home, which is in the guest's memory: so its secrets are watched and read
//! like any other file, and no part of ours speaks D-Bus.

mod bus;
mod file;

pub use bus::{Bus, with_a_session};
pub use file::{FOLDER, Found, declared, entry, files, items, lay};
