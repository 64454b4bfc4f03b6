//! The controller: sessions, their store, and the way in.
//!
//! ```text
//! HTTP (crate api) → Controller → session_actor (one task a session) → runner_process
//!                                       │ store before effects            ↑ events
//! UDP → front_door ───────────────────────────────────────────────────────┘
//! ```

mod admission;
mod calls;
mod front_door;
mod metrics;
mod record;
mod runner_process;
mod session_actor;
mod settings;
mod store;
mod words;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anteroom_api::{
    Backend, Begun, Health, Idempotency, Named, Problem, ProblemCode, SessionSummary, SessionView,
    StartAnswer, StartRequest, ViewerAccess, ViewerView,
};
use anteroom_guest_protocol::ScreenSize;
use anteroom_provider::{InjectedFile, Provider, ProviderKind, is_guest_path};
use anteroom_session::{Actor, Effect, Event, Session, SessionId, State, StateName, Terms};
use anteroom_vault::Vault;
use anteroom_vm::{Qemu, VmAccelerator};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use tokio::sync::{RwLock, watch};

pub use admission::{Limits, rooms_by_memory};
pub use settings::{DriverChoice, Settings, default_dir, load_providers};

use crate::clock::now;
use crate::embedded;
use crate::runner_protocol::{DriverConfig, RunnerCommand, RunnerConfig};
use admission::Admission;
use calls::CallsInAnswer;
use front_door::FrontDoor;
use metrics::Metrics;
use record::{OpenableBy, Record, runtime_dir};
use session_actor::{Live, SessionHandle, StartPlan, Surroundings};
use store::Store;

const SCREEN: ScreenSize = ScreenSize { width: 1280, height: 720 };
const DEFAULT_TTL_SECONDS: u64 = 900;

/// Longest and shortest wait that a caller is told when every room is taken, in seconds.
const COME_BACK: std::ops::RangeInclusive<u64> = 5..=60;

/// Files that starting a session opens: sockets, their duplicates, its log; and some to spare.
const FILES_TO_START: usize = 16;

/// How old a check of the store may be.
const CHECK_AGAIN: Duration = Duration::from_secs(2);

/// Injected files of one session, together.
const MAX_FILES: usize = 32;

/// The controller.
pub struct Controller {
    settings: Settings,
    origin: String,
    store: Store,
    vault: Vault,
    around: Arc<Surroundings>,
    admission: Admission,
    calls: CallsInAnswer,
    /// When the store was last written to as a check, and how that went.
    store_check: Mutex<Option<(Instant, Result<(), String>)>>,
    /// No session is started any more.
    stopping: AtomicBool,
    /// Held for reading by each start; [`Self::end_all`] waits for those that have begun.
    starting: RwLock<()>,
}

impl Controller {
    /// Opens store, vault and front door, and finishes what an earlier controller left.
    pub async fn open(settings: Settings, bound: SocketAddr) -> Result<Arc<Self>> {
        let store = Store::open(&settings.state_dir.join("anteroom.db")).await?;
        let vault = Vault::open(
            &settings.state_dir.join("vault/identity.txt"),
            store.has_credentials_of_vault().await?,
        )?;
        let door = FrontDoor::open(settings.media_listen)?;
        let origin = settings.public_url.clone().unwrap_or_else(|| format!("http://{bound}"));
        let folders =
            vec![settings.state_dir.clone(), PathBuf::from("/tmp"), PathBuf::from("/run")];
        let logs = settings.state_dir.join("logs");
        let around = Arc::new(Surroundings {
            live: Live::default(),
            metrics: Arc::new(Metrics::new(settings.limits.max_sessions)),
            store: store.clone(),
            door,
            folders,
            logs,
        });
        let controller = Arc::new(Self {
            admission: Admission::new(settings.limits),
            calls: CallsInAnswer::default(),
            settings,
            origin: origin.trim_end_matches('/').to_owned(),
            store,
            vault,
            around,
            store_check: Mutex::default(),
            stopping: AtomicBool::new(false),
            starting: RwLock::default(),
        });
        controller.reconcile().await?;
        Ok(controller)
    }

    /// Where browsers reach this.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Where media comes in.
    pub fn media_address(&self) -> Result<SocketAddr> {
        self.around.door.address()
    }

    /// Makes a key under a name, instead of one it may have had.
    pub async fn new_api_key(&self, name: &str) -> Result<String> {
        let key = format!("ak_{}", secret());
        self.store.put_api_key(name, &key, now().0).await?;
        Ok(key)
    }

