//! The egress gate: the host's end of the guest's HTTP proxy.
//!
//! A guest has no network card; each of its connections arrives as a stream that speaks the HTTP
//! proxy protocol. [`policy`] decides by host name, `address` and `networks` refuse what no guest may
//! reach after the name was resolved here, and [`Gate`] connects and records. What is said on a
//! connection must be for the host that it was allowed to: `carry` holds it to that, by the name in a
//! TLS hello ([`hello`]) or in a request (`request`, `body`).
#![forbid(unsafe_code)]

mod address;
mod body;
mod carry;
mod gate;
pub mod hello;
mod networks;
mod policy;
mod refusal;
mod request;
#[cfg(test)]
mod testing;

pub use address::{RefusedRange, address_allowed};
pub use gate::{ConnectionRecord, Gate, Resolve, SystemResolver};
pub use networks::HostNetworks;
pub use policy::{Decision, HostPattern, InvalidPattern, Mapping, Policy};
