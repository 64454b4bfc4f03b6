//! What travels. Names are camelCase on the wire; states and codes are the session crate's.

pub use anteroom_session::CodeTaken;
use anteroom_session::{
    Accelerator, AccessGrant, Actor, Confined, DriverKind, EgressVerdict, Isolation, Leftover,
    Method, OpenableBy, StateName, TimelineEntry, View,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of `POST /api/auth/start`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartRequest {
    /// The tool to sign in to: the id of a provider file.
    #[schema(example = "demo")]
    pub provider: String,
    /// The caller's own id of the end user, 1 to 128 printable ASCII characters without space and `/`.
    pub user_id: Option<String>,
    /// The age X25519 recipient (`age1…`) to seal the credential to. Without it the credential is sealed
    /// to the vault, which the operator can open; providers whose terms forbid that require a recipient.
    pub recipient: Option<String>,
    /// Time to live of the session in seconds, from its start or its last heartbeat; 900 by default.
    #[schema(minimum = 60, maximum = 3600)]
    pub ttl_seconds: Option<u64>,
    /// How the end user signs in: `auto` (the default: the first method in the provider file), `browser`
    /// (on the streamed desktop), `paste_code` (in their own browser; they bring back the code that the
    /// last page shows) or `device_code` (in their own browser; they enter the code in `awaiting` on
    /// the page).
    #[schema(example = "auto")]
    pub method: Option<String>,
    /// The end user's language for the browser and the tool, as a BCP 47 tag.
    #[schema(example = "de-AT")]
    pub locale: Option<String>,
    /// The end user's time zone, as an IANA name.
    #[schema(example = "Europe/Vienna")]
    pub time_zone: Option<String>,
    /// Files to write into the sandbox before anything starts there.
    #[serde(default)]
    pub files: Vec<StartFile>,
}

/// A file to write into the sandbox.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartFile {
    /// An absolute path, or `~/…` for the home directory of the sandbox's user.
    pub path: String,
    /// The file's owner: `person` (the default, the sandbox's user) or `root`.
    pub owner: Option<String>,
    /// Permission bits as a decimal number; 384 (0o600) by default.
    pub mode: Option<u32>,
    /// The file's text, at most 1 MiB; the whole request is at most 12 MiB.
    pub content: String,
}

/// The response of `POST /api/auth/start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartAnswer {
    /// Always `true`; a failure is a problem document.
    pub success: bool,
    /// The new session's id, a UUID.
    pub session_id: String,
    /// The provider's id, as in the request.
    pub provider: String,
    /// How the end user signs in.
    pub method: Method,
    /// Address of the sandbox's own network interface, in 10.213.0.0/16. It cannot be reached
    /// from outside the sandbox; the end user opens `viewerUrl`.
    #[serde(rename = "browserIP")]
    pub browser_ip: String,
    /// A one-use link for the end user; the secret is in its fragment.
    pub viewer_url: String,
    /// The session's state.
    pub state: StateName,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// The session's id, a UUID.
    pub session_id: String,
    /// The provider's id.
    pub provider: String,
    /// The provider's display name.
    pub provider_name: String,
    /// The `userId` of the start call.
    pub user_id: Option<String>,
    /// Who started the session: `{"kind":"caller","key":"deploy"}`, with the name of the API key. Null for
    /// sessions that an earlier version of Anteroom started.
    pub started_by: Option<Actor>,
    /// The session's state.
    pub state: StateName,
    /// Why the session ended; null until then.
    pub reason: Option<Reason>,
    /// Why the session's end could not be stored; absent unless so. It is stored when that works again; if the
    /// controller stops before, the session's reason is `controller_stopped` afterwards.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub end_not_stored: Option<String>,
    /// When the session was created, in milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When the time to live expires, in milliseconds since the Unix epoch.
    pub deadline: u64,
    /// When the session ends unless the end user becomes active, in milliseconds since the Unix epoch; set
    /// only while it is their turn and after they have opened their link.
    pub idle_deadline: Option<u64>,
    /// What boots the sandbox.
    pub driver: DriverKind,
    /// What executes guest code; null until the sandbox runs.
    pub accelerator: Option<Accelerator>,
    /// What isolates the sandbox from the host.
    pub isolation: Isolation,
    /// Whether the guest is emulated, which is slow and isolates it weakly. Null until the sandbox runs.
    pub emulated: Option<bool>,
    /// What confines the session's processes on the host, as the kernel reports it: `sandbox` (the VMM, or
    /// the agent with the `host` driver), `runner`, and `missing` (what this machine cannot provide, with
    /// the cause). Null until it has been read.
    pub confinement: Option<Confined>,
    /// Address of the sandbox's own network interface, which cannot be reached from outside the sandbox.
    #[serde(rename = "browserIP")]
    pub browser_ip: String,
    /// The tool's sign-in URL, while it waits for the end user.
    pub sign_in_url: Option<String>,
    /// What the end user has to do, one or two sentences.
    pub instructions: String,
    /// How the end user signs in.
    pub method: Method,
    /// Why this method, one sentence.
    pub method_reason: String,
    /// What the end user has to do, while the state is `awaiting_user`.
    pub awaiting: Option<AwaitingView>,
    /// The session's credential.
    pub credential: CredentialView,
    /// The hosts that the sandbox reached or was refused.
    pub egress: Vec<EgressEntry>,
    /// The state of the teardown; null until the session ends.
    pub teardown: Option<TeardownState>,
    /// What a check still found on the machine after the teardown.
    pub leftovers: Vec<Leftover>,
    /// The session's events, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// Who opened which view of the sandbox, oldest first.
    pub visits: Vec<Visit>,
}

