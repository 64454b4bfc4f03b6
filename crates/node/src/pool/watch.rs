//! What a waiting clone reports.

use std::time::Instant;

use anteroom_node_protocol::{Report, Reports};
use anteroom_session::{EndReason, Observation, ProcessExit};
use tokio::sync::{mpsc, oneshot};

/// Reports that may wait for whoever has the clone.
pub const REPORTS: usize = 256;

/// Of a clone that only waits; more is no clone that waits.
const MOST_HEARD: usize = 16;

/// A clone's reports, and what it said while it waited.
pub struct Watch {
    pub reports: Reports,
    pub heard: Vec<Report>,
}

impl Watch {
    /// Listens until it has loaded, and is held.
    ///
    /// # Errors
    /// Why it ended before.
    pub async fn until_held(&mut self) -> Result<(), EndReason> {
        loop {
            let report = self.reports.recv().await;
            if let Some(reason) = end_of(report.as_ref()) {
                return Err(reason);
            }
            let is_held =
                matches!(report, Some(Report::Observed { observation: Observation::Confined(_) }));
            self.hear(report);
            if is_held {
                return Ok(());
            }
        }
    }

    /// The VMM's process, as the runner reported it before the guest ran.
    pub fn vmm(&self) -> Option<i32> {
        self.heard.iter().find_map(|report| match report {
            Report::Observed { observation: Observation::SandboxStarted { pid, .. } } => {
                i32::try_from(*pid).ok()
            }
            _ => None,
        })
    }

    /// Listens until it has a session, or ends: then `ended` says whether it has none, with the reason.
    pub async fn run(
        mut self,
        mut handover: oneshot::Receiver<mpsc::Sender<Report>>,
        ended: impl FnOnce(&EndReason) -> bool,
    ) {
        let since = Instant::now();
        let to = loop {
            tokio::select! {
                biased;
                to = &mut handover => break to,
                report = self.reports.recv() => {
                    let reason = end_of(report.as_ref());
                    self.hear(report);
                    if let Some(reason) = reason {
                        if ended(&reason) {
                            return;
                        }
                        break handover.await;
                    }
                }
            }
        };
        // Who does not take it over ends it.
        if let Ok(to) = to {
            self.forward(to, since).await;
        }
    }

    fn hear(&mut self, report: Option<Report>) {
        let heard = report.filter(|report| !matches!(report, Report::Media { .. }));
        if self.heard.len() < MOST_HEARD {
            self.heard.extend(heard);
        }
    }

    async fn forward(mut self, to: mpsc::Sender<Report>, since: Instant) {
        let waited = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        for report in self.heard.drain(..) {
            if to.send(after(waited, report)).await.is_err() {
                return;
            }
        }
        while let Some(report) = self.reports.recv().await {
            if to.send(after(waited, report)).await.is_err() {
                return;
            }
        }
    }
}

/// A report of a clone that had waited for so many milliseconds: no session waited for its load.
fn after(waited_ms: u64, mut report: Report) -> Report {
    if let Report::Observed { observation } = &mut report {
        match observation {
            Observation::SandboxStarted { cloned: Some(cloned), .. } => {
                cloned.waited_ms = Some(waited_ms);
            }
            Observation::AgentConnected { waited: Some(waited), .. } => {
                waited.vmm_start_micros = None;
            }
            _ => {}
        }
    }
    report
}

/// Why a clone has ended that reports this, or nothing more.
fn end_of(report: Option<&Report>) -> Option<EndReason> {
    match report {
        Some(Report::Observed { observation: Observation::Failed(reason) }) => Some(reason.clone()),
        Some(Report::RunnerExited { exit }) => Some(EndReason::RunnerDied { exit: *exit }),
        Some(Report::RunnerSilent { silent_ms }) => {
            Some(EndReason::RunnerSilent { silent_ms: *silent_ms })
        }
        Some(Report::Observed { .. } | Report::Media { .. } | Report::VmmFailed { .. }) => None,
        None => Some(EndReason::RunnerDied { exit: ProcessExit::Unknown }),
    }
}
