//! What a VMM may be able to do beyond running and ending: answer questions about its guest.

use std::pin::Pin;

use anteroom_session::Accelerator;

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
