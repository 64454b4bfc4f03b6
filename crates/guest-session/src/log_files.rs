//! The files in a session's folder of logs.

/// What the runner itself reports.
pub const RUNNER: &str = "runner.log";

/// The serial console of a VM and what its VMM complains of; what the agent on the host prints.
pub const CONSOLE: &str = "console.log";

/// What the guest's services print.
pub const SERVICES: &str = "services.log";

/// The part of it before the present file.
pub const OLDER_SERVICES: &str = "services.log.old";

/// All of them, in the order in which they are read.
pub const ALL: [&str; 4] = [RUNNER, CONSOLE, OLDER_SERVICES, SERVICES];
