//! Secrets in what is logged and reported: known by their form or name, or since they were typed or found.

mod patterns;
mod secrets;

pub use patterns::{Rows, names_a_secret, redact};
pub use secrets::Secrets;
