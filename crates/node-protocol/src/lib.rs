//! What a controller and a node say to each other.
//!
//! The controller decides and stores. A node boots sandboxes, runs a process for each session and
//! reports what it sees; it keeps nothing that must outlive it. A session is named by its id in every
//! message: process ids, paths and descriptors stay on the node. All messages are serialisable, so
//! that the two can be on different machines.

mod capacity;
mod messages;
mod sign_in;

use std::future::Future;
use std::pin::Pin;

use anteroom_guest_protocol::StreamKind;
use anteroom_session::{AccessGrant, CodeTaken, EndReason, HostPort, Leftover, SessionId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;

pub use capacity::{
    Capacity, Demand, Free, NodeMemory, Pages, SandboxQuery, SessionMemory, TemplateMemory,
    WaitingMemory, may_be_clone,
};
pub use messages::{
    Answer, AskError, Description, KeepLogs, MediaTotals, NodeError, NotPrepared, Notice, Offer,
    PoolFigures, PrepareSession, Prepared, Report, SandboxRecord, StartSession,
};
pub use sign_in::SignInConfig;

/// A machine that sessions run on.
///
/// Dropping the future of a request leaves nothing behind on the node.
pub trait Node: Send + Sync + 'static {
    /// What the node is; the same for as long as it lives.
    fn description(&self) -> &Description;

    /// Why no session can be started now, one sentence each; empty when one can.
    fn obstacles(&self) -> impl Future<Output = Vec<String>> + Send;

    /// What a session would take of the machine, and what the machine has free now. It must be cheap: each
    /// start asks.
    fn capacity(&self, sandbox: SandboxQuery) -> impl Future<Output = Capacity> + Send;

    /// What the sessions that run take of the machine's memory, measured now.
    fn memory(&self) -> impl Future<Output = NodeMemory> + Send;

    /// Reserves what a session needs before it is recorded: checks its image, leases it a user and
    /// creates its log folder; or gives it a sandbox that waits. [`Self::close`] and [`Self::release`] give it back.
    fn prepare(
        &self,
        session: PrepareSession,
    ) -> impl Future<Output = Result<Prepared, NotPrepared>> + Send;

    /// Keeps the user of a session that an earlier controller left: nobody else gets it before
    /// [`Self::release`].
    fn hold(&self, sandbox: &SandboxRecord);

    /// Starts a prepared session. What happens comes by [`Reports`]; the last is
    /// [`Report::RunnerExited`], unless the node is lost. Where it cannot be started, the session ends with the
    /// reason.
    fn start(
        &self,
        session: StartSession,
    ) -> impl Future<Output = Result<Reports, EndReason>> + Send;

    /// Has a running session do something that needs no answer.
    fn notify(
        &self,
        session: SessionId,
        notice: Notice,
    ) -> impl Future<Output = Result<(), AskError>> + Send;

    /// Answers a viewer's WebRTC offer. The viewer before them is disconnected.
    fn offer(
        &self,
        session: SessionId,
        offer: Offer,
    ) -> impl Future<Output = Result<Answer, AskError>> + Send;

    /// A picture of the desktop: PNG in base64.
    fn screenshot(
        &self,
        session: SessionId,
    ) -> impl Future<Output = Result<String, AskError>> + Send;

    /// Types the end user's code into the tool's terminal.
    fn enter_code(
        &self,
        session: SessionId,
        code: String,
    ) -> impl Future<Output = Result<CodeTaken, AskError>> + Send;

    /// Allows a host that was refused; what is let out from now on.
    fn allow_host(
        &self,
        session: SessionId,
        host: String,
    ) -> impl Future<Output = Result<HostPort, AskError>> + Send;

    /// Opens a channel into the sandbox for a viewer.
    fn open_channel(
        &self,
        session: SessionId,
        kind: StreamKind,
        viewer: AccessGrant,
    ) -> impl Future<Output = Result<ViewerChannel, AskError>> + Send;

    /// Ends what runs of a session, removes what lies around, then looks: what is left.
    fn tear_down(
        &self,
        sandbox: SandboxRecord,
    ) -> impl Future<Output = Result<Vec<Leftover>, NodeError>> + Send;

    /// Stops serving a session: a runner that is still there has to end by itself. What was only
    /// prepared is undone.
    fn close(&self, session: SessionId);

    /// Gives a session's user back. Only when it is stored that nothing is left of the session: a later
    /// controller would otherwise tear down what another session runs.
    fn release(&self, session: SessionId);

    /// How many bytes of memory sandboxes that wait for a session may take together from now on. None waits before
    /// this was said; those that take more are ended, behind the scenes.
    fn allow_waiting(&self, bytes: u64);

    /// The sandboxes that wait for a session.
    fn pool(&self) -> PoolFigures;

    /// Ends what waits for sessions; nothing waits any more.
    fn stop(&self) -> impl Future<Output = ()> + Send;

    /// A session's logs, as text.
    fn logs(&self, session: SessionId) -> impl Future<Output = Result<String, NodeError>> + Send;

    /// Removes the logs that are too old or too large, but not those of `live` sessions.
    fn sweep_logs(
        &self,
        keep: KeepLogs,
        live: Vec<SessionId>,
    ) -> impl Future<Output = Result<(), NodeError>> + Send;
}

/// What a running session reports, in order.
pub type Reports = mpsc::Receiver<Report>;

/// A viewer's channel into a sandbox.
pub struct ViewerChannel {
    /// What comes from the sandbox.
    pub from_sandbox: Box<dyn AsyncRead + Send + Unpin>,
    /// What goes to it.
    pub to_sandbox: Box<dyn AsyncWrite + Send + Unpin>,
    /// Comes when the viewer opened so many channels after this one that it is to be closed. Until it is
    /// dropped, the channel counts as one of theirs.
    pub evicted: Pin<Box<dyn Future<Output = ()> + Send>>,
}