    /// Whether a key of that name was made before.
    pub async fn has_api_key_named(&self, name: &str) -> Result<bool> {
        self.store.has_api_key_named(name).await
    }

    /// Takes no new sessions, ends every one there is and waits until all of them are gone.
    pub async fn end_all(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(self.starting.write().await);
        let handles = self.around.live.all();
        for handle in &handles {
            handle.tell(Event::EndRequested(Actor::Operator)).await;
        }
        for handle in &handles {
            handle.demolished().await;
        }
    }

    /// Sessions that are not finished belong to a controller that is gone: their rooms are demolished
    /// and their state says so.
    async fn reconcile(&self) -> Result<()> {
        for id in self.store.unfinished().await? {
            match self.store.load(id).await {
                Ok(Some(record)) => {
                    tracing::warn!(session = %id, state = %record.session.state.name(), "an earlier controller left this session");
                    self.end_abandoned(record).await?;
                }
                Ok(None) => {}
                // One row must not keep all the others from being served.
                Err(error) => {
                    tracing::error!(session = %id, "{error:#}; what still runs of it is killed");
                    let cleaned = tokio::task::spawn_blocking(move || {
                        anteroom_vm::reap(id);
                        anteroom_vm::remove_runtime_dir(&runtime_dir(id))
                    });
                    cleaned.await?.context("cleaning up after it failed")?;
                }
            }
        }
        Ok(())
    }

    /// Ends an unfinished session that has no task.
    async fn end_abandoned(&self, record: Record) -> Result<()> {
        let id = record.id();
        let state = record.session.state.clone();
        let effects = match state {
            // Its end is known, its demolition was not reported.
            State::Ended { .. } => vec![Effect::Demolish],
            _ => Vec::new(),
        };
        let handle = session_actor::start(record, effects, None, self.around.clone());
        if matches!(state, State::Capturing { .. }) && self.store.credential(id).await?.is_some() {
            handle.tell(Event::CredentialStored).await;
        }
        if !matches!(state, State::Ended { .. }) {
            handle.tell(Event::FoundByReconciliation).await;
        }
        Ok(())
    }

    fn handle(&self, id: SessionId) -> Option<SessionHandle> {
        self.around.live.get(id)
    }

    fn driver_config(&self, id: SessionId, provider: &Provider) -> Result<DriverConfig, Problem> {
        match &self.settings.driver {
            DriverChoice::Qemu(accelerator) => {
                let image = anteroom_image::find(&self.settings.images_dir, &provider.image)
                    .map_err(|error| Problem::new(ProblemCode::NoImage, error.to_string()))?;
                Ok(DriverConfig::Qemu {
                    image_dir: image.dir,
                    cache_dir: self.settings.cache_dir.clone(),
                    accelerator: *accelerator,
                    memory_mib: self.settings.memory_mib,
                    vcpus: self.settings.vcpus,
                })
            }
            DriverChoice::Host { agent } => {
                Ok(DriverConfig::Host { agent: agent.clone(), runtime_dir: runtime_dir(id) })
            }
        }
    }

    /// Sign-ins with consequences need a boundary that holds.
    fn check_isolation(&self, provider: &Provider) -> Result<(), Problem> {
        let weak = match &self.settings.driver {
            DriverChoice::Host { .. } | DriverChoice::Qemu(VmAccelerator::Tcg) => true,
            DriverChoice::Qemu(VmAccelerator::Kvm) => false,
        };
        if provider.kind == ProviderKind::Real && weak && !self.settings.allow_weak_isolation {
            let detail = "this machine offers no hardware isolation, and this provider's sign-ins are real; \
                          start with --allow-weak-isolation if you accept that";
            return Err(Problem::new(ProblemCode::IsolationTooWeak, detail));
        }
        Ok(())
    }

    /// Begins a sign-in, or finds the one that the same call began.
    async fn begin_once(
        &self,
        request: StartRequest,
        idempotency: Option<Idempotency>,
    ) -> Result<Begun, Problem> {
        let Some(call) = idempotency else {
            return Ok(Begun::Now(self.begin(request, None).await?));
        };
        let _answering = self.calls.enter(&call).ok_or_else(|| {
            let detail =
                "a call with this Idempotency-Key is being answered; try again in a second";
            Problem::new(ProblemCode::IdempotencyKeyInUse, detail).retry_after(1)
        })?;
        match self.store.begun_by(&call, now().0).await.map_err(internal)? {
            None => Ok(Begun::Now(self.begin(request, Some(&call)).await?)),
            Some((_, body)) if body != call.body => {
                let detail = "this Idempotency-Key came with another body before; use a new one";
                Err(Problem::new(ProblemCode::IdempotencyKeyReused, detail))
            }
            Some((session, _)) => Ok(Begun::Before(self.begun_before(session).await?)),
        }
    }

