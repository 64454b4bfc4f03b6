//! A VM whose processors do not run yet.

use std::pin::Pin;

use crate::BootError;
use crate::clone_start::Resumed;

/// A guest that is being let run.
pub(crate) type Releasing<'a> = Pin<Box<dyn Future<Output = Result<Resumed, BootError>> + 'a>>;

/// What is left to do until a guest runs, once whoever reads from it is confined.
pub(crate) trait Held {
    /// Lets the guest run.
    fn release<'a>(self: Box<Self>) -> Releasing<'a>
    where
        Self: 'a;
}
