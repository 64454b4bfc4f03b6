//! What a session would take of this machine, what those that run take, and what is free.

use anteroom_node_protocol::{Capacity, Free, NodeMemory, SandboxQuery, SessionMemory};
use anteroom_session::SessionId;
use anteroom_session::counted::counted;

use super::measuring::RunningSession;
use super::template_memory::Look;
use super::{LocalNode, Stage, free};

/// The clones that are to wait when nobody signs in, and what there is for them.
struct WantedPool {
    /// Of each template.
    clones: usize,
    /// What each takes, in bytes.
    templates: Vec<u64>,
    budget_bytes: u64,
    /// What a session takes whose VM is a clone of a template that none was measured of, in bytes.
    takes_bytes: u64,
}

impl WantedPool {
    /// What there is too little of, with the figures.
    fn does_not_fit(&self) -> Option<String> {
        let &Self { clones, ref templates, budget_bytes, takes_bytes } = self;
        let templates_bytes: u64 = templates.iter().sum();
        let fit = budget_bytes.saturating_sub(templates_bytes) / takes_bytes.max(1);
        // One will be made for the image that is signed in to, if none is there.
        let wanted = (clones as u64).saturating_mul(templates.len().max(1) as u64);
        let fit_of_them = match fit {
            fit if fit >= wanted => return None,
            0 => "none of them fits".to_owned(),
            fit => format!("{fit} of them fit"),
        };
        let (budget, templates, takes) =
            (budget_bytes >> 20, templates_bytes >> 20, takes_bytes >> 20);
        Some(format!(
            "{} to wait (--waiting-clones), and for now {fit_of_them} in {budget} MiB of memory (--memory-budget): \
             templates take {templates} MiB, and each sign-in that gets a clone {takes} MiB",
            counted(wanted, "clone is", "clones are")
        ))
    }
}

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
        let waiting_bytes = self.pool.figures().memory_bytes;
        Free { templates_bytes, unsettled_templates_bytes, waiting_bytes, ..free }
    }

    /// Says so where more clones are to wait than the budget holds sign-ins for. Templates that are being loaded
    /// count already.
    pub(super) fn warn_of_too_many_waiting(&self) {
        let Some(_) = &self.settings.templates else { return };
        let templates = self.templates.in_memory().templates.into_iter().map(|one| one.bytes);
        let wanted = WantedPool {
            clones: self.settings.waiting_clones,
            templates: templates.filter(|bytes| *bytes > 0).collect(),
            budget_bytes: self.description.memory_budget_bytes,
            // No clone was measured yet, of whatever template.
            takes_bytes: self.measuring.demand(Some("")).memory_bytes,
        };
        if let Some(sentence) = wanted.does_not_fit() {
            tracing::warn!("{sentence}");
        }
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
        let (free, waiting) = (self.free(&templates), self.pool.memory());
        NodeMemory { free, sessions, templates: templates.templates, waiting }
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

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn a_pool_that_the_budget_does_not_hold_is_said_with_its_figures() {
        let said = |clones, templates: &[u64], budget_mib| {
            let templates = templates.iter().map(|mib| mib * MIB).collect();
            let (budget_bytes, takes_bytes) = (budget_mib * MIB, 1152 * MIB);
            WantedPool { clones, templates, budget_bytes, takes_bytes }.does_not_fit()
        };
        assert_eq!(said(1, &[650], 650 + 1152), None);
        assert_eq!(said(2, &[650, 650], 1300 + 4 * 1152), None);
        assert_eq!(said(0, &[650], 256), None);
        let sentence = "65535 clones are to wait (--waiting-clones), and for now 3 of them fit in 4200 MiB of memory \
                        (--memory-budget): templates take 650 MiB, and each sign-in that gets a clone 1152 MiB";
        assert_eq!(said(65_535, &[650], 4200).as_deref(), Some(sentence));
        let sentence = "1 clone is to wait (--waiting-clones), and for now none of them fits in 256 MiB of memory \
                        (--memory-budget): templates take 0 MiB, and each sign-in that gets a clone 1152 MiB";
        assert_eq!(said(1, &[], 256).as_deref(), Some(sentence));
    }
}
