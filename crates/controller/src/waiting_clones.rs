//! Clones that wait for a sign-in take what sessions and templates leave, and the node learns how much that is.

use std::sync::Arc;

use anteroom_node_protocol::Node;

use super::admission::Admission;

/// Has the node's clones take no more than is left to them, at each change, for as long as it is polled.
pub async fn run<N: Node>(node: Arc<N>, admission: Admission) {
    let mut changes = admission.changes();
    loop {
        node.allow_waiting(admission.left_to_waiting());
        // It is there for as long as somebody can reserve anything.
        let _ = changes.changed().await;
    }
}
