//! Clones that wait for a sign-in: loaded, and held by all that holds a session, but not run yet. So none
//! takes processor time, draws anything twice, or is older than another.
//!
//! A waiting clone has the id of the session that it will be of. Until then the node alone knows it, keeps a
//! record of it on disk ([`records`]), and replaces it when it ends ([`keeper`]).

mod keeper;
mod load;
mod records;
#[cfg(test)]
mod tests;
mod watch;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anteroom_confine::ProcessStat;
use anteroom_node_protocol::{Pages, PoolFigures, Report, Reports, SandboxRecord, WaitingMemory};
use anteroom_session::SessionId;
use tokio::sync::{mpsc, oneshot};

use super::process::Runner;
use super::templates::Template;
use super::wakes::Wakes;

pub use records::Records;

/// Clones that die one after the other are replaced ever later, but not later than this.
const LATEST: Duration = Duration::from_secs(60);

/// A clone that waited for so long has shown that clones can wait.
const PROVEN: Duration = Duration::from_secs(60);

/// A clone that waits.
pub struct Waiting {
    pub record: SandboxRecord,
    pub template: Arc<Template>,
    pub runner: Runner,
    /// What its runner and its VMM take of the machine's memory. They do nothing until it has a session, so that
    /// it is measured once.
    pub pages: Pages,
    since: Instant,
    /// The VMM's process, where it said so.
    vmm: Option<i32>,
    /// Takes the channel that its reports go to, once it has a session.
    handover: oneshot::Sender<mpsc::Sender<Report>>,
}

/// What a session gets of those that wait.
pub struct Claimed {
    pub clone: Option<Waiting>,
    /// Clones that would not go on, each with its process that does not run.
    pub stopped: Vec<(Waiting, String)>,
}

/// The clones that wait. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    /// Of each template.
    most: usize,
    state: Arc<Mutex<State>>,
    wakes: Wakes,
    pub records: Records,
}

#[derive(Default)]
struct State {
    waiting: Vec<Waiting>,
    /// Memory that those which wait may take together, in bytes.
    allowed_bytes: u64,
    /// Clones that are being ended, each with the memory that it takes until then, in bytes.
    ending: HashMap<SessionId, u64>,
    hits: u64,
    misses: u64,
    died: u64,
    /// How many died one after the other, and until when none is added because of that.
    deaths: u32,
    not_before: Option<Instant>,
    is_stopped: bool,
}

impl Pool {
    /// None waits yet; `most` may, of each template.
    pub fn new(most: usize, wakes: Wakes, records: Records) -> Self {
        Self { most, state: Arc::default(), wakes, records }
    }

    /// A clone of this template for a session, if one waits: the one that waited longest. Those that somebody
    /// has stopped are taken out.
    pub fn claim(&self, template: &Arc<Template>) -> Claimed {
        self.with(|state| {
            let of_it = |one: &Waiting| Arc::ptr_eq(&one.template, template);
            let mut stopped = Vec::new();
            while let Some(at) = state.waiting.iter().position(of_it) {
                let clone = state.waiting.remove(at);
                let Some(process) = clone.stopped_process() else {
                    state.hits += 1;
                    state.deaths = 0;
                    return Claimed { clone: Some(clone), stopped };
                };
                state.died += 1;
                stopped.push((clone, process));
            }
            state.misses += 1;
            Claimed { clone: None, stopped }
        })
    }

    /// A clone is being ended: until [`Self::ended`] nobody else gets its user, and it takes what it took.
    pub fn ends(&self, clone: &Waiting) {
        let (session, bytes) = (clone.record.session, clone.pages.private_bytes);
        self.with(|state| state.ending.insert(session, bytes));
    }

    /// It has ended.
    pub fn ended(&self, session: SessionId) {
        self.with(|state| state.ending.remove(&session));
        self.change();
    }

    /// Whether one of this session is ending.
    pub fn is_ending(&self, session: SessionId) -> bool {
        self.with(|state| state.ending.contains_key(&session))
    }

