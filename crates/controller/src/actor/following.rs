//! What goes on beside a session's task while its node runs it.

use std::sync::Arc;

use anteroom_node_protocol::{AskError, MediaTotals, Node, Notice, Report, Reports};
use anteroom_session::{Event, HolderGeneration, SessionId};
use tokio::sync::{mpsc, watch};

use crate::metrics::Metrics;

/// Passes on what a node reports of a session, until its runner has ended or the node is lost.
pub async fn reports(mut reports: Reports, events: mpsc::Sender<Event>, metrics: Arc<Metrics>) {
    let mut counted = MediaTotals::default();
    while let Some(report) = reports.recv().await {
        let event = match report {
            Report::Observed { observation } => Event::Observed(observation),
            Report::RunnerSilent { silent_ms } => Event::RunnerSilent { silent_ms },
            Report::Media { totals } => {
                metrics.media(&counted, &totals);
                counted = totals;
                continue;
            }
            Report::VmmFailed { failures } => {
                metrics.vmm_failed(&failures);
                continue;
            }
            Report::RunnerExited { exit } => {
                let _ = events.send(Event::RunnerExited(exit)).await;
                return;
            }
        };
        if events.send(event).await.is_err() {
            return;
        }
    }
    let _ = events.send(Event::NodeLost).await;
}

/// Has a session's node close what revoked links opened; those that were revoked before it ran too.
pub async fn revocations<N: Node>(
    node: Arc<N>,
    session: SessionId,
    mut oldest: watch::Receiver<HolderGeneration>,
) {
    oldest.mark_changed();
    while oldest.changed().await.is_ok() {
        let oldest = *oldest.borrow_and_update();
        match node.notify(session, Notice::RevokeBefore { oldest }).await {
            Ok(()) => {}
            Err(AskError::Gone {}) => return,
            Err(error) => tracing::error!(%session, "revoking viewers' links failed: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use anteroom_session::{ProcessExit, VmmFailure};

    use super::*;
    use crate::shortage::Reserved;

    #[tokio::test]
    async fn what_a_vmm_counted_is_on_the_page_of_metrics_and_no_event() {
        let metrics = Arc::new(Metrics::new(1));
        let (sender, of_node) = mpsc::channel(4);
        for failures in [[(VmmFailure::Device, 3)].into(), [(VmmFailure::Device, 1)].into()] {
            sender.send(Report::VmmFailed { failures }).await.unwrap();
        }
        let exit = ProcessExit::Exited { code: 0 };
        sender.send(Report::RunnerExited { exit }).await.unwrap();
        let (events, mut came) = mpsc::channel(4);
        reports(of_node, events, Arc::clone(&metrics)).await;
        assert!(matches!(came.recv().await, Some(Event::RunnerExited(_))));
        let page = metrics.page(&[], Reserved::default(), Default::default());
        assert!(page.contains("anteroom_vmm_failures_total{part=\"device\"} 4\n"), "{page}");
    }
}