    async fn begin(
        &self,
        request: StartRequest,
        idempotency: Option<&Idempotency>,
    ) -> Result<StartAnswer, Problem> {
        let invalid = |detail: String| Problem::new(ProblemCode::InvalidValue, detail);
        let no_provider =
            || Problem::new(ProblemCode::UnknownProvider, "there is no such provider");
        let provider_id = request.provider.parse().map_err(|_| no_provider())?;
        let provider = self.settings.providers.get(&provider_id).ok_or_else(no_provider)?.clone();
        let user = request.user_id.as_deref().map(str::parse).transpose();
        let user = user.map_err(|error: anteroom_session::InvalidId| invalid(error.to_string()))?;
        let (recipient, openable_by) = match &request.recipient {
            Some(recipient) => {
                anteroom_vault::check_recipient(recipient)
                    .map_err(|error| invalid(error.to_string()))?;
                (recipient.clone(), OpenableBy::Caller)
            }
            None => (self.vault.recipient().to_owned(), OpenableBy::Operator),
        };
        let default = DEFAULT_TTL_SECONDS.min(self.settings.max_session_seconds);
        let ttl_seconds = request.ttl_seconds.unwrap_or(default);
        let least = self.settings.min_ttl_seconds;
        let most = self.settings.max_session_seconds;
        if !(least..=most).contains(&ttl_seconds) {
            return Err(invalid(format!("ttlSeconds must be {least} to {most}")));
        }
        let files = injected(request.files).map_err(invalid)?;
        let _starting = self.starting.read().await;
        if self.stopping.load(Ordering::SeqCst) {
            let detail = "this Anteroom is stopping and takes no new sign-ins";
            return Err(Problem::new(ProblemCode::Stopping, detail));
        }
        self.check_isolation(&provider)?;
        let admitted = self.admission.admit().ok_or_else(|| self.no_room())?;
        let id = SessionId::generate();
        let driver = self.driver_config(id, &provider)?;
        let browser_ip = browser_ip(id);
        let terms = Terms {
            id,
            provider: provider_id,
            user,
            created_at: now(),
            ttl_seconds,
            max_seconds: most,
            idle_seconds: self.settings.idle_seconds,
        };
        let (session, effects) = Session::request(terms);
        let record = Record {
            session,
            provider_name: provider.name.clone(),
            instructions: provider.login.instructions.clone(),
            driver: match driver {
                DriverConfig::Qemu { .. } => "qemu",
                DriverConfig::Host { .. } => "host",
            }
            .to_owned(),
            accelerator: None,
            recipient: recipient.clone(),
            openable_by,
            browser_ip,
            sign_in_url: None,
            credential_stored_at: None,
            egress: Vec::new(),
            timeline: Vec::new(),
        };
        let candidates = self.candidates().map_err(internal)?;
        let log_dir = self.make_log_dir(id).map_err(not_stored)?;
        let link_secret = secret();
        if let Err(error) = self.store.create(&record, &link_secret, idempotency).await {
            let _ = std::fs::remove_dir(&log_dir);
            return Err(not_stored(error));
        }
        let config = RunnerConfig {
            session: id,
            driver,
            provider,
            files,
            recipient,
            screen: SCREEN,
            browser_ip,
            log_dir,
            candidates,
        };
        let answer = StartAnswer {
            success: true,
            session_id: id.to_string(),
            provider: request.provider,
            browser_ip: browser_ip.to_string(),
            viewer_url: self.viewer_url(id, &link_secret),
            state: record.session.state.name().as_str().to_owned(),
        };
        tracing::info!(session = %id, provider = %answer.provider, "session requested");
        self.around.metrics.started(&answer.provider);
        session_actor::start(
            record,
            effects,
            Some(StartPlan { config, admitted }),
            self.around.clone(),
        );
        Ok(answer)
    }

