//! What tests and benchmarks share: a real `anteroom serve`, and those who talk to it: a caller of its
//! API, somebody with a viewer link, an end user with a browser or with a viewer in code, an attacker with
//! a socket.

mod api;
mod controller;
pub mod end_user;
pub mod link;
pub mod processes;
pub mod raw;
mod stepped_clock;
mod unix_ms;
pub mod viewer;
mod wait;

pub use api::{Answer, Api, Sealed, Started};
pub use controller::{Controller, SILENT, fake_guest};
pub use stepped_clock::SteppedClock;
pub use unix_ms::unix_ms;
pub use wait::{PATIENCE, eventually, eventually_within};
