//! The node: what one machine does for sessions. It owns runner processes, the media port, the users
//! of sessions and their log folders; it decides nothing and keeps no record.

mod capacity;
mod demand;
mod error;
mod free;
mod images;
mod kernel_text;
mod logs;
mod measuring;
mod media_demux;
mod obstacles;
mod pages;
mod pool;
mod prepare;
mod process;
mod recorded;
mod settings;
mod teardown;
mod template_growth;
mod template_memory;
mod templates;
mod users;
mod wakes;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_guest_link::chain;
use anteroom_guest_protocol::StreamKind;
use anteroom_node_protocol::{
    Answer, AskError, Capacity, Description, KeepLogs, Node, NodeError, NodeMemory, NotPrepared,
    Notice, Offer, PoolFigures, PrepareSession, Prepared, Reports, SandboxQuery, SandboxRecord,
    StartSession, ViewerChannel,
};
use anteroom_runner_protocol::{RunnerCommand, sandbox_name};
use anteroom_session::{
    AccessGrant, CodeTaken, EndReason, HostPort, Leftover, SessionId, SetupStep,
};

use images::Images;
use logs::Logs;
use measuring::{Measuring, RunningSession};
use media_demux::MediaDemux;
use pool::{Pool, Records, Waiting};
use prepare::PreparedSession;
use process::Runner;
use teardown::Places;
use templates::Templates;
use users::Users;
use wakes::Wakes;

pub use error::LocalNodeError;
pub use free::usual_sessions;
pub use settings::{DriverChoice, HostSize, NodeSettings, VmChoice};
pub use templates::TemplateSettings;

/// This machine. Cheap to clone.
#[derive(Clone)]
pub struct LocalNode {
    settings: Arc<NodeSettings>,
    description: Description,
    demux: MediaDemux,
    users: Users,
    logs: Logs,
    images: Images,
    templates: Templates,
    measuring: Measuring,
    pool: Pool,
    sessions: Arc<Mutex<HashMap<SessionId, Stage>>>,
}

/// How far the node is with a session.
enum Stage {
    Prepared(Box<PreparedSession>),
    /// It has a clone that waited.
    Claimed(Box<Waiting>),
    Running(Runner),
}

