//! What a node holds ready for a session that is not recorded yet.

use std::sync::Arc;

use anteroom_node_protocol::Node;
use anteroom_session::SessionId;

/// Given back when dropped.
pub struct Reservation<N: Node> {
    session: SessionId,
    node: Option<Arc<N>>,
}

impl<N: Node> Reservation<N> {
    /// Of a session that the node has prepared.
    pub fn new(node: Arc<N>, session: SessionId) -> Self {
        Self { session, node: Some(node) }
    }

    /// The session is recorded: it is its task's now.
    pub fn keep(mut self) {
        self.node = None;
    }
}

impl<N: Node> Drop for Reservation<N> {
    fn drop(&mut self) {
        if let Some(node) = self.node.take() {
            node.close(self.session);
            node.release(self.session);
        }
    }
}