    /// Every room is taken: when to come back is when the first of them must be free.
    fn no_room(&self) -> Problem {
        let Limits { max_sessions, max_queued } = self.admission.limits();
        let deadlines =
            self.around.live.all().into_iter().map(|handle| handle.view.borrow().deadline);
        let first = deadlines.min().unwrap_or_default().saturating_sub(now().0) / 1000;
        let seconds = first.clamp(*COME_BACK.start(), *COME_BACK.end());
        let queue = match max_queued {
            0 => String::new(),
            queued => format!(" and {queued} more wait"),
        };
        let detail = format!(
            "all {max_sessions} rooms of this Anteroom are in use{queue}; try again in {seconds} s"
        );
        Problem::new(ProblemCode::NoRoom, detail).retry_after(seconds)
    }

    fn candidates(&self) -> Result<Vec<SocketAddr>> {
        match self.settings.advertise.as_slice() {
            [] => Ok(vec![self.around.door.address()?]),
            advertised => Ok(advertised.to_vec()),
        }
    }

    fn log_dir(&self, id: SessionId) -> PathBuf {
        self.settings.state_dir.join("logs").join(id.to_string())
    }

    fn make_log_dir(&self, id: SessionId) -> Result<PathBuf> {
        use std::os::unix::fs::DirBuilderExt;
        let dir = self.log_dir(id);
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .with_context(|| format!("creating {} failed", dir.display()))?;
        Ok(dir)
    }

    async fn new_link(&self, record: &Record) -> Result<String> {
        let secret = secret();
        let terms = &record.session.terms;
        self.store.put_link(terms.id, &secret, terms.last_moment().0).await?;
        Ok(self.viewer_url(terms.id, &secret))
    }

    /// The answer to a call that began this session before. The link of then is not kept in clear, so
    /// there is a new one.
    async fn begun_before(&self, id: SessionId) -> Result<StartAnswer, Problem> {
        let record = self.record(id).await?;
        Ok(StartAnswer {
            success: true,
            session_id: id.to_string(),
            provider: record.session.terms.provider.to_string(),
            browser_ip: record.browser_ip.to_string(),
            viewer_url: self.new_link(&record).await.map_err(not_stored)?,
            state: self.session(id).await?.state,
        })
    }

    fn viewer_url(&self, id: SessionId, link_secret: &str) -> String {
        format!("{}/v/{id}#{link_secret}", self.origin)
    }

    /// Whether the store takes writes. Asked at most every [`CHECK_AGAIN`], since each is a write.
    async fn check_store(&self) -> Result<(), String> {
        let last = self.store_check.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((at, result)) = last
            && at.elapsed() < CHECK_AGAIN
        {
            return result;
        }
        let result = self.store.check(now().0).await.map_err(|error| format!("{error:#}"));
        *self.store_check.lock().unwrap_or_else(PoisonError::into_inner) =
            Some((Instant::now(), result.clone()));
        result
    }

    async fn record(&self, id: SessionId) -> Result<Record, Problem> {
        self.store.load(id).await.map_err(internal)?.ok_or_else(Problem::no_such_session)
    }

    /// The runner of a session whose guest can show a desktop, or soon will.
    async fn with_desktop(&self, id: SessionId) -> Result<runner_process::Runner, Problem> {
        let state = self.session(id).await?.state;
        let awake = ![StateName::Requested, StateName::Booting].iter().any(|s| s.as_str() == state);
        match self.handle(id).and_then(|handle| handle.runner()) {
            Some(runner) if awake => Ok(runner),
            _ => Err(Problem::wrong_state(format!("the session is {state} and has no desktop"))),
        }
    }
}

impl Backend for Controller {
    async fn is_api_key(&self, key: &str) -> Result<bool, Problem> {
        self.store.is_api_key(key).await.map_err(unreadable)
    }

    async fn is_viewer(&self, session: SessionId, secret: &str) -> Result<bool, Problem> {
        self.store.is_viewer(session, secret, now().0).await.map_err(unreadable)
    }

    async fn start(
        &self,
        request: StartRequest,
        idempotency: Option<Idempotency>,
    ) -> Result<Begun, Problem> {
        let begun = self.begin_once(request, idempotency).await;
        begun.inspect_err(|problem| self.around.metrics.refused(problem.code.as_str()))
    }

    async fn sessions(&self) -> Result<Vec<SessionSummary>, Problem> {
        let records = self.store.all().await.map_err(internal)?;
        let summary = |record: Record| {
            let view = record.view();
            SessionSummary {
                session_id: view.session_id,
                provider: view.provider,
                state: view.state,
                reason: view.reason.map(|reason| reason.code),
                created_at: view.created_at,
            }
        };
        Ok(records.into_iter().map(summary).collect())
    }

    async fn session(&self, id: SessionId) -> Result<SessionView, Problem> {
        match self.handle(id) {
            Some(handle) => Ok(handle.view.borrow().clone()),
            None => Ok(self.record(id).await?.view()),
        }
    }

