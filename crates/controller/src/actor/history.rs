//! What a session's record keeps beside its state: the timeline, what was observed, who came.

use anteroom_api::EgressEntry;
use anteroom_clock::now;
use anteroom_node_protocol::Node;
use anteroom_session::{Effect, Event, Observation, State, TimelineEntry};

use super::Actor;
use crate::record::count_connection;
use crate::store::Store;
use crate::timeline;

/// Timeline entries of a session; a guest that restarts its browser for ever must not fill the disk.
const MAX_TIMELINE: usize = 500;

/// What stands in the timeline however long it is, and is not to be drowned by what a guest does: its
/// end, which there is once, and who came, which the record's visits bound.
const ALWAYS_REPORTED: [&str; 5] =
    ["ended", "link_opened", "viewer_joined", "terminal_opened", "vnc_opened"];

/// The same, of which a caller may have as many as they like: reported until there are
/// [`MAX_ALIKE`] of a kind.
const REPORTED_OFTEN: [&str; 4] = ["torn_down", "link_created", "links_revoked", "host_allowed"];

/// Timeline entries of such a kind.
const MAX_ALIKE: usize = 100;

/// Characters of an entry.
const MAX_MESSAGE: usize = 1000;

impl<N: Node, S: Store> Actor<N, S> {
    /// The transition and what the timeline says of it.
    pub(super) fn step(&mut self, event: Event) -> Vec<Effect> {
        let at = now();
        self.note(&event);
        self.context.metrics.note(&event);
        let had_ended = self.has_ended();
        let reported = match timeline::visit(&event) {
            Some((view, viewer)) => self.record.visited(at, view, viewer),
            None => true,
        };
        let (id, closes) = (self.record.id(), self.record.has_views_of_links());
        let entry = timeline::of_event(&event, id, closes).filter(|_| reported);
        let explanation = timeline::explanation_of(&event).cloned().map(Box::new);
        let waited = timeline::waited_of(&event);
        let stored = matches!(event, Event::CredentialStored);
        let by = event.actor();
        let (session, effects) = self.record.session.clone().handle(event, at);
        self.record.session = session;
        if stored {
            self.record.credential_stored_at = Some(at);
        }
        if let Some((kind, message)) = entry {
            self.context.metrics.reached(kind, &self.record, at);
            let entry = TimelineEntry::new(at, kind, message);
            self.add_entry(TimelineEntry { by: by.clone(), explanation, waited, ..entry });
        }
        for (kind, message) in effects.iter().filter_map(timeline::of_effect) {
            let entry = TimelineEntry::new(at, kind, message);
            self.add_entry(TimelineEntry { by: by.clone(), ..entry });
        }
        if let State::Ended { reason, .. } = &self.record.session.state
            && !had_ended
        {
            self.claim.leave_queue(&mut self.plan);
            self.context.metrics.ended(reason, &self.record, at);
            let entry = TimelineEntry::new(at, "ended", reason.sentence(self.record.driver));
            let explanation = reason.explanation().cloned().map(Box::new);
            self.add_entry(TimelineEntry { by, explanation, ..entry });
        }
        effects
    }

    /// What the record keeps beside the state.
    fn note(&mut self, event: &Event) {
        let Event::Observed(observation) = event else { return };
        match observation {
            Observation::SandboxStarted { accelerator, .. } => {
                self.record.accelerator = Some(*accelerator)
            }
            Observation::Confined(confined) => self.record.confined = Some((**confined).clone()),
            Observation::SignInAwaited { prompt } => {
                // A question of the tool's on the way does not take the page away.
                if let Some(url) = prompt.url() {
                    self.record.sign_in_url = Some(url.to_owned());
                }
            }
            Observation::HostContacted {
                host,
                port,
                verdict,
                connections,
                bytes_up,
                bytes_down,
                detail,
            } => {
                let connection = EgressEntry {
                    host: host.clone(),
                    port: *port,
                    verdict: *verdict,
                    connections: *connections,
                    bytes_up: *bytes_up,
                    bytes_down: *bytes_down,
                    detail: detail.clone(),
                };
                count_connection(&mut self.record.egress, connection);
            }
            _ => {}
        }
    }

    fn has_space_for(&self, kind: &str) -> bool {
        let timeline = &self.record.timeline;
        if REPORTED_OFTEN.contains(&kind) {
            return timeline.iter().filter(|entry| entry.kind == kind).count() < MAX_ALIKE;
        }
        timeline.len() < MAX_TIMELINE || ALWAYS_REPORTED.contains(&kind)
    }

    pub(super) fn add_entry(&mut self, mut entry: TimelineEntry) {
        if let Some(explanation) = &entry.explanation {
            self.context.metrics.explained(explanation.cause);
        }
        if !self.has_space_for(&entry.kind) {
            return;
        }
        entry.message = entry.message.chars().take(MAX_MESSAGE).collect();
        let TimelineEntry { kind, message, .. } = &entry;
        let state = self.record.session.state.name().as_str();
        tracing::info!(session = %self.record.id(), kind, state, "{message}");
        self.record.timeline.push(entry);
    }
}
