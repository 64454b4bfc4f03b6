//! What travels. Names are camelCase on the wire; states and codes are the session crate's.

pub use anteroom_session::CodeTaken;
use anteroom_session::{
    Accelerator, Actor, Confined, DriverKind, EgressVerdict, Isolation, Leftover, Method,
    OpenableBy, StateName, TimelineEntry, View, Viewer,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// `POST /api/auth/start`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartRequest {
    /// Which CLI: the id of a provider file.
    #[schema(example = "demo")]
    pub provider: String,
    /// Whose credential it will be, in the caller's words.
    pub user_id: Option<String>,
    /// The age X25519 key (`age1…`) to seal to. Without it the vault's own is used, which the
    /// operator can open; providers whose terms forbid that need a recipient.
    pub recipient: Option<String>,
    /// How long the session may live from its start, or from the last heartbeat; 900 when left out.
    #[schema(minimum = 60, maximum = 3600)]
    pub ttl_seconds: Option<u64>,
    /// How the end user signs in: `auto` (the default: of the provider's ways the one that needs them
    /// least), `browser` (on the streamed desktop), `paste_code` (where they like; they bring back the
    /// code that the last page shows) or `device_code` (where they like; they give the page the code
    /// of `awaiting`).
    #[schema(example = "auto")]
    pub method: Option<String>,
    /// The end user's language for browser and tool, as BCP 47 names it.
    #[schema(example = "de-AT")]
    pub locale: Option<String>,
    /// Their time zone, by a name that IANA has.
    #[schema(example = "Europe/Vienna")]
    pub time_zone: Option<String>,
    /// Files to put into the guest before anything starts there.
    #[serde(default)]
    pub files: Vec<StartFile>,
}

/// A file to put into the guest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartFile {
    /// Absolute, or `~/…` for the guest user's home.
    pub path: String,
    /// `person` (default) or `root`.
    pub owner: Option<String>,
    /// Permission bits as a number; 384 (0o600) when left out.
    pub mode: Option<u32>,
    /// The text, at most 1 MiB; all of a request's files fit into its 12 MiB.
    pub content: String,
}

/// Answer of `POST /api/auth/start`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartAnswer {
    /// Always true: a failure is a problem document.
    pub success: bool,
    /// The new session.
    pub session_id: String,
    /// As asked for.
    pub provider: String,
    /// How the end user signs in.
    pub method: Method,
    /// Address of the sandbox's own network interface, in 10.213.0.0/16. Nothing outside of the sandbox can
    /// reach it: the way in for the end user is `viewerUrl`.
    #[serde(rename = "browserIP")]
    pub browser_ip: String,
    /// One-use link for the end user; the secret is in its fragment.
    pub viewer_url: String,
    /// Where it stands.
    pub state: StateName,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionView {
    /// Its id.
    pub session_id: String,
    /// Which CLI.
    pub provider: String,
    /// The CLI's name for people.
    pub provider_name: String,
    /// As the caller gave it.
    pub user_id: Option<String>,
    /// Who started it: `{"kind":"caller","key":"deploy"}`, the API key by its name. Null of sessions
    /// that an earlier version started.
    pub started_by: Option<Actor>,
    /// Where it stands.
    pub state: StateName,
    /// Why it ended.
    pub reason: Option<Reason>,
    /// Milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When its time to live is over, in milliseconds since the Unix epoch.
    pub deadline: u64,
    /// When it ends unless the end user does something, in milliseconds since the Unix epoch; only in
    /// their turn and once they came.
    pub idle_deadline: Option<u64>,
    /// What its sandbox is made with.
    pub driver: DriverKind,
    /// What executes guest code; not known before the sandbox runs.
    pub accelerator: Option<Accelerator>,
    /// What stands between the sandbox and the host.
    pub isolation: Isolation,
    /// Whether the guest is emulated, and so slow and weakly isolated.
    pub emulated: bool,
    /// What holds the session's processes on the host, as the kernel reports it: `sandbox` (the VMM, or the agent
    /// with the `host` driver), `runner`, and `missing`, what is missing and why. Null until it was
    /// read.
    pub confinement: Option<Confined>,
    /// Address of the sandbox's own network interface, which nothing outside of the sandbox can reach.
    #[serde(rename = "browserIP")]
    pub browser_ip: String,
    /// The CLI's sign-in URL, while it waits for the end user.
    pub sign_in_url: Option<String>,
    /// What the end user has to do.
    pub instructions: String,
    /// How the end user signs in.
    pub method: Method,
    /// Why in this way.
    pub method_reason: String,
    /// What the end user has to do, while the state is `awaiting_user`.
    pub awaiting: Option<AwaitingView>,
    /// The credential.
    pub credential: CredentialView,
    /// What the guest reached and was refused.
    pub egress: Vec<EgressEntry>,
    /// How far teardown is, once the session ended.
    pub teardown: Option<TeardownState>,
    /// What was still found on the machine after the teardown.
    pub leftovers: Vec<Leftover>,
    /// What happened, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// Who opened what of the sandbox, oldest first.
    pub visits: Vec<Visit>,
}

