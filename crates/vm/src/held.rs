//! A VM whose processors do not run yet.

use std::pin::Pin;

use crate::BootError;

/// What is left to do until a guest runs, once whoever reads from it is confined.
pub(crate) trait Held {
    /// Lets the guest run.
    fn release<'a>(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<(), BootError>> + 'a>>
    where
        Self: 'a;
}
