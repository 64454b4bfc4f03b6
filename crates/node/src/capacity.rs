//! What a session would take of this machine, what those that run take, and what is free.

use anteroom_node_protocol::{Capacity, Free, NodeMemory, SandboxQuery, SessionMemory};
use anteroom_session::SessionId;

use super::measuring::RunningSession;
use super::template_memory::Look;
use super::{LocalNode, Stage, free};

impl LocalNode {
    pub(super) fn capacity_for(&self, sandbox: &SandboxQuery) -> Capacity {
        let SandboxQuery { image, extra_ca_pem, may_be_clone } = sandbox;
        let template = may_be_clone.then(|| self.template_for(image, extra_ca_pem)).flatten();
        let template = template.as_ref().map(|template| template.id.as_str());
        let free = self.free(&self.templates.in_memory());
        Capacity { demand: self.measuring.demand(template), free }
    }

    fn free(&self, templates: &Look) -> Free {
        let &Look { bytes: templates_bytes, unsettled_bytes: unsettled_templates_bytes, .. } =
            templates;
        let free = free::look(&self.settings.state_dir);
        Free { templates_bytes, unsettled_templates_bytes, ..free }
    }

    /// Measures every session that runs.
    pub(super) async fn measured_memory(&self) -> NodeMemory {
        let running: Vec<RunningSession> = self.with_sessions(|sessions| {
            let running = |(session, stage): (&SessionId, &Stage)| match stage {
                Stage::Running(runner) => {
                    runner.pid().map(|runner| RunningSession { session: *session, runner })
                }
                Stage::Prepared(_) | Stage::Claimed(_) => None,
            };
            sessions.iter().filter_map(running).collect()
        });
        let sessions = self.measure(running).await;
        let templates = self.templates.in_memory();
        NodeMemory { free: self.free(&templates), sessions, templates: templates.templates }
    }

    pub(super) async fn measure(
        &self,
        running: impl IntoIterator<Item = RunningSession>,
    ) -> Vec<SessionMemory> {
        let running: Vec<_> = running.into_iter().collect();
        let measuring = self.measuring.clone();
        let measured = tokio::task::spawn_blocking(move || measuring.measure(&running));
        measured.await.unwrap_or_default()
    }
}
