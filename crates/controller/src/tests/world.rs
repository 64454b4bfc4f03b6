//! A controller on a fake node, and what a test does with both.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anteroom_api::{Backend, Begun, KeyId, KeyRole, Principal, Problem, SessionView, StartRequest};
use anteroom_session::{
    Accelerator, DriverKind, Observation, Prompt, SessionId, StateName, Waited,
};

use crate::fake_node::{Call, FakeNode};
use crate::providers::shipped;
use crate::record::Record;
use crate::store::SqliteStore;
use crate::{Controller, DATABASE, Keep, Limits, Providers, Settings};

pub fn settings(state_dir: &Path) -> Settings {
    Settings {
        listen: "127.0.0.1:0".parse().unwrap(),
        state_dir: state_dir.to_owned(),
        operator_name: String::new(),
        public_url: None,
        allow_weak_isolation: true,
        vault_custody: Default::default(),
        min_ttl_seconds: 1,
        max_session_seconds: 900,
        idle_seconds: 900,
        keep: Keep { days: 36_500, log_bytes: 0 },
        limits: Limits { max_sessions: 1, max_queued: 0 },
        learn_egress: false,
        viewer_file: |_| None,
        providers: Arc::new(Providers::open(&shipped(), None).unwrap()),
    }
}

/// What each of its guests was waited for.
pub const WAITED: Waited =
    Waited { vmm_start_micros: Some(70_000), resume_micros: 300, guest_micros: 9_000 };

/// A controller, its node and the folder of both.
pub struct World {
    pub folder: tempfile::TempDir,
    pub node: FakeNode,
    pub controller: Arc<Controller<FakeNode, SqliteStore>>,
}

impl World {
    pub async fn new() -> Self {
        Self::in_folder(tempfile::tempdir().unwrap()).await
    }

    pub async fn with_limits(limits: Limits) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings { limits, ..settings(folder.path()) };
        Self::with_settings(folder, settings).await
    }

    /// What the controller finds that is started after this one.
    pub async fn restarted(self) -> Self {
        Self::in_folder(self.folder).await
    }

    async fn in_folder(folder: tempfile::TempDir) -> Self {
        let settings = settings(folder.path());
        Self::with_settings(folder, settings).await
    }

    async fn with_settings(folder: tempfile::TempDir, settings: Settings) -> Self {
        let database = folder.path().join(DATABASE);
        let node = FakeNode::beside(&database).await;
        let store = SqliteStore::open(&database).await.unwrap();
        let bound = "127.0.0.1:1".parse().unwrap();
        let controller = Controller::open(settings, node.clone(), store, bound).await.unwrap();
        Self { folder, node, controller }
    }

    pub async fn start(&self) -> Result<SessionId, Problem> {
        start(&self.controller).await
    }

    /// A session whose guest has found its credential.
    pub async fn captures(&self) -> SessionId {
        let id = self.start().await.unwrap();
        self.node.asked(|call| matches!(call, Call::Start(_))).await;
        let url = "https://id.example/device".to_owned();
        let to_capture = [
            Observation::SandboxStarted {
                driver: DriverKind::Qemu,
                accelerator: Accelerator::Kvm,
                pid: 1,
                cloned: None,
            },
            Observation::AgentConnected {
                agent_version: "1".into(),
                kernel: "6".into(),
                waited: Some(WAITED),
            },
            Observation::SignInAwaited { prompt: Prompt::Page { url, code: None } },
            Observation::CredentialFound,
        ];
        self.node.observe(id, to_capture).await;
        self.until(id, |view| view.state == StateName::Capturing).await;
        id
    }

    pub async fn until(
        &self,
        id: SessionId,
        wanted: impl FnMut(&SessionView) -> bool,
    ) -> SessionView {
        match self.controller.handle(id) {
            Some(mut handle) => handle.view.wait_for(wanted).await.unwrap().clone(),
            None => self.controller.session(id).await.unwrap(),
        }
    }

    /// Waits until the session's task is over; the session as it is stored then.
    pub async fn over(&self, id: SessionId) -> Record {
        if let Some(handle) = self.controller.handle(id) {
            handle.over().await;
        }
        self.node.asked(|call| *call == Call::Close).await;
        self.controller.record(id).await.unwrap()
    }

    pub fn database(&self) -> PathBuf {
        self.folder.path().join(DATABASE)
    }

    pub fn torn_downs(&self) -> usize {
        self.node.calls().iter().filter(|call| matches!(call, Call::TearDown(..))).count()
    }
}

/// Calls for a sign-in to the demo's provider.
pub async fn start(controller: &Controller<FakeNode, SqliteStore>) -> Result<SessionId, Problem> {
    let request = StartRequest {
        provider: "demo".to_owned(),
        user_id: None,
        recipient: None,
        ttl_seconds: None,
        method: None,
        locale: None,
        time_zone: None,
        files: Vec::new(),
    };
    let (Begun::Now(answer) | Begun::Before(answer)) =
        controller.start(request, None, &caller()).await?;
    Ok(answer.session_id.parse().unwrap())
}

pub fn caller() -> Principal {
    Principal::caller(KeyId([0; 32]), "ci".parse().unwrap(), KeyRole::Caller)
}