/// A view of a sandbox that somebody opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Visit {
    /// When it was opened, in milliseconds since the Unix epoch.
    pub at: u64,
    /// `link` (exchanged for the viewer's cookie), `picture`, `terminal` or `vnc`.
    pub opened: View,
    /// Who opened it: `{"by":"link","generation":1}` (the session's first link), or
    /// `{"by":"api_key","key":"deploy"}`.
    pub viewer: AccessGrant,
}

/// What the end user has to do in their turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwaitingView {
    /// How the end user signs in.
    pub method: Method,
    /// The page to sign in on; null where the tool shows a prompt that its provider file does not
    /// describe.
    pub url: Option<String>,
    /// With `device_code`: the code that the page asks for.
    pub code: Option<String>,
    /// Whether the code that the last page shows must be sent back (`POST …/code`).
    pub takes_code: bool,
    /// The lines that the tool's terminal shows, where there is no page.
    pub screen: Vec<String>,
    /// What the end user has to do, one or two sentences.
    pub instructions: String,
    /// When the turn ends, in milliseconds since the Unix epoch: the session's time to live expires or the
    /// tool itself gives up, whichever comes first; the former once the
    /// tool waits longer than it was expected to.
    pub deadline: u64,
}

/// A code that the end user brings back.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// The code, as the last page of the sign-in shows it.
    #[schema(min_length = 1, max_length = 4096)]
    pub code: String,
}

/// A host to allow for one session.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowHost {
    /// A host that this session was refused, with its port unless that is 80 or 443.
    #[schema(min_length = 1, max_length = 259, example = "acme.okta.example")]
    pub host: String,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reason {
    /// A stable code; `docs/reference/problems.md` lists all of them.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// The values of the sentence.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}

/// A session's credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialView {
    /// Whether the credential is sealed and stored.
    pub status: CredentialState,
    /// Who can open the sealed credential.
    pub openable_by: OpenableBy,
    /// The age recipient that the credential is or will be sealed to.
    pub recipient: String,
    /// The files that the credential may contain, relative to the home directory; with a `*` where a name is
    /// known only afterwards.
    pub files: Vec<String>,
    /// What the provider's terms say about who may hold the credential; absent if the provider file names no
    /// terms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terms: Option<TermsView>,
}

/// Whether there is a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialState {
    /// There is no credential, yet or at all.
    None,
    /// The credential is sealed and stored.
    Sealed,
}

/// Who may hold a credential, according to its provider's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Custody {
    /// Only the recipient.
    RecipientOnly,
    /// Also the operator, in the vault.
    Vault,
}

/// The state of the teardown of an ended session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TeardownState {
    /// The teardown is running.
    TearingDown,
    /// The teardown ran and the machine was checked; see `leftovers`.
    TornDown,
}

/// What a provider's terms say about who may hold a credential, as somebody read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TermsView {
    /// The URL of the terms.
    pub page: String,
    /// The day on which they were read, such as `2026-11-27`.
    pub read: String,
    /// Who may hold the credential.
    pub custody: Custody,
    /// Whether the operator allows the vault nevertheless (`serve --allow-vault-custody`).
    pub overridden: bool,
}

/// A host that the sandbox requested.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressEntry {
    /// The host's name.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// What the egress gate decided.
    pub verdict: EgressVerdict,
    /// How many connections had this verdict.
    pub connections: u64,
    /// Bytes sent by the sandbox.
    pub bytes_up: u64,
    /// Bytes sent to the sandbox.
    pub bytes_down: u64,
    /// Why the last of these connections was refused or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// A server-sent event (`text/event-stream`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SessionEvent {
    /// Always `session`.
    pub event: String,
    /// The session as JSON, as its GET returns it ([`SessionView`], or [`EndUserSessionView`] to a viewer).
    #[schema(content_media_type = "application/json")]
    pub data: String,
}

