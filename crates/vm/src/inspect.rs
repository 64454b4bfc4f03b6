//! What a VMM may be able to do beyond running and ending: answer questions about its guest.

use std::pin::Pin;

use anteroom_session::{Accelerator, RunState, ShutdownCause, VmmFailures};

/// What a VMM reports when it is asked; `None` where it does not.
pub type Inspected<'a, T> = Pin<Box<dyn Future<Output = Option<T>> + 'a>>;

/// An optional ability: a VMM that can be asked about its guest. Its driver translates what it says: no
/// term of one VMM's own crosses this, but in [`RunState::Other`], [`ShutdownCause::Other`], the names of
/// counters, and the lines of its log.
pub trait Inspect {
    /// What executes guest code, as the VMM itself says.
    fn accelerator(&self) -> Inspected<'_, Accelerator>;

    /// Whether the guest runs.
    fn run_state(&self) -> Inspected<'_, RunState>;

    /// Where each of the guest's processors is, as the VMM prints it: the evidence of a stall.
    fn registers(&self) -> Inspected<'_, String>;

    /// Why the guest stopped; `None` while it runs and when the VMM was killed before it could say.
    fn shutdown_cause(&self) -> Option<ShutdownCause>;

    /// The last lines of the VMM's own log, where it keeps one.
    fn log(&self) -> Vec<String> {
        Vec::new()
    }

    /// What of the VMM failed, where it counts that: in full once it has ended by itself.
    fn failures(&self) -> Vec<VmmFailures> {
        Vec::new()
    }

    /// Waits until everything that the VMM said has been read.
    fn drained(&mut self) -> Inspected<'_, ()>;
}
