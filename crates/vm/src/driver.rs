//! What a driver is.

use anteroom_session::DriverKind;

use crate::{BootError, RunningSandbox, SandboxSpec};

/// A way to make sandboxes. The driver's value holds what it alone understands, and whoever boots knows
/// no more of it than this.
pub trait Driver {
    /// Which it is: what reports, logs and sentences name it by.
    fn kind(&self) -> DriverKind;

    /// Starts a sandbox.
    ///
    /// # Errors
    /// When it cannot be started; nothing is left of the attempt.
    fn boot(&self, sandbox: &SandboxSpec) -> Result<RunningSandbox, BootError>;
}
