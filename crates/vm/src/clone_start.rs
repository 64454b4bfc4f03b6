//! How long a clone's VMM is waited for until its guest runs.

use std::time::{Duration, Instant};

/// How long a clone's VMM was waited for until its guest ran.
#[derive(Clone, Copy, Debug)]
pub struct CloneStart {
    /// From when its process was there until it had answered the last call that loads the template's state,
    /// and then for its answer to what executes the guest, where that was asked.
    pub vmm_start: Duration,
    /// For its answer to the one call that lets the guest run.
    pub resume: Duration,
    /// When that answer was there.
    pub resumed_at: Instant,
}

/// A VMM's answer to the one call that lets its guest run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resumed {
    pub took: Duration,
    pub at: Instant,
}

impl Resumed {
    /// Waits for the answer.
    pub async fn by<E>(call: impl Future<Output = Result<(), E>>) -> Result<Self, E> {
        let began = Instant::now();
        call.await?;
        let at = Instant::now();
        Ok(Self { took: at.duration_since(began), at })
    }
}
