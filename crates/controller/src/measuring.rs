//! What sessions take is measured while they run, and reserved where it is more than was expected.

use std::sync::Arc;
use std::time::Duration;

use anteroom_node_protocol::Node;

use super::admission::Admission;

/// How often is measured: the kernel walks the page tables of all processes for it.
const EVERY: Duration = Duration::from_secs(10);

/// Measures now and then, for as long as it is polled.
pub async fn run<N: Node>(node: Arc<N>, admission: Admission) {
    loop {
        tokio::time::sleep(EVERY).await;
        if !admission.is_empty() {
            admission.measured(&node.memory().await);
        }
    }
}
