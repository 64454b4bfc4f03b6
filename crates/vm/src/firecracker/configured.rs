//! A VM that Firecracker knows all of, and whose guest does not run yet.

use std::rc::Rc;

use anteroom_confine::filters_of_threads;
use tokio::sync::oneshot;

use super::api::{Api, ApiError};
use super::config::{Action, Vm};
use crate::BootError;
use crate::clone_start::Resumed;
use crate::held::{Held, Releasing};

/// A VM that Firecracker knows all of.
pub struct Configured {
    pub api: Rc<Api>,
    pub pid: u32,
    pub is_clone: bool,
    /// Whoever waits for it.
    pub runs: oneshot::Sender<()>,
}

impl Held for Configured {
    fn release<'a>(self: Box<Self>) -> Releasing<'a>
    where
        Self: 'a,
    {
        Box::pin(async move {
            let resumed = Resumed::by(self.resume()).await?;
            // One filter is ours; Firecracker sets its own for each thread before the guest runs.
            let threads = filters_of_threads(self.pid)
                .map_err(BootError::system("looking at the filters of Firecracker's threads"))?;
            if let Some(found) = threads.iter().find(|thread| thread.filters < 2) {
                return Err(BootError::Unfiltered { thread: found.thread.clone() });
            }
            // Nobody waits where the guest connects.
            let _ = self.runs.send(());
            Ok(resumed)
        })
    }
}

impl Configured {
    async fn resume(&self) -> Result<(), ApiError> {
        match self.is_clone {
            true => self.api.patch("/vm", &Vm::RESUMED).await,
            false => self.api.put("/actions", &Action::INSTANCE_START).await,
        }
    }
}