    async fn heartbeat(&self, id: SessionId) -> Result<SessionView, Problem> {
        if let Some(mut handle) = self.handle(id) {
            handle.view.mark_unchanged();
            // The answer shows the new deadline, unless the session is busy with something long.
            if handle.tell(Event::Heartbeat).await {
                let _ = tokio::time::timeout(Duration::from_secs(2), handle.view.changed()).await;
            }
        }
        self.session(id).await
    }

    async fn watch(&self, id: SessionId) -> Result<watch::Receiver<SessionView>, Problem> {
        match self.handle(id) {
            Some(handle) => Ok(handle.view),
            // One that is over does not change: the receiver gives it once.
            None => Ok(watch::channel(self.record(id).await?.view()).1),
        }
    }

    fn viewer_view(&self, session: &SessionView) -> ViewerView {
        let session = session.clone();
        ViewerView {
            session_id: session.session_id,
            provider: Named { id: session.provider, name: session.provider_name },
            operator: Named { id: String::new(), name: self.settings.operator_name.clone() },
            state: session.state,
            reason: session.reason,
            timeline: session.timeline,
            created_at: session.created_at,
            deadline: session.deadline,
            idle_deadline: session.idle_deadline,
            server_now: now().0,
            emulated: session.emulated,
            isolation: session.isolation,
            credential: session.credential,
            sign_in_url_host: session.sign_in_url.map(|url| words::host_of(&url)),
            instructions: session.instructions,
            room: session.room,
            leftovers: session.leftovers,
        }
    }

    async fn end(&self, id: SessionId, by: Actor) -> Result<(), Problem> {
        if let Some(handle) = self.handle(id)
            && handle.tell(Event::EndRequested(by)).await
        {
            return Ok(());
        }
        let record = self.record(id).await?;
        if !record.is_finished() {
            self.end_abandoned(record).await.map_err(internal)?;
        }
        Ok(())
    }

    async fn open_sign_in_url(&self, id: SessionId) -> Result<(), Problem> {
        let runner = self.with_desktop(id).await?;
        let view = self.session(id).await?;
        if view.state != "awaiting_user" {
            return Err(Problem::wrong_state(format!(
                "the session is {}, not awaiting_user",
                view.state
            )));
        }
        runner.tell(RunnerCommand::OpenSignInUrl {}).await;
        Ok(())
    }

    async fn credential(&self, id: SessionId) -> Result<Vec<u8>, Problem> {
        let view = self.session(id).await?;
        let sealed = self.store.credential(id).await.map_err(internal)?;
        sealed.ok_or_else(|| {
            Problem::wrong_state(format!("the session is {} and has no credential", view.state))
        })
    }

    async fn screenshot(&self, id: SessionId) -> Result<Vec<u8>, Problem> {
        let runner = self.with_desktop(id).await?;
        let png = runner
            .screenshot()
            .await
            .map_err(|error| Problem::wrong_state(format!("{error:#}")))?;
        STANDARD.decode(png).map_err(|_| Problem::internal("the runner's picture is no base64"))
    }

    async fn logs(&self, id: SessionId) -> Result<String, Problem> {
        self.session(id).await?;
        let dir = self.log_dir(id);
        let read = tokio::task::spawn_blocking(move || {
            let mut text = String::new();
            for name in ["runner.log", "console.log", "services.log.old", "services.log"] {
                if let Ok(bytes) = std::fs::read(dir.join(name)) {
                    let lines = String::from_utf8_lossy(&bytes);
                    let clean: String = lines
                        .chars()
                        .filter(|c| matches!(c, '\n' | '\t') || !c.is_control())
                        .collect();
                    text.push_str(&format!("==> {name}\n{clean}\n"));
                }
            }
            text
        });
        read.await.map_err(|_| Problem::internal("reading the logs failed"))
    }

    async fn offer(&self, id: SessionId, sdp: String) -> Result<String, Problem> {
        let runner = self.with_desktop(id).await?;
        let state = self.session(id).await?.state;
        let refused = |error: anyhow::Error| {
            let detail = format!("{error:#} (the session is {state})");
            Problem::new(ProblemCode::OfferRefused, detail)
        };
        let answer = runner.offer(sdp).await.map_err(refused)?;
        self.around.door.add_fragment(&answer.ice_ufrag, id);
        Ok(answer.sdp)
    }