/// Something of a sandbox that was opened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Visit {
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// `link` (it was exchanged for its cookie), `picture`, `terminal` or `vnc`.
    pub opened: View,
    /// `{"by":"link","generation":1}` (the link that was made first), or `{"by":"api_key","key":"deploy"}`.
    pub viewer: Viewer,
}

/// The end user's turn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AwaitingView {
    /// How the end user signs in.
    pub method: Method,
    /// The page to sign in on; absent where the tool asks something that its provider file does not
    /// know.
    pub url: Option<String>,
    /// With `device_code`: what the page asks for.
    pub code: Option<String>,
    /// Whether the code that the last page shows is to be brought back (`POST …/code`).
    pub takes_code: bool,
    /// Without a page: what the tool's terminal shows.
    pub screen: Vec<String>,
    /// What to do, one or two sentences.
    pub instructions: String,
    /// Until when, in milliseconds since the Unix epoch: the session's time is over, or the tool gives up
    /// by itself, whichever comes first. Once the tool's time has passed and it still waits, the session's.
    pub deadline: u64,
}

/// A code that the end user brings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct Code {
    /// As the last page of the sign-in shows it.
    #[schema(min_length = 1, max_length = 4096)]
    pub code: String,
}

/// A host that the operator allows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct AllowHost {
    /// Its name: one that this session was refused, with its port where that is neither 80 nor 443.
    #[schema(min_length = 1, max_length = 259, example = "acme.okta.example")]
    pub host: String,
}

/// Why a session ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Reason {
    /// Stable machine name; `docs/reference/problems.md` lists them.
    pub code: String,
    /// One sentence for an end user.
    pub message: String,
    /// The values behind it.
    #[schema(value_type = Object)]
    pub detail: serde_json::Value,
}

/// A session's credential.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialView {
    /// Whether there is one.
    pub status: CredentialState,
    /// Who can open it.
    pub openable_by: OpenableBy,
    /// The age recipient it is or will be sealed to.
    pub recipient: String,
    /// The files that may come out of it, from the home on; with a `*` where their names are known only
    /// afterwards.
    pub files: Vec<String>,
    /// What the provider's terms say of who may hold it; absent where its file names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terms: Option<TermsView>,
}

/// Whether there is a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialState {
    /// Not yet, or there never will be.
    None,
    /// It is sealed and stored.
    Sealed,
}

/// Who may hold a credential, by its provider's terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Custody {
    /// The recipient alone.
    RecipientOnly,
    /// The operator too, in the vault.
    Vault,
}

/// How far the teardown of an ended session is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum TeardownState {
    /// It runs.
    TearingDown,
    /// It ran, and the machine was looked at; see `leftovers`.
    TornDown,
}

/// What a provider's terms say of who may hold a login, as somebody read them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct TermsView {
    /// The page that was read.
    pub page: String,
    /// On which day, as `2026-11-27`.
    pub read: String,
    /// Who may hold the credential.
    pub custody: Custody,
    /// Whether it is sealed to the vault all the same, by the operator's own word.
    pub overridden: bool,
}

/// A host the guest asked for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct EgressEntry {
    /// Host name.
    pub host: String,
    /// Port.
    pub port: u16,
    /// What the egress gate decided.
    pub verdict: EgressVerdict,
    /// Connections of this kind.
    pub connections: u64,
    /// Bytes from the guest.
    pub bytes_up: u64,
    /// Bytes to the guest.
    pub bytes_down: u64,
    /// Why the last of them was refused or failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
}

