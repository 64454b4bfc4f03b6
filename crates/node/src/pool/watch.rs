//! What a waiting clone reports.

use std::time::Instant;

use anteroom_node_protocol::{Report, Reports};
use anteroom_session::{EndReason, Observation, SessionId};
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
    /// Why it has not.
    pub async fn until_held(&mut self) -> Result<(), Option<EndReason>> {
        loop {
            let Some(report) = self.reports.recv().await else { return Err(None) };
            let is_held =
                matches!(&report, Report::Observed { observation: Observation::Confined(_) });
            match report {
                Report::Observed { observation: Observation::Failed(reason) } => {
                    return Err(Some(reason));
                }
                Report::RunnerExited { exit } => return Err(Some(EndReason::RunnerDied { exit })),
                Report::RunnerSilent { silent_ms } => {
                    return Err(Some(EndReason::RunnerSilent { silent_ms }));
                }
                report => self.hear(report),
            }
            if is_held {
                return Ok(());
            }
        }
    }

    /// Listens until it has a session, or ends: then `ended` says whether it has none, with the reason.
    pub async fn run(
        mut self,
        session: SessionId,
        mut handover: oneshot::Receiver<mpsc::Sender<Report>>,
        mut ended: impl FnMut(SessionId, Option<&EndReason>) -> bool,
    ) {
        let since = Instant::now();
        let to = loop {
            tokio::select! {
                biased;
                to = &mut handover => break to,
                report = self.reports.recv() => {
                    let is_last = matches!(
                        report,
                        None | Some(
                            Report::RunnerExited { .. }
                                | Report::RunnerSilent { .. }
                                | Report::Observed { observation: Observation::Failed(_) }
                        )
                    );
                    if let Some(report) = report {
                        self.hear(report);
                    }
                    if is_last {
                        if ended(session, self.why()) {
                            return;
                        }
                        break (&mut handover).await;
                    }
                }
            }
        };
        // Who does not take it over ends it.
        if let Ok(to) = to {
            self.forward(to, since).await;
        }
    }

    fn hear(&mut self, report: Report) {
        let counts = !matches!(report, Report::Media { .. });
        if counts && self.heard.len() < MOST_HEARD {
            self.heard.push(report);
        }
    }

    fn why(&self) -> Option<&EndReason> {
        self.heard.iter().find_map(|report| match report {
            Report::Observed { observation: Observation::Failed(reason) } => Some(reason),
            _ => None,
        })
    }

    async fn forward(mut self, to: mpsc::Sender<Report>, since: Instant) {
        let waited = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        for mut report in self.heard.drain(..) {
            if let Report::Observed {
                observation: Observation::SandboxStarted { cloned: Some(cloned), .. },
            } = &mut report
            {
                cloned.waited_ms = Some(waited);
            }
            if to.send(report).await.is_err() {
                return;
            }
        }
        while let Some(report) = self.reports.recv().await {
            if to.send(report).await.is_err() {
                return;
            }
        }
    }
}
