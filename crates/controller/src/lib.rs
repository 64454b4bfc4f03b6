//! The controller: sessions, their store, and the way in.
//!
//! ```text
//! HTTP (crate api) → Controller → actor (one task a session) → Node (a trait: node-protocol)
//!                                   │ store before effects       │
//!                                   ▲ reports, in order ─────────┘
//! ```
//!
//! Here it is opened; `start` begins sign-ins, `actor` carries each to its end, `backend` answers the
//! API, `reconcile` finishes what an earlier controller left.

mod actor;
mod admission;
mod backend;
mod calls;
mod choices;
mod client_file;
mod custody;
mod declared;
mod error;
#[cfg(test)]
mod fake_node;
mod health;
mod injected;
mod janitor;
mod keys;
mod ledger;
mod live;
mod measuring;
mod metrics;
mod providers;
mod reconcile;
mod record;
mod reservation;
mod settings;
mod shortage;
mod start;
mod store;
#[cfg(test)]
mod tests;
mod timeline;
mod views;
mod waiting_clones;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use anteroom_api::{KeyRole, MadeKey, Problem, ProblemCode};
use anteroom_clock::now;
use anteroom_guest_protocol::chain;
use anteroom_node_protocol::Node;
use anteroom_session::{Actor, Event, HolderGeneration, SessionId};
use anteroom_vault::{ControllerKey, Vault};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use tokio::sync::RwLock;

pub use admission::Limits;
pub use choices::methods;
pub use client_file::OVERRIDES;
pub use error::ControllerError;
pub use janitor::Keep;
pub use providers::{Providers, ProvidersError, load_providers};
pub use record::MAX_HOSTS;
pub use settings::{Settings, ViewerFile, default_dir};
pub use start::SCREEN;
pub use store::{SqliteStore, Store, StoreError};

use actor::ControllerContext;
use admission::Admission;
use calls::CallsInAnswer;
use client_file::ClientFile;
use health::Check;
use keys::Keys;
use live::{Live, SessionHandle};
use metrics::Metrics;
use record::Record;

/// Where in the state folder the key is that signs envelopes.
pub const CONTROLLER_KEY: &str = "vault/controller.pem";

/// Where in the state folder the database is.
pub const DATABASE: &str = "anteroom.db";

/// The name of the command line's own key.
pub const COMMAND_LINE: &str = "cli";

/// The controller.
pub struct Controller<N, S> {
    settings: Settings,
    origin: String,
    store: S,
    vault: Vault,
    /// Signs what is stated of sealed credentials.
    key: ControllerKey,
    context: Arc<ControllerContext<N, S>>,
    admission: Admission,
    calls: CallsInAnswer,
    keys: Keys<S>,
    health: health::Known,
    /// What the command line of this machine reads.
    command_line: OnceLock<ClientFile>,
    /// No session is started any more.
    stopping: AtomicBool,
    /// Held for reading by each start; [`Self::end_all`] waits for those that have begun.
    starting: RwLock<()>,
}

impl<N: Node, S: Store> Controller<N, S> {
    /// Opens the vault, and finishes what an earlier controller left.
    pub async fn open(
        settings: Settings,
        node: N,
        store: S,
        bound: SocketAddr,
    ) -> Result<Arc<Self>, ControllerError> {
        let vault = Vault::open(
            &settings.state_dir.join("vault/identity.txt"),
            store.has_credentials_of_vault().await?,
        )?;
        let key = ControllerKey::open(&settings.state_dir.join(CONTROLLER_KEY))?;
        let origin = settings.public_url.clone().unwrap_or_else(|| format!("http://{bound}"));
        let node = Arc::new(node);
        let context = Arc::new(ControllerContext {
            live: Live::default(),
            metrics: Arc::new(Metrics::new(settings.limits.max_sessions)),
            store: store.clone(),
            node: Arc::clone(&node),
        });
        let budget = node.description().memory_budget_bytes;
        let controller = Arc::new(Self {
            admission: Admission::new(settings.limits, budget),
            calls: CallsInAnswer::default(),
            origin: origin.trim_end_matches('/').to_owned(),
            vault,
            key,
            context,
            keys: Keys::new(store.clone()),
            health: Check { store: store.clone(), node }.start().await,
            command_line: OnceLock::new(),
            settings,
            store,
            stopping: AtomicBool::new(false),
            starting: RwLock::default(),
        });
        controller.reconcile().await?;
        tokio::spawn(janitor::run(controller.context.clone(), controller.settings.keep));
        let node = || Arc::clone(&controller.context.node);
        tokio::spawn(measuring::run(node(), controller.admission.clone()));
        tokio::spawn(waiting_clones::run(node(), controller.admission.clone()));
        Ok(controller)
    }

    /// Where browsers reach this.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Where media comes in.
    pub fn media_address(&self) -> SocketAddr {
        self.context.node.description().media
    }

