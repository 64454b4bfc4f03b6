//! One task a session: events in, state stored, effects carried out.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_api::{EgressEntry, SessionView, TeardownState};
use anteroom_session::{
    Effect, Event, Explanation, HolderGeneration, Leftover, Observation, SessionId, State,
    TimelineEntry, Timestamp, Viewer,
};
use anyhow::{Context, Result};
use base64::Engine;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::admission::{Admitted, TakenCapacity};
use super::following;
use super::metrics::Metrics;
use super::record::Record;
use super::reservation::Reservation;
use super::store::{Store, count_connection};
use super::timeline;
use crate::clock::now;
use crate::node_protocol::{Node, NodeError, Notice, Sandbox, StartSession};

/// Timeline entries of a session; a guest that restarts its browser for ever must not fill the disk.
const MAX_TIMELINE: usize = 500;

/// What stands in the timeline however long it is: its end, and who came. The latter has bounds of its
/// own, and is not to be drowned by what a guest does.
const ALWAYS_REPORTED: [&str; 8] = [
    "ended",
    "torn_down",
    "link_made",
    "links_revoked",
    "link_opened",
    "viewer_joined",
    "terminal_opened",
    "vnc_opened",
];

/// Characters of an entry.
const MAX_MESSAGE: usize = 1000;

/// How long to wait before an end that could not be stored is stored again, and at most before what
/// changes no state is stored: a guest may say such things without end.
const STORE_AGAIN: Duration = Duration::from_secs(2);

/// How long to wait, once a sandbox is torn down, for what its node still has to report.
const LAST_REPORTS: Duration = Duration::from_secs(2);

/// The sessions that have a task.
#[derive(Default)]
pub struct Live(Mutex<HashMap<SessionId, SessionHandle>>);

impl Live {
    /// The session, while it has a task.
    pub fn get(&self, id: SessionId) -> Option<SessionHandle> {
        self.with(|sessions| sessions.get(&id).cloned())
    }

    /// Each of them.
    pub fn all(&self) -> Vec<SessionHandle> {
        self.with(|sessions| sessions.values().cloned().collect())
    }

    /// The ids of each of them.
    pub fn ids(&self) -> Vec<SessionId> {
        self.with(|sessions| sessions.keys().copied().collect())
    }

    fn remove(&self, id: SessionId) {
        self.with(|sessions| sessions.remove(&id));
    }

