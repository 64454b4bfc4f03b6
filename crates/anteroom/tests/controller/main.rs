//! A real controller, seen through its API. One binary, so that its support is compiled once.
#![allow(clippy::unwrap_used, reason = "tests")]

mod api;
mod asked;
mod canary;
mod codes;
mod coming;
mod commands;
mod copied;
mod credentials;
mod crowd;
mod deaths;
mod desktop_first;
mod ends;
#[cfg(feature = "fail-points")]
mod faults;
mod files;
mod host;
mod hosts;
mod incident;
mod kept;
mod keyring;
mod keys;
mod limits;
mod logins;
mod machines;
mod neighbours;
mod openers;
mod provider_files;
mod sandbox;
mod storage;
mod support;
mod viewers;
