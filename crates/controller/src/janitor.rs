//! What sessions that are over leave is bounded: their records here, their logs on the node.

use std::sync::Arc;
use std::time::Duration;

use anteroom_clock::now;
use anteroom_guest_protocol::chain;
use anteroom_node_protocol::{KeepLogs, Node};
use anteroom_session::counted::counted;

use super::actor::ControllerContext;
use super::store::Store;

/// How often is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

const DAY_MILLIS: u64 = 24 * 3600 * 1000;

/// What the operator wants kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Days after which a session, its history and its logs are forgotten. A session with a sealed
    /// credential stays: the credential is its owner's to fetch.
    pub days: u64,
    /// Bytes of all sessions' logs together; the oldest go first.
    pub log_bytes: u64,
}

/// Sweeps now and then, for as long as it is polled.
pub async fn run<N: Node, S: Store>(context: Arc<ControllerContext<N, S>>, keep: Keep) {
    loop {
        sweep(&context, keep).await;
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

async fn sweep<N: Node, S: Store>(context: &ControllerContext<N, S>, keep: Keep) {
    let before = now().0.saturating_sub(keep.days.saturating_mul(DAY_MILLIS));
    match context.store.forget(before, now().0).await {
        Ok(0) => {}
        Ok(sessions) => {
            let sessions = counted(sessions, "session was", "sessions were");
            let days = counted(keep.days, "day", "days");
            tracing::info!("{sessions} deleted, because they began more than {days} ago")
        }
        Err(error) => tracing::warn!("{}", chain(&error)),
    }
    let logs = KeepLogs { days: keep.days, bytes: keep.log_bytes };
    if let Err(error) = context.node.sweep_logs(logs, context.live.ids()).await {
        tracing::warn!("{error}");
    }
}