    fn with<T>(&self, with: impl FnOnce(&mut HashMap<SessionId, SessionHandle>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// What a session needs from the controller.
pub struct ControllerContext<N> {
    /// Where it is found while it has a task.
    pub live: Live,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where state goes.
    pub store: Store,
    /// Where sessions run.
    pub node: Arc<N>,
}

/// What is needed to start a session; one found by reconciliation has none.
pub struct StartPlan<N: Node> {
    /// What its node has to know.
    pub start: StartSession,
    /// The session's right to a sandbox.
    pub admitted: Admitted,
    /// What its node reserved for it.
    pub reservation: Reservation<N>,
}

/// The session's room, as far as [`Admission`](super::admission::Admission) goes.
enum Claim {
    /// Not asked for yet, or not any more.
    None,
    /// Every room is taken.
    Waiting(Pin<Box<dyn Future<Output = TakenCapacity> + Send + Sync>>),
    /// It has one, until it is demolished.
    Taken(#[expect(dead_code, reason = "held, not read")] TakenCapacity),
}

impl Claim {
    /// The room that was waited for; never comes where none is waited for.
    async fn sandbox(&mut self) -> TakenCapacity {
        match self {
            Self::Waiting(sandbox) => sandbox.await,
            Self::None | Self::Taken(_) => std::future::pending().await,
        }
    }
}

/// How the rest of the controller reaches a session. Cheap to clone.
#[derive(Clone)]
pub struct SessionHandle {
    events: mpsc::Sender<Event>,
    /// The session as callers see it.
    pub view: watch::Receiver<SessionView>,
    /// Whether its node runs it.
    runs: watch::Receiver<bool>,
    /// The oldest generation of links that is good.
    oldest: Arc<watch::Sender<HolderGeneration>>,
    /// One offer is answered at a time: however many one viewer makes, the next waits for one. What
    /// watches over the right of the newest viewer.
    pub showing: Arc<tokio::sync::Mutex<Option<AbortOnDropHandle<()>>>>,
}

impl SessionHandle {
    /// Tells the session; `false` when its task is gone.
    pub async fn report(&self, event: Event) -> bool {
        self.events.send(event).await.is_ok()
    }

    /// Closes what the links before this one opened.
    pub fn revoke_before(&self, oldest: HolderGeneration) {
        self.oldest.send_if_modified(|now| {
            let later = oldest > *now;
            *now = oldest.max(*now);
            later
        });
    }

    /// Comes when this viewer's link is revoked, or was.
    pub fn revoked(&self, viewer: &Viewer) -> impl Future<Output = ()> + Send + use<> {
        let (mut oldest, viewer) = (self.oldest.subscribe(), viewer.clone());
        async move {
            let is_revoked = oldest.wait_for(|oldest| viewer.is_before(*oldest)).await.is_ok();
            if !is_revoked {
                // The session is over and its links with it, but its end is still to be told.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether this viewer's link was revoked.
    pub fn is_revoked(&self, viewer: &Viewer) -> bool {
        viewer.is_before(*self.oldest.borrow())
    }

    /// Whether its node runs it, as far as is known.
    pub fn runs(&self) -> bool {
        *self.runs.borrow()
    }

    /// Waits until its task is over.
    #[cfg(test)]
    pub async fn over(&self) {
        self.events.closed().await;
    }

    /// Waits until its room was demolished.
    pub async fn torn_down(&self) {
        let mut view = self.view.clone();
        let _ = view.wait_for(|view| view.teardown == Some(TeardownState::TornDown)).await;
    }
}

struct Actor<N: Node> {
    record: Record,
    /// How much of the timeline is in the store.
    stored_entries: usize,
    /// When what the store does not have yet is to be stored.
    store_at: Option<Instant>,
    /// Whether the last try to store failed.
    store_fails: bool,
    plan: Option<(StartSession, Admitted)>,
    claim: Claim,
    runs: watch::Sender<bool>,
    /// Takes what the node reports.
    reports: Option<JoinHandle<()>>,
    /// Has the node close what revoked links opened.
    _revocations: Option<AbortOnDropHandle<()>>,
    oldest: watch::Receiver<HolderGeneration>,
    view: watch::Sender<SessionView>,
    events: mpsc::Sender<Event>,
    context: Arc<ControllerContext<N>>,
}

/// Starts the task of a session that is stored as it is given here, and carries out `effects` first.
/// A session that has a task already keeps it.
pub fn start<N: Node>(
    record: Record,
    effects: Vec<Effect>,
    plan: Option<StartPlan<N>>,
    context: Arc<ControllerContext<N>>,
) -> SessionHandle {
    let (events, queue) = mpsc::channel(256);
    let (view, watch_view) = watch::channel(record.view());
    let (runs, watch_runs) = watch::channel(false);
    let (oldest, watch_oldest) = watch::channel(HolderGeneration::FIRST);
    let handle = SessionHandle {
        events: events.clone(),
        view: watch_view,
        runs: watch_runs,
        oldest: Arc::new(oldest),
        showing: Arc::default(),
    };
    let other = context.live.with(|sessions| match sessions.entry(record.id()) {
        Entry::Occupied(other) => Some(other.get().clone()),
        Entry::Vacant(place) => {
            place.insert(handle.clone());
            None
        }
    });
    if let Some(other) = other {
        return other;
    }
    let stored_entries = record.timeline.len();
    // Not this task's: whatever becomes of it, its session's processes may be there.
    let plan = match plan {
        Some(StartPlan { start, admitted, reservation }) => {
            reservation.keep();
            Some((start, admitted))
        }
        None => {
            context.node.hold(&record.sandbox());
            None
        }
    };
    let actor = Actor {
        record,
        stored_entries,
        store_at: None,
        store_fails: false,
        plan,
        claim: Claim::None,
        runs,
        reports: None,
        _revocations: None,
        oldest: watch_oldest,
        view,
        events,
        context,
    };
    tokio::spawn(actor.run(effects, queue));
    handle
}

impl<N: Node> Actor<N> {
    async fn run(mut self, effects: Vec<Effect>, mut queue: mpsc::Receiver<Event>) {
        // Whatever happens to this task, the session must not be thought to have one.
        let _place = Place { id: self.record.id(), context: self.context.clone() };
        self.carry_out(effects).await;
        while !(self.record.is_finished() && self.store_at.is_none()) {
            let event = tokio::select! {
                event = queue.recv() => event,
                () = tokio::time::sleep(self.until_tick()) => Some(Event::Tick),
                sandbox = self.claim.sandbox() => {
                    self.claim = Claim::Taken(sandbox);
                    self.start_runner().await;
                    continue;
                }
                () = until(self.store_at) => {
                    if let Err(error) = self.store().await && !self.has_ended() {
                        self.apply(Event::StateNotStored { cause: format!("{error:#}") }).await;
                    }
                    continue;
                }
            };
            let Some(event) = event else { return };
            self.apply(event).await;
        }
        self.runs.send_replace(false);
        // Its record says so, durably: its user may be another's.
        if self.record.is_gone() {
            self.context.node.release(self.record.id());
        }
    }

    fn until_tick(&self) -> Duration {
        match self.record.session.next_tick() {
            None => Duration::from_secs(3600),
            Some(at) => Duration::from_millis(at.millis_since(now())),
        }
    }

    /// Stores the state before anything is done because of it, then shows it. Without the store a
    /// session ends; the end itself is carried out all the same, and stored when that works again.
    async fn apply(&mut self, event: Event) {
        // Only clocks move, which are worth no write.
        if matches!(event, Event::Heartbeat | Event::Observed(Observation::EndUserActive)) {
            let _ = self.step(event);
            self.view.send_replace(self.record.view());
            return;
        }
        let before = self.record.session.state.name();
        let mut effects = self.step(event);
        if effects.is_empty() && self.record.session.state.name() == before && !self.has_ended() {
            // A detail: stored soon, together with what else comes until then.
            self.store_at.get_or_insert_with(|| Instant::now() + STORE_AGAIN);
            self.view.send_replace(self.record.view());
            return;
        }
        if let Err(error) = self.store().await
            && !self.has_ended()
        {
            effects = self.step(Event::StateNotStored { cause: format!("{error:#}") });
            let _ = self.store().await;
        }
        self.view.send_replace(self.record.view());
        self.carry_out(effects).await;
    }

    /// The transition and what the timeline says of it.
    fn step(&mut self, event: Event) -> Vec<Effect> {
        let at = now();
        self.note(&event);
        self.context.metrics.note(&event);
        let had_ended = self.has_ended();
        let reported = match timeline::visit(&event) {
            Some((view, viewer)) => self.record.visited(at, view, viewer),
            None => true,
        };
        let entry = timeline::of_event(&event, self.record.session.terms.id).filter(|_| reported);
        let explanation = timeline::explanation_of(&event).cloned();
        let stored = matches!(event, Event::CredentialStored);
        let by = event.actor();
        let (session, effects) = self.record.session.clone().handle(event, at);
        self.record.session = session;
        if stored {
            self.record.credential_stored_at = Some(at);
        }
        if let Some((kind, message)) = entry {
            self.context.metrics.reached(kind, &self.record, at);
            self.add_entry(at, kind, message, by.clone(), explanation);
        }
        for (kind, message) in effects.iter().filter_map(timeline::of_effect) {
            self.add_entry(at, kind, message, by.clone(), None);
        }
        if let State::Ended { reason, .. } = &self.record.session.state
            && !had_ended
        {
            self.context.metrics.ended(reason, &self.record, at);
            let (message, explanation) = (reason.to_string(), reason.explanation().cloned());
            self.add_entry(at, "ended", message, by, explanation);
        }
        effects
    }

    fn has_ended(&self) -> bool {
        matches!(self.record.session.state, State::Ended { .. })
    }

    /// What the record keeps beside the state.
    fn note(&mut self, event: &Event) {
        let Event::Observed(observation) = event else { return };
        match observation {
            Observation::VmStarted { accelerator, .. } => {
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

    fn add_entry(
        &mut self,
        at: Timestamp,
        kind: &str,
        message: String,
        by: Option<anteroom_session::Actor>,
        explanation: Option<Explanation>,
    ) {
        if let Some(explanation) = &explanation {
            self.context.metrics.explained(explanation.cause);
        }
        if self.record.timeline.len() >= MAX_TIMELINE && !ALWAYS_REPORTED.contains(&kind) {
            return;
        }
        let message: String = message.chars().take(MAX_MESSAGE).collect();
        let state = self.record.session.state.name();
        tracing::info!(session = %self.record.id(), kind, %state, "{message}");
        self.record.timeline.push(TimelineEntry {
            at,
            kind: kind.to_owned(),
            message,
            by,
            explanation: explanation.map(Box::new),
        });
    }

    async fn store(&mut self) -> Result<()> {
        let new_entries = &self.record.timeline[self.stored_entries..];
        let stored = self.context.store.save(&self.record, new_entries).await;
        match &stored {
            Ok(()) => {
                self.stored_entries = self.record.timeline.len();
                self.store_at = None;
            }
            Err(error) => {
                // Once, not at each try.
                if !self.store_fails {
                    tracing::error!(session = %self.record.id(), "{error:#}");
                }
                self.store_at = Some(Instant::now() + STORE_AGAIN);
            }
        }
        self.store_fails = stored.is_err();
        stored
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::StartRunner => self.claim_capacity().await,
                Effect::StoreCredential { ciphertext_base64 } => {
                    let stored = self.store_credential(&ciphertext_base64).await;
                    let event = match stored {
                        Ok(()) => Event::CredentialStored,
                        Err(error) => Event::CredentialNotStored { cause: format!("{error:#}") },
                    };
                    Box::pin(self.apply(event)).await;
                }
                Effect::StartTool => self.notify(Notice::StartTool {}).await,
                Effect::AcknowledgeCredential => self.notify(Notice::CredentialStored {}).await,
                Effect::TearDown => {
                    if matches!(self.claim, Claim::Waiting(_)) {
                        self.claim = Claim::None;
                    }
                    let (sandbox, reports) = (self.record.sandbox(), self.reports.take());
                    let (node, events) = (Arc::clone(&self.context.node), self.events.clone());
                    tokio::spawn(async move {
                        let leftovers = tear_down(&*node, sandbox).await;
                        // What the session reported before it ended comes before that.
                        if let Some(reports) = reports {
                            let _ = tokio::time::timeout(LAST_REPORTS, reports).await;
                        }
                        let _ = events.send(Event::TornDown { leftovers }).await;
                    });
                }
            }
        }
    }

    /// A session that is not there any more is reported as ended anyway.
    async fn notify(&self, notice: Notice) {
        let _ = self.context.node.notify(self.record.id(), notice).await;
    }

    async fn claim_capacity(&mut self) {
        let Some((_, admitted)) = &self.plan else { return };
        if let Some(sandbox) = admitted.try_capacity() {
            self.claim = Claim::Taken(sandbox);
            self.start_runner().await;
            return;
        }
        self.claim = Claim::Waiting(Box::pin(admitted.sandbox()));
        let message = "all rooms are in use; the sign-in begins when one is free".to_owned();
        self.add_entry(now(), "waiting_for_capacity", message, None, None);
        // Stored with the next event; the queue is in memory and does not outlive the controller.
        self.view.send_replace(self.record.view());
    }

    async fn start_runner(&mut self) {
        let Some((start, _)) = &self.plan else { return };
        let node = &self.context.node;
        match node.start(start.clone()).await {
            Ok(reports) => {
                let (events, metrics) = (self.events.clone(), Arc::clone(&self.context.metrics));
                self.reports = Some(tokio::spawn(following::reports(reports, events, metrics)));
                let (id, oldest) = (self.record.id(), self.oldest.clone());
                let revocations = following::revocations(Arc::clone(node), id, oldest);
                self._revocations = Some(AbortOnDropHandle::new(tokio::spawn(revocations)));
                self.runs.send_replace(true);
                Box::pin(self.apply(Event::RunnerStarted { pid: 0 })).await;
            }
            Err(NodeError { cause }) => {
                let reason = anteroom_session::EndReason::VmNotStarted { cause };
                Box::pin(self.apply(Event::Observed(Observation::Failed(reason)))).await;
            }
        }
    }

    async fn store_credential(&self, ciphertext_base64: &str) -> Result<()> {
        let sealed = base64::engine::general_purpose::STANDARD
            .decode(ciphertext_base64)
            .context("what the guest sealed is no base64")?;
        anteroom_vault::check_sealed(&sealed)?;
        let (store, id) = (&self.context.store, self.record.id());
        let stored = store.put_credential(id, &sealed, &self.record.recipient, now().0).await;
        match stored {
            // Whatever went wrong after that: what is durable must not be said to be lost.
            Err(_) if store.credential(id).await?.is_some() => Ok(()),
            stored => stored,
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Keeps a session among the live ones, and served by its node, until dropped.
struct Place<N: Node> {
    id: SessionId,
    context: Arc<ControllerContext<N>>,
}

impl<N: Node> Drop for Place<N> {
    fn drop(&mut self) {
        self.context.node.close(self.id);
        self.context.live.remove(self.id);
    }
}

/// What is left of a sandbox. Nothing seen is not nothing there.
async fn tear_down(node: &impl Node, sandbox: Sandbox) -> Vec<Leftover> {
    let torn_down = node.tear_down(sandbox).await;
    torn_down.unwrap_or_else(|NodeError { cause }| {
        let what = format!("the node could not tear the sandbox down: {cause}");
        vec![Leftover { kind: "unseen".to_owned(), what }]
    })
}
