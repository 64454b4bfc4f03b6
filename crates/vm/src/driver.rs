//! What a driver is, and what its sandboxes may be able to do beyond running and ending.

use std::pin::Pin;
use std::time::Duration;

use anteroom_session::Accelerator;

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

/// How a driver's sandboxes are ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By killing the process: nothing outside of it is the guest's.
    Kill,
    /// By asking it to end what it started on the host, and killing it when it has not in that time.
    Ask(Duration),
}

/// An answer that takes its time.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + 'a>>;

/// An optional ability: a VMM that can be asked about its guest. Each answer is `None` where the VMM
/// gives none.
pub trait Inspect {
    /// What executes guest code, as the VMM itself says.
    fn accelerator(&self) -> Answer<'_, Accelerator>;

    /// Whether the guest runs: `running`, `paused`, `internal-error`, ….
    fn run_state(&self) -> Answer<'_, String>;

    /// Where each of the guest's processors is, as the VMM prints it: the evidence of a stall.
    fn registers(&self) -> Answer<'_, String>;

    /// Why the guest stopped: `guest-reset`, `host-signal`, …; `None` while it runs and when the VMM
    /// was killed before it could say.
    fn shutdown_cause(&self) -> Option<String>;

    /// Waits until everything that the VMM said has been read.
    fn drained(&mut self) -> Answer<'_, ()>;
}
