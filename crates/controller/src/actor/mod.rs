//! One task a session: events in, state stored, effects carried out.

mod effects;
mod following;
mod history;

use std::sync::Arc;
use std::time::Duration;

use anteroom_api::SessionView;
use anteroom_clock::now;
use anteroom_guest_protocol::chain;
use anteroom_node_protocol::{Node, SandboxQuery, StartSession};
use anteroom_session::{Effect, Event, HolderGeneration, Observation, SessionId, State};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use super::admission::Admitted;
use super::live::{Live, SessionHandle};
use super::metrics::Metrics;
use super::record::Record;
use super::reservation::Reservation;
use super::store::{Store, StoreError};
use effects::CapacityClaim;

/// How long to wait before an end that could not be stored is stored again, and at most before what
/// changes no state is stored: a guest may say such things without end.
const STORE_AGAIN: Duration = Duration::from_secs(2);

/// What a session needs from the controller.
pub struct ControllerContext<N, S> {
    /// Where it is found while it has a task.
    pub live: Live,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where state goes.
    pub store: S,
    /// Where sessions run.
    pub node: Arc<N>,
}

/// What is needed to start a session; one found by reconciliation has none.
pub struct StartPlan {
    /// What its node has to know.
    pub start: StartSession,
    /// By which its node says what the session would take.
    pub sandbox: SandboxQuery,
    /// The session's right to a sandbox, and what is reserved for it.
    pub admitted: Admitted,
}

struct Actor<N: Node, S: Store> {
    record: Record,
    /// How much of the timeline is in the store.
    stored_entries: usize,
    /// When what the store does not have yet is to be stored.
    store_at: Option<Instant>,
    /// Why the last try to store failed.
    not_stored: Option<String>,
    /// Whether the session's end is in the store. Until it is, the view says that it is not: it would be
    /// forgotten with this process, and the next controller would give the session another.
    end_is_stored: bool,
    plan: Option<StartPlan>,
    claim: CapacityClaim,
    runs: watch::Sender<bool>,
    /// Takes what the node reports.
    reports: Option<JoinHandle<()>>,
    /// Has the node close what revoked links opened.
    _revocations: Option<AbortOnDropHandle<()>>,
    oldest: watch::Receiver<HolderGeneration>,
    view: watch::Sender<SessionView>,
    events: mpsc::Sender<Event>,
    context: Arc<ControllerContext<N, S>>,
}

/// Starts the task of a session that is stored as it is given here, and carries out `effects` first.
/// A session that has a task already keeps it.
pub fn start<N: Node, S: Store>(
    record: Record,
    effects: Vec<Effect>,
    plan: Option<(StartPlan, Reservation<N>)>,
    context: Arc<ControllerContext<N, S>>,
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
    if let Some(other) = context.live.insert(record.id(), handle.clone()) {
        return other;
    }
    let stored_entries = record.timeline.len();
    let end_is_stored = matches!(record.session.state, State::Ended { .. });
    // Not this task's: whatever becomes of it, its session's processes may be there.
    let plan = match plan {
        Some((plan, reservation)) => {
            reservation.keep();
            Some(plan)
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
        not_stored: None,
        end_is_stored,
        plan,
        claim: CapacityClaim::None,
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

impl<N: Node, S: Store> Actor<N, S> {
    async fn run(mut self, effects: Vec<Effect>, mut queue: mpsc::Receiver<Event>) {
        // Whatever happens to this task, the session must not be thought to have one.
        let _served = Served { id: self.record.id(), context: self.context.clone() };
        self.carry_out(effects).await;
        while !(self.record.is_finished() && self.store_at.is_none()) {
            let event = tokio::select! {
                event = queue.recv() => event,
                () = tokio::time::sleep(self.until_tick()) => Some(Event::Tick),
                capacity = self.claim.taken() => {
                    self.waited(capacity).await;
                    continue;
                }
                () = until(self.store_at) => {
                    match self.store().await {
                        Err(error) if !self.has_ended() => {
                            self.apply(Event::StateNotStored { cause: error.cause() }).await;
                        }
                        _ => self.show(),
                    }
                    continue;
                }
            };
            let Some(event) = event else { return };
            self.apply(event).await;
        }
        self.runs.send_replace(false);
        // What was reserved is free before anybody sees that the session's task is over.
        self.plan = None;
        // Its record says so, durably: its user may be another's.
        if self.record.is_gone() {
            self.context.node.release(self.record.id());
        }
    }

    fn until_tick(&self) -> Duration {
        let now = now();
        match self.record.session.next_tick(now) {
            None => Duration::from_secs(3600),
            Some(at) => Duration::from_millis(at.millis_since(now)),
        }
    }

    /// Stores the state before anything is done because of it, then shows it. Without the store a
    /// session ends; the end itself is carried out all the same, shown as one that is not stored, and
    /// stored when that works again.
    async fn apply(&mut self, event: Event) {
        // Only clocks move, which are worth no write.
        if matches!(event, Event::Heartbeat | Event::Observed(Observation::EndUserActive)) {
            let _ = self.step(event);
            self.show();
            return;
        }
        let before = self.record.session.state.name();
        let mut effects = self.step(event);
        if effects.is_empty() && self.record.session.state.name() == before && !self.has_ended() {
            // A detail: stored soon, together with what else comes until then.
            self.store_at.get_or_insert_with(|| Instant::now() + STORE_AGAIN);
            self.show();
            return;
        }
        if let Err(error) = self.store().await
            && !self.has_ended()
        {
            effects = self.step(Event::StateNotStored { cause: error.cause() });
            let _ = self.store().await;
        }
        self.show();
        self.carry_out(effects).await;
    }

    fn show(&self) {
        let mut view = self.record.view();
        if self.has_ended() && !self.end_is_stored {
            view.end_not_stored = self.not_stored.clone();
        }
        self.view.send_replace(view);
    }

    fn has_ended(&self) -> bool {
        matches!(self.record.session.state, State::Ended { .. })
    }

    async fn store(&mut self) -> Result<(), StoreError> {
        let new_entries = &self.record.timeline[self.stored_entries..];
        let stored = self.context.store.save(&self.record, new_entries).await;
        match &stored {
            Ok(()) => {
                self.stored_entries = self.record.timeline.len();
                self.store_at = None;
                self.end_is_stored = self.has_ended();
            }
            Err(error) => {
                // Once, not at each try.
                if self.not_stored.is_none() {
                    tracing::error!(session = %self.record.id(), "{}", chain(error));
                }
                self.store_at = Some(Instant::now() + STORE_AGAIN);
            }
        }
        self.not_stored = stored.as_ref().err().map(StoreError::cause);
        stored
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

/// Keeps a session among the live ones, and served by its node, until dropped.
struct Served<N: Node, S: Store> {
    id: SessionId,
    context: Arc<ControllerContext<N, S>>,
}

impl<N: Node, S: Store> Drop for Served<N, S> {
    fn drop(&mut self) {
        self.context.node.close(self.id);
        self.context.live.remove(self.id);
    }
}