/// An item of `GET /api/sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionSummary {
    /// The session's id, a UUID.
    pub session_id: String,
    /// The provider's id.
    pub provider: String,
    /// The session's state.
    pub state: StateName,
    /// The code of the reason; null until the session ends.
    pub reason: Option<String>,
    /// The age recipient that the credential is or will be sealed to.
    pub recipient: String,
    /// When the session was created, in milliseconds since the Unix epoch.
    pub created_at: u64,
}

/// The tool's sign-in URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OAuthUrl {
    /// The URL, as the tool gave it.
    pub url: String,
}

/// The response of `GET …/credentials/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// The session's state.
    pub state: StateName,
    /// The session's credential.
    pub credential: CredentialView,
}

/// A new link for the end user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ViewerLink {
    /// A one-use link for the end user; the secret is in its fragment.
    pub viewer_url: String,
}

/// A WebRTC offer or answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionDescription {
    /// `offer` or `answer`.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    pub kind: SdpType,
    /// The session description (SDP).
    pub sdp: String,
}

/// The body of `POST /api/viewer/exchange`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exchange {
    /// The session's id.
    pub session_id: String,
    /// The secret: the fragment of the link.
    pub secret: String,
}

/// The side of a WebRTC negotiation that a description is from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SdpType {
    /// The viewer's offer.
    Offer,
    /// The session's answer.
    Answer,
}

/// A session as its end user may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EndUserSessionView {
    /// The session's id, a UUID.
    pub session_id: String,
    /// The tool to sign in to.
    pub provider: Named,
    /// Who operates this server.
    pub operator: Named,
    /// The session's state.
    pub state: StateName,
    /// Why the session ended; null until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The session's events, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// The views of the sandbox that others than the requester opened, oldest first.
    pub visits_of_others: Vec<Visit>,
    /// When the session was created, in milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When the time to live expires, in milliseconds since the Unix epoch.
    pub deadline: u64,
    /// When the session ends unless the end user becomes active, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_deadline: Option<u64>,
    /// The server's clock, in milliseconds since the Unix epoch, because the viewer's may be wrong.
    pub server_now: u64,
    /// Whether the guest is emulated, which is slow and isolates it weakly. Null until the sandbox runs.
    pub emulated: Option<bool>,
    /// What isolates the sandbox from the host.
    pub isolation: Isolation,
    /// The session's credential.
    pub credential: CredentialView,
    /// The host of the sign-in page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_in_url_host: Option<String>,
    /// What the end user has to do, one or two sentences.
    pub instructions: String,
    /// How the end user signs in.
    pub method: Method,
    /// What the end user has to do, while the state is `awaiting_user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaiting: Option<AwaitingView>,
    /// The state of the teardown; null until the session ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teardown: Option<TeardownState>,
    /// What a check still found on the machine after the teardown.
    pub leftovers: Vec<Leftover>,
}

/// An id with a display name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Named {
    /// The id; empty where there is none.
    pub id: String,
    /// The display name.
    pub name: String,
}

/// What an API key is allowed to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyRole {
    /// Start, read and end sessions.
    Caller,
    /// Also manage API keys.
    Admin,
}

impl From<KeyRole> for &'static str {
    fn from(role: KeyRole) -> Self {
        match role {
            KeyRole::Caller => "caller",
            KeyRole::Admin => "admin",
        }
    }
}

impl std::str::FromStr for KeyRole {
    type Err = UnknownRole;

    fn from_str(text: &str) -> Result<Self, UnknownRole> {
        [Self::Caller, Self::Admin]
            .into_iter()
            .find(|role| <&str>::from(*role) == text)
            .ok_or(UnknownRole)
    }
}

/// A text that names no role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key's role must be caller or admin")]
pub struct UnknownRole;

/// The body of `POST /api/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewKey {
    /// The key's name: 1 to 64 letters, digits, `-`, `_` and `.`.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$", example = "deploy")]
    pub name: String,
    /// The key's role; `caller` by default.
    pub role: Option<KeyRole>,
}

/// A new API key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MadeKey {
    /// The key's name.
    pub name: String,
    /// The key's role.
    pub role: KeyRole,
    /// The key itself, which is returned only here.
    pub key: String,
}

/// An API key, without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// The key's name. `cli` is the key of the command line on the controller's machine, and `ready-file`
    /// the one that `--ready-file` gets; both are replaced at each start.
    pub name: String,
    /// The key's role.
    pub role: KeyRole,
    /// When the key was created or last rotated, in milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When the key was last used, in milliseconds since the Unix epoch; null if never.
    pub last_used_at: Option<u64>,
}

/// The response of `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Health {
    /// Always `true`: the process responds.
    pub live: bool,
    /// Whether the controller can start sessions.
    pub ready: bool,
    /// Why it cannot, one sentence each.
    pub reasons: Vec<String>,
}
