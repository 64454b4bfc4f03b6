//! The HTTP API: wire types, routes, OpenAPI. What a route means is in the [`Backend`], which the
//! binary implements; this crate only reads requests, checks who asks, and writes answers.
#![forbid(unsafe_code)]

mod backend;
mod bearer;
mod extract;
mod guard;
mod idempotency;
mod json;
mod memory;
mod principal;
mod problem;
mod routes;
mod wire;

pub use backend::{Backend, Begun, Channel, Revoked, ViewerAccess, Watched};
pub use extract::Recognized;
pub use guard::{AllowedHosts, viewer_cookie};
pub use idempotency::Idempotency;
pub use memory::{MemoryView, SessionMemoryView, TemplateMemoryView, WaitingCloneView};
pub use principal::{KeyId, Principal, PrincipalId, Scope};
pub use problem::{Problem, ProblemCode};
pub use routes::{openapi, router};
pub use wire::*;