    async fn viewer_link(&self, id: SessionId) -> Result<String, Problem> {
        let record = self.record(id).await?;
        if let State::Ended { .. } = record.session.state {
            return Err(Problem::wrong_state("the session has ended"));
        }
        self.new_link(&record).await.map_err(not_stored)
    }

    async fn exchange(&self, id: SessionId, link_secret: &str) -> Result<ViewerAccess, Problem> {
        let viewer = secret();
        let at = now().0;
        if !self.store.exchange(id, link_secret, &viewer, at).await.map_err(internal)? {
            let detail = "this link was used, is expired or unknown; ask for a new one";
            return Err(Problem::new(ProblemCode::LinkUsed, detail));
        }
        let last_moment = self.record(id).await?.session.terms.last_moment().0;
        Ok(ViewerAccess {
            secret: viewer,
            max_age_seconds: last_moment.saturating_sub(at).div_ceil(1000),
        })
    }

    fn metrics(&self) -> String {
        let views = self.around.live.all().into_iter().map(|handle| handle.view);
        let states: Vec<String> = views.map(|view| view.borrow().state.clone()).collect();
        self.around.metrics.page(&states)
    }

    async fn health(&self) -> Health {
        let mut reasons = Vec::new();
        if let Err(error) = self.check_store().await {
            reasons.push(error);
        }
        if let Err(error) = can_open_files() {
            reasons.push(format!("no more files can be opened: {error}; raise `ulimit -n`"));
        }
        if let DriverChoice::Qemu(_) = self.settings.driver {
            if let Err(error) = Qemu::installed() {
                reasons.push(error.to_string());
            }
            if anteroom_image::list(&self.settings.images_dir).is_empty() {
                let dir = self.settings.images_dir.display();
                reasons.push(format!(
                    "there is no golden image in {dir}; build one with `anteroom image build`"
                ));
            }
        }
        Health { live: true, ready: reasons.is_empty(), reasons }
    }

    fn viewer_file(&self, path: &str) -> Option<(Vec<u8>, &'static str)> {
        embedded::viewer_file(path)
    }
}

fn injected(files: Vec<anteroom_api::StartFile>) -> Result<Vec<InjectedFile>, String> {
    if files.len() > MAX_FILES {
        return Err(format!("at most {MAX_FILES} files can be injected"));
    }
    files
        .into_iter()
        .map(|file| {
            let owner = file.owner.unwrap_or_else(|| "person".to_owned());
            let mode = file.mode.unwrap_or(0o600);
            if !is_guest_path(&file.path) {
                return Err(format!(
                    "{:?} is no path in the guest; it must be absolute or start with ~/",
                    file.path
                ));
            }
            if !["person", "root"].contains(&owner.as_str()) {
                return Err(format!("the owner of {} must be person or root", file.path));
            }
            if mode > 0o777 || file.content.len() > 1024 * 1024 {
                return Err(format!(
                    "{} must be at most 1 MiB, with a mode of at most 511",
                    file.path
                ));
            }
            Ok(InjectedFile { path: file.path, owner, mode, content: file.content })
        })
        .collect()
}

/// Whether this process may open as many files as starting a session takes.
fn can_open_files() -> std::io::Result<()> {
    let files: std::io::Result<Vec<_>> =
        (0..FILES_TO_START).map(|_| std::fs::File::open("/dev/null")).collect();
    files.map(drop)
}

/// 256 random bits, for links, cookies and keys.
fn secret() -> String {
    let bytes: [u8; 32] = rand::random();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An address of 10.213.0.0/16 for the guest's dummy interface. It exists in the guest alone, so two
/// sessions could have the same; the id's random part makes that rare all the same.
fn browser_ip(id: SessionId) -> Ipv4Addr {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(id.to_string());
    Ipv4Addr::new(10, 213, hash[0], hash[1].clamp(2, 254))
}

/// The operator's disk, most likely: nothing was begun.
fn not_stored(error: anyhow::Error) -> Problem {
    tracing::error!("{error:#}");
    let detail = format!("the sign-in could not be recorded, so it was not begun: {error:#}");
    Problem::new(ProblemCode::StorageUnavailable, detail)
}

/// Who asks cannot be told: that is no "no".
fn unreadable(error: anyhow::Error) -> Problem {
    tracing::error!("{error:#}");
    let detail = format!("keys cannot be checked now: {error:#}");
    Problem::new(ProblemCode::StorageUnavailable, detail)
}

fn internal(error: anyhow::Error) -> Problem {
    tracing::error!("{error:#}");
    Problem::internal(format!("{error:#}"))
}
