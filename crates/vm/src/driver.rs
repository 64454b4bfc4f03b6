//! What a driver is.

use crate::{BootError, RunningVm, SandboxName};

/// A way to make sandboxes. The driver's value holds what it alone understands; `Spec` what every
/// driver of its kind has to know.
pub trait Driver {
    /// What is to be booted.
    type Spec;

    /// Starts a sandbox of this name.
    ///
    /// # Errors
    /// When it cannot be started; nothing is left of the attempt.
    fn boot(&self, name: &SandboxName, spec: Self::Spec) -> Result<RunningVm, BootError>;
}
