//! What a driver is.

use std::pin::Pin;

use anteroom_session::DriverKind;

use crate::{BootError, RunningSandbox, SandboxSpec};

/// A boot under way.
pub type Booting<'a> = Pin<Box<dyn Future<Output = Result<RunningSandbox, BootError>> + 'a>>;

/// A way to make sandboxes. The driver's value holds what it alone understands, and whoever boots knows
/// no more of it than this.
pub trait Driver {
    /// Which it is: what reports, logs and sentences name it by.
    fn kind(&self) -> DriverKind;

    /// Starts a sandbox; on a `LocalSet`. Its guest may wait for [`RunningSandbox::start_guest`].
    ///
    /// # Errors
    /// When it cannot be started; nothing is left of the attempt.
    fn boot<'a>(&'a self, sandbox: &'a SandboxSpec) -> Booting<'a>;
}
