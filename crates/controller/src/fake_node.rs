//! A node for tests: it runs nothing, reports what the test says, and keeps what it was asked to do.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use anteroom_confine::SessionUser;
use anteroom_guest_protocol::StreamKind;
use anteroom_node_protocol::{
    Answer, AskError, Capacity, Demand, Description, KeepLogs, Node, NodeError, NodeMemory,
    NotPrepared, Notice, Offer, PoolFigures, PrepareSession, Prepared, Report, Reports,
    SandboxQuery, SandboxRecord, StartSession, ViewerChannel,
};
use anteroom_session::{
    Accelerator, AccessGrant, CodeTaken, DriverKind, EndReason, HostPort, Leftover, Observation,
    ProcessExit, SessionId, StateName,
};
use tokio::sync::{mpsc, watch};

use super::store::{CredentialStore, SessionStore, SqliteStore};

/// Who each of its sessions runs as.
pub const USER: u32 = 1_900_000_007;

/// Memory that its sessions may take together: a third each.
pub const BUDGET: u64 = 3 << 30;
pub const DEMAND: Demand = Demand { memory_bytes: 1 << 30, disk_bytes: 1, pids: 1 };

/// What the node was asked to do, and what was durable by then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    Prepare,
    Hold(Option<SessionUser>),
    Start(Durable),
    Notify(Notice, Durable),
    TearDown(SandboxRecord, Durable),
    Close,
    Release,
}

/// What the store had of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    pub state: Option<StateName>,
    pub credential: bool,
}

/// Cheap to clone.
#[derive(Clone)]
pub struct FakeNode(Arc<Inner>);

struct Inner {
    description: Description,
    store: SqliteStore,
    calls: watch::Sender<Vec<Call>>,
    running: Mutex<HashMap<SessionId, mpsc::Sender<Report>>>,
    leased: Mutex<HashMap<SessionId, SessionUser>>,
    answers: Mutex<Answers>,
    /// Whether teardowns wait.
    holds_up: watch::Sender<bool>,
    /// What clones that wait may take, once that was said.
    allowed_waiting: watch::Sender<Option<u64>>,
}

/// What the node answers from now on.
pub struct Answers {
    pub prepare: Result<(), NotPrepared>,
    pub start: Result<(), EndReason>,
    pub tear_down: Result<Vec<Leftover>, NodeError>,
    pub demand: Demand,
    pub memory: NodeMemory,
}

impl FakeNode {
    /// One that sees what the controller with this database has stored.
    pub async fn beside(database: &Path) -> Self {
        Self(Arc::new(Inner {
            description: Description {
                driver: DriverKind::Qemu,
                accelerator: Accelerator::Kvm,
                media: "127.0.0.1:9".parse().unwrap(),
                memory_budget_bytes: BUDGET,
            },
            store: SqliteStore::open(database).await.unwrap(),
            calls: watch::Sender::new(Vec::new()),
            running: Mutex::default(),
            holds_up: watch::Sender::new(false),
            allowed_waiting: watch::Sender::new(None),
            leased: Mutex::default(),
            answers: Mutex::new(Answers {
                prepare: Ok(()),
                start: Ok(()),
                tear_down: Ok(Vec::new()),
                demand: DEMAND,
                memory: NodeMemory::default(),
            }),
        }))
    }

    pub fn answer(&self, change: impl FnOnce(&mut Answers)) {
        change(&mut self.0.answers.lock().unwrap());
    }

    /// Lets no teardown begin, until it is said otherwise.
    pub fn hold_up_teardowns(&self, holds_up: bool) {
        self.0.holds_up.send_replace(holds_up);
    }

    pub fn calls(&self) -> Vec<Call> {
        self.0.calls.borrow().clone()
    }

    /// Waits until it was asked to do something, and says how often it was asked to do anything.
    pub async fn asked(&self, wanted: impl Fn(&Call) -> bool) -> usize {
        let mut calls = self.0.calls.subscribe();
        calls.wait_for(|calls| calls.iter().any(&wanted)).await.unwrap().len()
    }

    /// Waits until clones that wait may take so much.
    pub async fn allows_waiting(&self, bytes: u64) {
        let mut allowed = self.0.allowed_waiting.subscribe();
        allowed.wait_for(|allowed| *allowed == Some(bytes)).await.unwrap();
    }

    /// Reports something of a session that was started.
    pub async fn report(&self, session: SessionId, report: Report) {
        let reports = self.0.running.lock().unwrap()[&session].clone();
        reports.send(report).await.unwrap();
    }

    pub async fn observe(
        &self,
        session: SessionId,
        observations: impl IntoIterator<Item = Observation>,
    ) {
        for observation in observations {
            self.report(session, Report::Observed { observation }).await;
        }
    }

    /// It is gone: nothing is reported any more.
    pub fn is_lost(&self) {
        let cause = "the node cannot be reached".to_owned();
        self.answer(|answers| answers.tear_down = Err(NodeError { cause }));
        self.0.running.lock().unwrap().clear();
    }

