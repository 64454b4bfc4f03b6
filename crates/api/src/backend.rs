//! What the API needs someone to do.

use std::future::Future;
use std::pin::Pin;

use anteroom_session::{AccessGrant, HolderGeneration, SessionId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

use crate::idempotency::Idempotency;
use crate::memory::MemoryView;
use crate::principal::Principal;
use crate::problem::Problem;
use crate::wire::{
    CodeTaken, EndUserSessionView, Health, KeyView, MadeKey, NewKey, SessionSummary, SessionView,
    StartAnswer, StartRequest,
};

/// A viewer that exchanged its link: the cookie's value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ViewerAccess {
    /// Goes into the HttpOnly cookie, nowhere else.
    pub secret: String,
    /// How long the cookie is kept, in seconds.
    pub max_age_seconds: u64,
}

/// Comes when a right is revoked; what it opened is closed then, whatever it is doing.
pub type Revoked = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A viewer's channel into a session's sandbox.
pub struct Channel {
    /// What comes from the sandbox.
    pub from_sandbox: Box<dyn AsyncRead + Send + Unpin>,
    /// What goes to it.
    pub to_sandbox: Box<dyn AsyncWrite + Send + Unpin>,
    /// When it is to be closed.
    pub revoked: Revoked,
}

/// A session that is followed.
pub struct Watched {
    /// It now and on each change.
    pub changes: watch::Receiver<SessionView>,
    /// When it may not be followed any more.
    pub revoked: Revoked,
}

/// A sign-in that begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// Now.
    Now(StartAnswer),
    /// By the same call before.
    Before(StartAnswer),
}

/// The controller, as the API sees it. What changes something is given who asks for it. A session that does not exist is `Problem::no_such_session`.
pub trait Backend: Send + Sync + 'static {
    /// Whose API key this is, if anybody's.
    fn authenticate(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<Principal>, Problem>> + Send;
    /// Every key, by name.
    fn keys(&self) -> impl Future<Output = Result<Vec<KeyView>, Problem>> + Send;
    /// Makes a key under a new name.
    fn add_key(
        &self,
        key: NewKey,
        principal: &Principal,
    ) -> impl Future<Output = Result<MadeKey, Problem>> + Send;
    /// Makes the key of a name anew; the one before it is good no more.
    fn rotate_key(
        &self,
        name: &str,
        principal: &Principal,
    ) -> impl Future<Output = Result<MadeKey, Problem>> + Send;
    /// Revokes a key, and closes what it opened.
    fn revoke_key(
        &self,
        name: &str,
        principal: &Principal,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Whose cookie this is, if it was given for this session: its link's generation. One whose link
    /// was revoked is [`ProblemCode::ViewerRevoked`](crate::ProblemCode::ViewerRevoked).
    fn holder(
        &self,
        session: SessionId,
        secret: &str,
    ) -> impl Future<Output = Result<Option<HolderGeneration>, Problem>> + Send;
    /// Starts a sign-in, or finds the one that the same call started before.
    fn start(
        &self,
        request: StartRequest,
        idempotency: Option<Idempotency>,
        principal: &Principal,
    ) -> impl Future<Output = Result<Begun, Problem>> + Send;
    /// Every session, newest first.
    fn sessions(&self) -> impl Future<Output = Result<Vec<SessionSummary>, Problem>> + Send;
    /// What the sessions take of memory, measured now.
    fn memory(&self) -> impl Future<Output = MemoryView> + Send;
    /// One session.
    fn session(&self, id: SessionId) -> impl Future<Output = Result<SessionView, Problem>> + Send;
    /// Prolongs a session's time to live; one that has ended is fine.
    fn heartbeat(
        &self,
        id: SessionId,
        principal: &Principal,
    ) -> impl Future<Output = Result<SessionView, Problem>> + Send;
    /// One session now and on each change.
    fn watch(
        &self,
        id: SessionId,
        principal: &Principal,
    ) -> impl Future<Output = Result<Watched, Problem>> + Send;
    /// The session as this viewer may see it.
    fn end_user_view(&self, session: &SessionView, viewer: &AccessGrant) -> EndUserSessionView;
    /// Ends a session; one that has ended is fine.
    fn end(
        &self,
        id: SessionId,
        principal: &Principal,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Shows the sign-in page again in the guest's browser.
    fn open_sign_in_page(
        &self,
        id: SessionId,
        principal: &Principal,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Has the CLI started that waits for the end user, who is there by the caller's word; one that was
    /// started is fine.
    fn start_tool(
        &self,
        id: SessionId,
        principal: &Principal,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Has the end user's code typed into the CLI's terminal, once the CLI asks for it.
    fn enter_code(
        &self,
        id: SessionId,
        code: String,
        principal: &Principal,
    ) -> impl Future<Output = Result<CodeTaken, Problem>> + Send;
    /// Allows a host that the session was refused.
    fn allow_host(
        &self,
        id: SessionId,
        host: String,
        principal: &Principal,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
    /// The CLI's terminal: from it what draws it, to it what is typed.
    fn terminal(
        &self,
        id: SessionId,
        principal: &Principal,
    ) -> impl Future<Output = Result<Channel, Problem>> + Send;
    /// The desktop's VNC server (RFB, RFC 6143).
    fn vnc(
        &self,
        id: SessionId,
        principal: &Principal,
    ) -> impl Future<Output = Result<Channel, Problem>> + Send;
    /// The sealed credential.
    fn credential(&self, id: SessionId) -> impl Future<Output = Result<Vec<u8>, Problem>> + Send;
    /// What may come out of the sealed credential, in an envelope (DSSE, as JSON) that the
    /// controller signs.
    fn envelope(&self, id: SessionId) -> impl Future<Output = Result<String, Problem>> + Send;
    /// What verifies envelopes: a public key in PEM.
    fn controller_key(&self) -> String;
    /// A PNG of the desktop.
    fn screenshot(&self, id: SessionId) -> impl Future<Output = Result<Vec<u8>, Problem>> + Send;
    /// Console and service logs, as text.
    fn logs(&self, id: SessionId) -> impl Future<Output = Result<String, Problem>> + Send;
    /// Answers a viewer's WebRTC offer.
    fn offer(
        &self,
        id: SessionId,
        sdp: String,
        principal: &Principal,
    ) -> impl Future<Output = Result<String, Problem>> + Send;
    /// A new one-use viewer link. The earlier ones are revoked, and what they opened is closed.
    fn viewer_link(
        &self,
        id: SessionId,
        principal: &Principal,
    ) -> impl Future<Output = Result<String, Problem>> + Send;
    /// Revokes every viewer link, and closes what they opened; also of a session that has ended.
    fn revoke_viewers(
        &self,
        id: SessionId,
        principal: &Principal,
    ) -> impl Future<Output = Result<(), Problem>> + Send;
    /// Exchanges a one-use secret for a viewer's access.
    fn exchange(
        &self,
        id: SessionId,
        secret: &str,
    ) -> impl Future<Output = Result<ViewerAccess, Problem>> + Send;
    /// What was counted, as OpenMetrics text.
    fn metrics(&self) -> String;
    /// Whether the controller can work, as far as is known: this asks nothing and nobody.
    fn health(&self) -> Health;
    /// A file of the viewer by its path (`index.html`, `assets/…`), and its media type.
    fn viewer_file(&self, path: &str) -> Option<(Vec<u8>, &'static str)>;
}