    /// Memory that sessions, templates and waiting clones may take together.
    pub fn memory_budget_bytes(&self) -> u64 {
        self.context.node.description().memory_budget_bytes
    }

    /// The API keys.
    pub fn keys(&self) -> &Keys<S> {
        &self.keys
    }

    /// Writes how a client of this machine reaches this, with a key of its own that is made anew, to a
    /// file that is its owner's alone.
    pub async fn write_client_file(
        &self,
        name: &str,
        role: KeyRole,
        path: &Path,
        url: &str,
    ) -> Result<(), ControllerError> {
        let key = self.keys.put(name, role, &Actor::Operator {}).await;
        let key = key.map_err(|problem| ControllerError::NoClientKey(problem.detail))?;
        Ok(self.client_file(path, url).write(&key)?)
    }

    fn client_file(&self, path: &Path, url: &str) -> ClientFile {
        ClientFile {
            path: path.to_owned(),
            url: url.to_owned(),
            media: self.media_address(),
            vault_custody: self.settings.vault_custody.clone(),
        }
    }

    /// The same for this machine's command line; kept true when its key is made anew later.
    pub async fn serve_command_line(&self, path: &Path, url: &str) -> Result<(), ControllerError> {
        self.write_client_file(COMMAND_LINE, KeyRole::Admin, path, url).await?;
        // There is one.
        let _ = self.command_line.set(self.client_file(path, url));
        Ok(())
    }

    /// Makes a key anew; the command line goes on with its own.
    async fn rotate(&self, name: &str, by: &Actor) -> Result<MadeKey, Problem> {
        let made = self.keys.rotate(name, by).await?;
        if name == COMMAND_LINE
            && let Some(file) = self.command_line.get()
        {
            file.write(&made.key).map_err(not_stored)?;
        }
        Ok(made)
    }

    /// Refuses new sessions, ends all that run and waits until they are torn down.
    pub async fn end_all(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        drop(self.starting.write().await);
        let handles = self.context.live.all();
        for handle in &handles {
            handle.report(Event::EndRequested(Actor::Operator {})).await;
        }
        for handle in &handles {
            handle.torn_down().await;
        }
        self.context.node.stop().await;
        self.keys.store_use().await;
    }

    fn handle(&self, id: SessionId) -> Option<SessionHandle> {
        self.context.live.get(id)
    }

    /// A new link for the end user. The earlier ones are revoked, and what they opened is closed.
    async fn new_link(&self, record: &Record, by: Actor) -> Result<String, StoreError> {
        let secret = secret();
        let id = record.id();
        let generation = self.begin_generation(record, Some(&secret)).await?;
        if let Some(handle) = self.handle(id) {
            handle.report(Event::LinkMade { generation, by }).await;
        }
        Ok(self.viewer_url(id, &secret))
    }

    /// Begins a generation of viewers: the ones before it are revoked when this is durable.
    async fn begin_generation(
        &self,
        record: &Record,
        link: Option<&str>,
    ) -> Result<HolderGeneration, StoreError> {
        let params = &record.session.params;
        let last_moment = params.last_moment().0;
        let generation = self.store.begin_generation(params.id, link, now().0, last_moment).await?;
        if let Some(handle) = self.handle(params.id) {
            handle.revoke_before(generation);
        }
        Ok(generation)
    }

    fn viewer_url(&self, id: SessionId, link_secret: &str) -> String {
        format!("{}/v/{id}#{link_secret}", self.origin)
    }

    async fn record(&self, id: SessionId) -> Result<Record, Problem> {
        self.store.load(id).await.map_err(internal)?.ok_or_else(|| Problem::no_such_session(id))
    }
}

/// 256 random bits, for links, cookies and keys.
fn secret() -> String {
    let bytes: [u8; 32] = rand::random();
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An error without the operation that failed, for a sentence that names that itself.
fn cause(error: &(dyn Error + 'static)) -> String {
    error.downcast_ref().map_or_else(|| chain(error), StoreError::cause)
}

/// The operator's disk, most likely: nothing was begun.
fn not_stored(error: impl Error + 'static) -> Problem {
    tracing::error!("{}", chain(&error));
    let cause = cause(&error);
    let detail = format!("the change could not be stored, so nothing was changed: {cause}");
    Problem::new(ProblemCode::StorageUnavailable, detail)
}

/// The key could not be checked, which does not mean that it was refused.
fn unreadable(error: impl Error + 'static) -> Problem {
    tracing::error!("{}", chain(&error));
    let detail = format!("the key could not be checked: {}", cause(&error));
    Problem::new(ProblemCode::StorageUnavailable, detail)
}

fn internal(error: impl Error + 'static) -> Problem {
    let error = chain(&error);
    tracing::error!("{error}");
    Problem::internal(error)
}
