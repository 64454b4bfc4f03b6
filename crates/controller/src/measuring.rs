//! What sessions take is measured while they run, and reserved where it is more than was expected. What
//! templates take is looked at while nobody runs, too: some are loaded before anybody asks.

use std::sync::Arc;
use std::time::Duration;

use anteroom_node_protocol::Node;

use super::admission::Admission;

/// How often is measured: the kernel walks the page tables of all sessions' processes for it.
const EVERY: Duration = Duration::from_secs(10);

/// Measures now and then, for as long as it is polled.
pub async fn run<N: Node>(node: Arc<N>, admission: Admission) {
    loop {
        admission.measured(&node.memory().await);
        tokio::time::sleep(EVERY).await;
    }
}

#[cfg(test)]
mod tests {
    use anteroom_node_protocol::{Free, NodeMemory};

    use super::*;
    use crate::Limits;
    use crate::fake_node::{BUDGET, FakeNode};

    #[tokio::test]
    async fn templates_count_while_nobody_has_or_wants_anything() {
        let folder = tempfile::tempdir().unwrap();
        let node = FakeNode::beside(&folder.path().join(crate::DATABASE)).await;
        let admission = Admission::new(Limits { max_sessions: 1, max_queued: 0 }, BUDGET);
        tokio::time::pause();
        tokio::spawn(run(Arc::new(node.clone()), admission.clone()));
        for templates_bytes in [7, 0] {
            let free = Free { templates_bytes, ..Free::default() };
            node.answer(|answers| answers.memory = NodeMemory { free, ..NodeMemory::default() });
            tokio::time::sleep(EVERY * 2).await;
            assert_eq!(admission.reserved().templates_bytes, templates_bytes);
        }
    }
}