    /// The ids that waiting clones have.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.with(|state| state.waiting.iter().map(|one| one.record.session).collect())
    }

    /// What each of those that wait takes.
    pub fn memory(&self) -> Vec<WaitingMemory> {
        let of =
            |one: &Waiting| WaitingMemory { template: one.template.id.clone(), pages: one.pages };
        self.with(|state| state.waiting.iter().map(of).collect())
    }

    /// So many bytes of memory may those that wait take together from now on. Those that would take more are taken
    /// out, the last that came first, and are being ended: until [`Self::ended`] they take what they took.
    pub fn allow(&self, bytes: u64) -> Vec<Waiting> {
        self.with(|state| {
            state.allowed_bytes = bytes;
            let mut over = Vec::new();
            while state.waiting_bytes() > bytes
                && let Some(last) = state.waiting.pop()
            {
                state.ending.insert(last.record.session, last.pages.private_bytes);
                over.push(last);
            }
            over
        })
    }

    /// How many clones of this template wait.
    pub fn waiting_of(&self, template: &Arc<Template>) -> usize {
        self.with(|state| state.waiting_of(template))
    }

    /// Whether as many sign-ins as wait already, and one more, could have a clone each: more need not wait. `takes`
    /// says what a session takes whose VM is a clone of a template, in bytes.
    fn has_use_of(&self, template: &Template, takes: impl Fn(&Template) -> u64) -> bool {
        self.with(|state| {
            let templates = state.waiting.iter().map(|one| &*one.template).chain([template]);
            templates.map(takes).fold(0, u64::saturating_add) <= state.allowed_bytes
        })
    }

    /// Something changed that the keeper looks at.
    pub fn change(&self) {
        self.wakes.change();
    }

    /// What there is, and what came of it so far.
    pub fn figures(&self) -> PoolFigures {
        self.with(|state| PoolFigures {
            waiting: state.waiting.len() as u64,
            memory_bytes: state.waiting_bytes() + state.ending.values().sum::<u64>(),
            oldest_ms: state
                .waiting
                .iter()
                .map(|one| u64::try_from(one.since.elapsed().as_millis()).unwrap_or(u64::MAX))
                .max()
                .unwrap_or_default(),
            hits: state.hits,
            misses: state.misses,
            died: state.died,
        })
    }

    /// The first of these templates of which fewer clones wait than may; `None` where one must not be added
    /// now.
    fn lacking(&self, templates: Vec<Arc<Template>>, now: Instant) -> Option<Arc<Template>> {
        self.with(|state| {
            let is_late = state.not_before.is_none_or(|at| at <= now);
            if state.is_stopped || self.wakes.any() || !is_late {
                return None;
            }
            templates.into_iter().find(|template| state.waiting_of(template) < self.most)
        })
    }

    /// Adds one; gives it back when none is to wait any more, or none that takes so much.
    fn add(&self, waiting: Waiting) -> Option<Waiting> {
        self.with(|state| {
            let bytes = state.waiting_bytes().saturating_add(waiting.pages.private_bytes);
            if state.is_stopped || bytes > state.allowed_bytes {
                return Some(waiting);
            }
            state.waiting.push(waiting);
            None
        })
    }

    /// Takes one out that has ended; `None` when it has a session.
    fn take_dead(&self, session: SessionId) -> Option<Waiting> {
        self.with(|state| {
            let at = state.waiting.iter().position(|one| one.record.session == session)?;
            let dead = state.waiting.remove(at);
            state.died += 1;
            state.deaths = if dead.since.elapsed() >= PROVEN { 1 } else { state.deaths + 1 };
            state.be_late();
            Some(dead)
        })
    }

    /// One could not be added.
    fn failed(&self) {
        self.with(|state| {
            state.deaths += 1;
            state.be_late();
        });
    }

    /// Takes those out whose template is not among these.
    fn take_others(&self, templates: &[Arc<Template>]) -> Vec<Waiting> {
        let is_one =
            |one: &Waiting| templates.iter().any(|known| Arc::ptr_eq(known, &one.template));
        self.with(|state| {
            let (kept, others) = state.waiting.drain(..).partition(is_one);
            state.waiting = kept;
            others
        })
    }

    /// Takes all out, for good.
    fn take_all(&self) -> Vec<Waiting> {
        self.with(|state| {
            state.is_stopped = true;
            std::mem::take(&mut state.waiting)
        })
    }

    fn not_before(&self) -> Option<Instant> {
        self.with(|state| state.not_before)
    }

    fn with<T>(&self, with: impl FnOnce(&mut State) -> T) -> T {
        with(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl State {
    fn waiting_of(&self, template: &Arc<Template>) -> usize {
        self.waiting.iter().filter(|one| Arc::ptr_eq(&one.template, template)).count()
    }

    fn waiting_bytes(&self) -> u64 {
        self.waiting.iter().map(|one| one.pages.private_bytes).sum()
    }

    fn be_late(&mut self) {
        let wait = Duration::from_secs(1 << self.deaths.min(6)).min(LATEST);
        self.not_before = Some(Instant::now() + wait);
    }
}

impl Waiting {
    /// Its process that a signal stopped and nobody let go on: it would be silent until somebody does.
    fn stopped_process(&self) -> Option<String> {
        let named = [("runner", self.runner.pid()), ("VMM", self.vmm)];
        let pids = named.into_iter().filter_map(|(name, pid)| Some((name, pid?)));
        let is_stopped = |pid: i32| {
            let stat = u32::try_from(pid).ok().and_then(|pid| ProcessStat::of(pid).ok());
            stat.is_some_and(|stat| stat.is_stopped())
        };
        let mut stopped = pids.filter(|(_, pid)| is_stopped(*pid));
        stopped.next().map(|(name, pid)| format!("{name} (process {pid})"))
    }

    /// Has its reports go where a session's go: what it reported so far comes first.
    pub fn hand_over(self) -> (Runner, Reports) {
        let (to, reports) = mpsc::channel(watch::REPORTS);
        // Its watch goes on until it is handed over.
        let _ = self.handover.send(to);
        (self.runner, reports)
    }
}
