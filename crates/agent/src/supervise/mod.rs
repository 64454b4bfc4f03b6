//! Services of the sandbox: started, kept and explained by one supervisor.
//!
//! A service is a [`ServiceSpec`]: its command and how it is seen to be ready, what follows its death, its
//! limits, whether the session needs it. [`Supervisor`] does the same for each, and one service's death
//! never touches another. [`Failure`] is the one place where it is said that a service is not available.

mod core_dump;
mod death;
mod evidence_collector;
mod failure;
mod limits;
mod not_started;
mod out_of_memory;
mod output;
mod process;
mod process_tree;
mod reaper;
mod restart;
mod service;
mod stall;
mod supervisor;
mod watchdog;

pub use core_dump::{ARGUMENT as CORE_ARGUMENT, look as look_at_core};
pub use death::{Death, describe};
pub use failure::{Failure, check};
pub use limits::Limits;
pub use output::{Lines, LogLine};
pub use process::{Output, Process, end_with_agent};
pub use process_tree::ProcessTree;
pub use reaper::{Reaper, run_to_end};
pub use restart::RestartPolicy;
pub use service::{Launch, Priority, Readiness, ServiceSpec};
pub use stall::look as look_at_stall;
pub use supervisor::Supervisor;
pub use watchdog::Watchdog;