impl LocalNode {
    /// Opens the media port.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn open(settings: NodeSettings) -> Result<Self, LocalNodeError> {
        let demux = MediaDemux::open(settings.media_listen)?;
        let measuring = Measuring::of(&settings.driver);
        let one_session = measuring.demand(None).memory_bytes;
        let memory_budget_bytes =
            settings.memory_budget_bytes.unwrap_or_else(|| free::usual_budget(one_session));
        if memory_budget_bytes < one_session {
            tracing::warn!(
                "sign-ins that are booted will be refused: each takes {} MiB, and all together may take {} MiB \
                 (--memory-budget)",
                one_session >> 20,
                memory_budget_bytes >> 20
            );
        }
        let description = Description {
            driver: settings.driver.kind(),
            accelerator: settings.driver.accelerator(),
            media: demux.address()?,
            memory_budget_bytes,
        };
        let wakes = Wakes::default();
        let pool = Pool::new(
            settings.waiting_clones,
            wakes.clone(),
            Records::in_state_dir(&settings.state_dir),
        );
        let images = Images::new(settings.cache_dir.clone());
        let node = Self {
            templates: Templates::new(settings.templates.clone(), images.clone(), wakes),
            images,
            pool,
            measuring,
            logs: Logs::in_state_dir(&settings.state_dir),
            users: Users::default(),
            sessions: Arc::default(),
            settings: Arc::new(settings),
            description,
            demux,
        };
        for record in node.pool.records.all() {
            node.hold(&record);
        }
        node.load_templates();
        node.warn_of_too_many_waiting();
        tokio::spawn(node.clone().keep_waiting());
        Ok(node)
    }

    fn runner(&self, session: SessionId) -> Result<Runner, AskError> {
        self.with_sessions(|sessions| match sessions.get(&session) {
            Some(Stage::Running(runner)) => Ok(runner.clone()),
            Some(Stage::Prepared(_) | Stage::Claimed(_)) | None => Err(AskError::Gone {}),
        })
    }

    /// The runner of a session that is torn down. A clone that it got, and never began, is not given back.
    fn runner_to_end(&self, session: SessionId) -> Option<Runner> {
        self.with_sessions(|sessions| match sessions.remove(&session) {
            Some(Stage::Claimed(waiting)) => {
                self.pool.records.remove(session);
                Some(waiting.runner)
            }
            Some(Stage::Running(runner)) => {
                sessions.insert(session, Stage::Running(runner.clone()));
                Some(runner)
            }
            Some(prepared @ Stage::Prepared(_)) => {
                sessions.insert(session, prepared);
                None
            }
            None => None,
        })
    }

    fn with_sessions<T>(&self, with: impl FnOnce(&mut HashMap<SessionId, Stage>) -> T) -> T {
        with(&mut self.sessions.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Node for LocalNode {
    fn description(&self) -> &Description {
        &self.description
    }

    async fn obstacles(&self) -> Vec<String> {
        let settings = Arc::clone(&self.settings);
        tokio::task::spawn_blocking(move || obstacles::look(&settings)).await.unwrap_or_default()
    }

    async fn capacity(&self, sandbox: SandboxQuery) -> Capacity {
        self.capacity_for(&sandbox)
    }

    async fn memory(&self) -> NodeMemory {
        self.measured_memory().await
    }

    async fn prepare(&self, session: PrepareSession) -> Result<Prepared, NotPrepared> {
        let PrepareSession { session: id, sandbox, screen } = session;
        let boots = self.boots(id, &sandbox.image)?;
        if let Some(waiting) = self.claim(&sandbox, screen, &boots) {
            let SandboxRecord { session, user, .. } = waiting.record;
            let prepared = Prepared { session, user };
            let stage = Stage::Claimed(Box::new(waiting));
            self.with_sessions(|sessions| sessions.insert(prepared.session, stage));
            return Ok(prepared);
        }
        let (prepared, lease) = self.reserve(id, boots).await?;
        let user = prepared.user();
        // From here to the answer nothing waits, so nothing is left when the caller is gone.
        self.with_sessions(|sessions| sessions.insert(id, Stage::Prepared(Box::new(prepared))));
        if let Some(lease) = lease {
            lease.keep();
        }
        Ok(Prepared { session: id, user })
    }

    fn hold(&self, sandbox: &SandboxRecord) {
        if let Some(user) = sandbox.user {
            self.users.hold(sandbox_name(sandbox.session), user);
        }
    }

    async fn start(&self, session: StartSession) -> Result<Reports, EndReason> {
        let id = session.sign_in.session;
        let image = self.image_for(id).await?;
        let started = self.start_runner(session, image);
        let (runner, reports) = started.map_err(|error| EndReason::SessionSetupFailed {
            step: SetupStep::StartRunner,
            cause: chain(&error),
        })?;
        self.with_sessions(|sessions| sessions.insert(id, Stage::Running(runner)));
        Ok(reports)
    }

    async fn notify(&self, session: SessionId, notice: Notice) -> Result<(), AskError> {
        let runner = self.runner(session)?;
        match notice {
            Notice::StartTool {} => runner.command(RunnerCommand::StartTool {}).await,
            Notice::AcknowledgeCredential {} => {
                runner.command(RunnerCommand::AcknowledgeCredential {}).await
            }
            Notice::OpenSignInPage {} => runner.command_now(RunnerCommand::OpenSignInPage {}),
            Notice::Dismiss { connection: ice_ufrag } => {
                runner.command(RunnerCommand::Dismiss { ice_ufrag }).await
            }
            Notice::RevokeBefore { oldest } => {
                runner.revoke_before(oldest);
                Ok(())
            }
        }
    }

    async fn offer(&self, session: SessionId, offer: Offer) -> Result<Answer, AskError> {
        let answer = self.runner(session)?.offer(offer.sdp, offer.viewer).await?;
        if !self.demux.set_fragment(&answer.ice_ufrag, session) {
            let cause = "the session's runner answered with the ICE user fragment of another session; send a new offer";
            return Err(AskError::Refused { cause: cause.to_owned() });
        }
        Ok(Answer { sdp: answer.sdp, connection: answer.ice_ufrag })
    }

    async fn screenshot(&self, session: SessionId) -> Result<String, AskError> {
        self.runner(session)?.screenshot().await
    }

    async fn enter_code(&self, session: SessionId, code: String) -> Result<CodeTaken, AskError> {
        self.runner(session)?.enter_code(code).await
    }

    async fn allow_host(&self, session: SessionId, host: String) -> Result<HostPort, AskError> {
        self.runner(session)?.allow_host(host).await
    }

    async fn open_channel(
        &self,
        session: SessionId,
        kind: StreamKind,
        viewer: AccessGrant,
    ) -> Result<ViewerChannel, AskError> {
        self.runner(session)?.channel(kind, viewer).await
    }

    async fn tear_down(&self, sandbox: SandboxRecord) -> Result<Vec<Leftover>, NodeError> {
        let session = sandbox.session;
        if let Some(runner) = self.runner_to_end(session) {
            // The most that it took says what others will take.
            self.measure(runner.pid().map(|runner| RunningSession { session, runner })).await;
            runner.end().await;
        }
        let folders =
            vec![self.settings.state_dir.clone(), PathBuf::from("/tmp"), PathBuf::from("/run")];
        let places = Places { folders, logs: self.logs.of(session) };
        Ok(teardown::tear_down(sandbox, places).await)
    }

    fn close(&self, session: SessionId) {
        match self.with_sessions(|sessions| sessions.remove(&session)) {
            // It may be recorded all the same, so that nobody else gets the clone.
            Some(Stage::Claimed(waiting)) => return self.give_up(*waiting),
            Some(Stage::Prepared(_)) => self.logs.remove_if_empty(session),
            Some(Stage::Running(_)) | None => {}
        }
        self.measuring.ended(session);
        self.demux.remove_session(session);
        // It may have freed the memory that another clone waits for.
        self.pool.change();
    }

    fn release(&self, session: SessionId) {
        // A clone that is given up has its own until it has ended.
        if !self.pool.is_ending(session) {
            self.users.free(&sandbox_name(session));
        }
    }

    fn allow_waiting(&self, bytes: u64) {
        self.give_up_over(bytes);
    }

    fn pool(&self) -> PoolFigures {
        self.pool.figures()
    }

    async fn stop(&self) {
        self.end_waiting().await;
    }

    async fn logs(&self, session: SessionId) -> Result<String, NodeError> {
        let logs = self.logs.clone();
        let read = tokio::task::spawn_blocking(move || logs.read(session)).await;
        read.map_err(|_| NodeError { cause: "reading the logs failed".to_owned() })
    }

    async fn sweep_logs(&self, keep: KeepLogs, live: Vec<SessionId>) -> Result<(), NodeError> {
        let logs = self.logs.clone();
        let mut live: HashSet<SessionId> = live.into_iter().collect();
        // One that was prepared is not live yet.
        live.extend(self.with_sessions(|sessions| sessions.keys().copied().collect::<Vec<_>>()));
        live.extend(self.pool.sessions());
        let swept = tokio::task::spawn_blocking(move || logs.sweep(keep, &live)).await;
        swept.map_err(|error| NodeError { cause: format!("sweeping the logs failed: {error}") })
    }
}

#[cfg(test)]
mod tests {
    use anteroom_guest_protocol::HostMessage;
    use serde_json::{Value, to_value};

    use super::*;

    #[test]
    fn a_request_has_one_name_from_the_controller_to_the_guest() {
        let url = String::new();
        for (notice, command, to_guest) in [
            (Notice::StartTool {}, RunnerCommand::StartTool {}, HostMessage::StartTool {}),
            (
                Notice::OpenSignInPage {},
                RunnerCommand::OpenSignInPage {},
                HostMessage::OpenSignInPage { url },
            ),
            (
                Notice::AcknowledgeCredential {},
                RunnerCommand::AcknowledgeCredential {},
                HostMessage::AcknowledgeCredential {},
            ),
        ] {
            let messages = [to_value(notice), to_value(command), to_value(to_guest)];
            let names = messages.map(|message| message.unwrap()["type"].clone());
            assert_ne!(names[0], Value::Null);
            assert!(names.iter().all(|name| *name == names[0]), "{names:?}");
        }
    }
}
