//! The egress gate: the host's end of the guest's HTTP proxy.
//!
//! A guest has no network card; each of its connections arrives as a stream that speaks the HTTP
//! proxy protocol. [`policy`] decides by host name, `address` refuses ranges no guest may reach after
//! the name was resolved here, and [`Gate`] connects, carries and records.
#![forbid(unsafe_code)]

mod address;
mod gate;
mod policy;
mod request;

pub use address::{RefusedRange, address_allowed};
pub use gate::{ConnectionRecord, Gate, Resolve, SystemResolver};
pub use policy::{Decision, HostPattern, InvalidPattern, Mapping, Policy, normalise_host};
