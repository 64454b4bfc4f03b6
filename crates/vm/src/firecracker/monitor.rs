//! What Firecracker reports of its guest.

use std::rc::Rc;

use anteroom_session::{Accelerator, RunState, ShutdownCause, VmmFailures};

use super::api::Api;
use super::config::InstanceInfo;
use super::log::Log;
use super::metrics::Metrics;
use super::pipe::Followed;
use crate::{Inspect, Inspected};

/// The last thing that Firecracker logs when its guest has reset its machine, by which alone a guest ends
/// one (src/vmm/src/lib.rs, `Vmm::stop`; src/firecracker/src/main.rs).
const ENDED_BY_GUEST: &str = "Firecracker exiting successfully. exit_code=0";

/// A running Firecracker's API, log and metrics.
pub struct Monitor {
    pub api: Rc<Api>,
    pub log: Followed<Log>,
    pub metrics: Followed<Metrics>,
}

impl Inspect for Monitor {
    fn accelerator(&self) -> Inspected<'_, Accelerator> {
        // It knows no other.
        Box::pin(async { Some(Accelerator::Kvm) })
    }

    fn run_state(&self) -> Inspected<'_, RunState> {
        Box::pin(async {
            let info: InstanceInfo = self.api.get("/").await.ok()?;
            Some(run_state(&info.state))
        })
    }

    fn registers(&self) -> Inspected<'_, String> {
        Box::pin(async { None })
    }

    fn shutdown_cause(&self) -> Option<ShutdownCause> {
        let is_end = |line: &String| line.ends_with(ENDED_BY_GUEST);
        self.log.taken().lines().iter().any(is_end).then_some(ShutdownCause::GuestReset)
    }

    fn log(&self) -> Vec<String> {
        self.log.taken().lines()
    }

    fn failures(&self) -> Vec<VmmFailures> {
        self.metrics.taken().failures()
    }

    fn drained(&mut self) -> Inspected<'_, ()> {
        Box::pin(async {
            self.log.closed().await;
            self.metrics.closed().await;
            Some(())
        })
    }
}

/// `InstanceInfo.state` of its API in the drivers' terms.
fn run_state(state: &str) -> RunState {
    match state {
        "Running" => RunState::Running,
        "Paused" => RunState::Paused,
        other => RunState::Other(other.chars().filter(|c| !c.is_control()).take(80).collect()),
    }
}