/// An event of the server-sent streams, as their format (`text/event-stream`) has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct SessionEvent {
    /// Always `session`.
    pub event: String,
    /// JSON: what a GET of the session gives ([`SessionView`], or [`ViewerView`] to a viewer).
    #[schema(content_media_type = "application/json")]
    pub data: String,
}

/// A line of `GET /api/sessions`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SessionSummary {
    /// Its id.
    pub session_id: String,
    /// Which CLI.
    pub provider: String,
    /// Where it stands.
    pub state: StateName,
    /// The reason's code, once ended.
    pub reason: Option<String>,
    /// The age recipient that its credential is or will be sealed to.
    pub recipient: String,
    /// Milliseconds since the Unix epoch.
    pub created_at: u64,
}

/// The CLI's sign-in URL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OAuthUrl {
    /// The URL.
    pub url: String,
}

/// Answer of `/credentials/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CredentialStatus {
    /// Where the session stands.
    pub state: StateName,
    /// The credential.
    pub credential: CredentialView,
}

/// A new viewer link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ViewerLink {
    /// One-use link; the secret is in its fragment.
    pub viewer_url: String,
}

/// A WebRTC offer or answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionDescription {
    /// Which of the two.
    #[serde(rename = "type")]
    #[schema(rename = "type")]
    pub kind: SdpType,
    /// SDP.
    pub sdp: String,
}

/// `POST /api/viewer/exchange`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exchange {
    /// The session.
    pub session_id: String,
    /// The link's fragment.
    pub secret: String,
}

/// Which side of a WebRTC negotiation a description is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SdpType {
    /// What a viewer asks for.
    Offer,
    /// What the session gives.
    Answer,
}

/// A session as its viewer may see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ViewerView {
    /// Its id.
    pub session_id: String,
    /// Which tool.
    pub provider: Named,
    /// Who runs this Anteroom.
    pub operator: Named,
    /// Where it stands.
    pub state: StateName,
    /// Why it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// What happened, oldest first.
    pub timeline: Vec<TimelineEntry>,
    /// What of the sandbox was opened by others than whoever asks, oldest first.
    pub visits_of_others: Vec<Visit>,
    /// Milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When its time to live is over, in milliseconds since the Unix epoch.
    pub deadline: u64,
    /// When it ends unless the end user does something, in milliseconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_deadline: Option<u64>,
    /// The host's clock, in milliseconds since the Unix epoch: the viewer's may be wrong.
    pub server_now: u64,
    /// Whether the guest is emulated.
    pub emulated: bool,
    /// What stands between the sandbox and the host.
    pub isolation: Isolation,
    /// Who can open the credential.
    pub credential: CredentialView,
    /// Host name of the sign-in page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sign_in_url_host: Option<String>,
    /// What the end user has to do.
    pub instructions: String,
    /// How they sign in.
    pub method: Method,
    /// Their turn, while the state is `awaiting_user`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub awaiting: Option<AwaitingView>,
    /// How far teardown is, once the session ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub teardown: Option<TeardownState>,
    /// What was still found after the teardown.
    pub leftovers: Vec<Leftover>,
}

/// Something with a name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Named {
    /// Machine name; empty where there is none.
    pub id: String,
    /// For people.
    pub name: String,
}

/// What an API key may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyRole {
    /// Everything about sessions.
    Caller,
    /// That, and managing keys.
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

/// `POST /api/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewKey {
    /// What it is called: 1 to 64 letters, digits, `-`, `_` and `.`.
    #[schema(pattern = "^[A-Za-z0-9._-]{1,64}$", example = "deploy")]
    pub name: String,
    /// What it may; `caller` when left out.
    pub role: Option<KeyRole>,
}

/// A key that was just made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct MadeKey {
    /// As it is called.
    pub name: String,
    /// What it may.
    pub role: KeyRole,
    /// The key itself, shown this once.
    pub key: String,
}

/// A key, without itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct KeyView {
    /// As it is called. `cli` is the command line's on the controller's machine, made anew at each
    /// start; `ready-file` that of `--ready-file`, likewise.
    pub name: String,
    /// What it may.
    pub role: KeyRole,
    /// When it was made, or made anew, in milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When it was last used.
    pub last_used_at: Option<u64>,
}

/// `GET /health`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Health {
    /// The process answers.
    pub live: bool,
    /// It can start sessions.
    pub ready: bool,
    /// Why not, one sentence each.
    pub reasons: Vec<String>,
}
