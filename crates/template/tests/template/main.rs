//! Templates as whoever makes and uses them sees them.

#![allow(clippy::unwrap_used, reason = "tests")]

mod disk_full;
mod refused;
mod sealed;
mod support;
mod written;
