//! The sign-in: the CLI from its start to a sealed credential.

mod capture;
mod cli;
mod context;
mod printed;
mod run;
mod start;
mod terminal;

pub use context::{Context, HostSignals};
pub use run::run;
pub use terminal::Terminal;