    /// Whether it keeps a user from others.
    pub fn has_leased(&self, user: SessionUser) -> bool {
        self.0.leased.lock().unwrap().values().any(|leased| *leased == user)
    }

    fn was_asked(&self, call: Call) {
        self.0.calls.send_modify(|calls| calls.push(call));
    }

    async fn durable(&self, session: SessionId) -> Durable {
        // Some tests have one that cannot be read.
        let record = self.0.store.load(session).await.ok().flatten();
        let credential = self.0.store.credential(session).await.ok().flatten();
        Durable {
            state: record.map(|record| record.session.state.name()),
            credential: credential.is_some(),
        }
    }
}

fn gone<T>() -> Result<T, AskError> {
    Err(AskError::Gone {})
}

impl Node for FakeNode {
    fn description(&self) -> &Description {
        &self.0.description
    }

    async fn obstacles(&self) -> Vec<String> {
        Vec::new()
    }

    async fn capacity(&self, _: SandboxQuery) -> Capacity {
        let answers = self.0.answers.lock().unwrap();
        Capacity { demand: answers.demand, free: answers.memory.free }
    }

    async fn memory(&self) -> NodeMemory {
        self.0.answers.lock().unwrap().memory.clone()
    }

    async fn prepare(&self, session: PrepareSession) -> Result<Prepared, NotPrepared> {
        self.was_asked(Call::Prepare);
        let answer = self.0.answers.lock().unwrap().prepare.clone();
        answer
            .map(|()| Prepared { session: session.session, user: SessionUser::try_from(USER).ok() })
    }

    fn hold(&self, sandbox: &SandboxRecord) {
        self.was_asked(Call::Hold(sandbox.user));
        let mut leased = self.0.leased.lock().unwrap();
        leased.extend(sandbox.user.map(|user| (sandbox.session, user)));
    }

    async fn start(&self, start: StartSession) -> Result<Reports, EndReason> {
        let durable = self.durable(start.sign_in.session).await;
        let answer = self.0.answers.lock().unwrap().start.clone();
        let (sender, reports) = mpsc::channel(16);
        if answer.is_ok() {
            self.0.running.lock().unwrap().insert(start.sign_in.session, sender);
        }
        self.was_asked(Call::Start(durable));
        answer.map(|()| reports)
    }

    async fn notify(&self, session: SessionId, notice: Notice) -> Result<(), AskError> {
        let durable = self.durable(session).await;
        self.was_asked(Call::Notify(notice, durable));
        Ok(())
    }

    async fn offer(&self, _: SessionId, _: Offer) -> Result<Answer, AskError> {
        gone()
    }

    async fn screenshot(&self, _: SessionId) -> Result<String, AskError> {
        gone()
    }

    async fn enter_code(&self, _: SessionId, _: String) -> Result<CodeTaken, AskError> {
        gone()
    }

    async fn allow_host(&self, _: SessionId, host: String) -> Result<HostPort, AskError> {
        let cause = format!("this session was not refused a host {host:?}");
        HostPort::parse(&host).ok_or(AskError::Refused { cause })
    }

    async fn open_channel(
        &self,
        _: SessionId,
        _: StreamKind,
        _: AccessGrant,
    ) -> Result<ViewerChannel, AskError> {
        gone()
    }

    async fn tear_down(&self, sandbox: SandboxRecord) -> Result<Vec<Leftover>, NodeError> {
        let _ = self.0.holds_up.subscribe().wait_for(|holds_up| !holds_up).await;
        let durable = self.durable(sandbox.session).await;
        // A runner that is ended says so, as any other.
        let running = self.0.running.lock().unwrap().remove(&sandbox.session);
        if let Some(reports) = running {
            let exit = ProcessExit::Exited { code: 0 };
            let _ = reports.send(Report::RunnerExited { exit }).await;
        }
        let answer = self.0.answers.lock().unwrap().tear_down.clone();
        self.was_asked(Call::TearDown(sandbox, durable));
        answer
    }

    fn close(&self, _: SessionId) {
        self.was_asked(Call::Close);
    }

    fn release(&self, session: SessionId) {
        self.0.leased.lock().unwrap().remove(&session);
        self.was_asked(Call::Release);
    }

    /// Those that take more end.
    fn allow_waiting(&self, bytes: u64) {
        self.answer(|answers| {
            let waiting = &mut answers.memory.free.waiting_bytes;
            *waiting = (*waiting).min(bytes);
        });
        self.0.allowed_waiting.send_replace(Some(bytes));
    }

    fn pool(&self) -> PoolFigures {
        let memory_bytes = self.0.answers.lock().unwrap().memory.free.waiting_bytes;
        PoolFigures { waiting: 1, oldest_ms: 2000, memory_bytes, hits: 3, misses: 4, died: 5 }
    }

    async fn stop(&self) {}

    async fn logs(&self, _: SessionId) -> Result<String, NodeError> {
        Ok(String::new())
    }

    async fn sweep_logs(&self, _: KeepLogs, _: Vec<SessionId>) -> Result<(), NodeError> {
        Ok(())
    }
}
