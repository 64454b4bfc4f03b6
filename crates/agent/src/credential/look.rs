//! What one look at a credential found.

use super::bundle::BundledFile;
use super::missing::Missing;

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Look {
    /// Not all of it yet: wait.
    Incomplete(Missing),
    /// All that the provider file asks for.
    Complete(Vec<BundledFile>),
    /// Something that no amount of waiting makes right.
    Refused(String),
}
