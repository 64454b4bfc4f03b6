//! The desktop: the X server's start, and its pixels on their way to the host.

mod capture;
mod cursor;
pub mod server;
mod stream;

pub use stream::{Pixels, serve_frames};
