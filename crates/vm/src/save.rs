//! What a VMM may be able to do beyond running and ending: keep its guest, to start others from.

use std::pin::Pin;

use crate::SaveError;

/// A guest that is being saved.
pub(crate) type Saving<'a> = Pin<Box<dyn Future<Output = Result<(), SaveError>> + 'a>>;

/// An optional ability: a VM that was started to be saved.
pub(crate) trait Save {
    /// Stops the guest's processors for good and writes its memory and the state of its devices to the
    /// files of [`VmStart::ToBeSaved`](crate::VmStart::ToBeSaved).
    fn save(&mut self) -> Saving<'_>;
}
