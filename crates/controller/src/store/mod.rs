//! What the controller keeps, a trait each: sessions, credentials, and who has access. What is stored is
//! durable when the call returns.

mod error;
mod sqlite;

use std::future::Future;

use anteroom_api::{Idempotency, KeyId, KeyRole, Principal};
use anteroom_confine::SessionUser;
use anteroom_session::{HolderGeneration, KeyName, SessionId, TimelineEntry};

use super::record::Record;

pub use error::StoreError;
pub use sqlite::SqliteStore;

/// All of it.
pub trait Store: SessionStore + CredentialStore + AccessStore {
    /// Writes, durably: a full disk and a read-only folder answer reads as if nothing were wrong.
    fn check(&self, now: u64) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Sessions, their timelines, and the calls that began them.
pub trait SessionStore: Clone + Send + Sync + 'static {
    /// Writes a new session, its first one-use link and by which call it began, or nothing.
    fn create(
        &self,
        record: &Record,
        link_secret: &str,
        idempotency: Option<&Idempotency>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The session that a call with this key began, and the hash of that call's body.
    fn begun_by(
        &self,
        call: &Idempotency,
        now: u64,
    ) -> impl Future<Output = Result<Option<(SessionId, Vec<u8>)>, StoreError>> + Send;

    /// Writes a session's state, and the entries that its history has got since, or neither.
    fn save(
        &self,
        record: &Record,
        entries: &[TimelineEntry],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// A session with its history.
    fn load(
        &self,
        id: SessionId,
    ) -> impl Future<Output = Result<Option<Record>, StoreError>> + Send;

    /// The last thousand sessions, newest first, without their history. One that cannot be read is
    /// logged and left out: it must not hide the others.
    fn all(&self) -> impl Future<Output = Result<Vec<Record>, StoreError>> + Send;

    /// Who a session's processes run as, of one that may be unreadable otherwise.
    fn user_of(
        &self,
        id: SessionId,
    ) -> impl Future<Output = Result<Option<SessionUser>, StoreError>> + Send;

    /// Sessions that an earlier controller left unfinished, or of which something is left.
    fn unfinished(&self) -> impl Future<Output = Result<Vec<SessionId>, StoreError>> + Send;

    /// Removes what is expired at `now`, and finished sessions begun before `before` that have no
    /// credential; says how many. Both in milliseconds since the Unix epoch.
    fn forget(&self, before: u64, now: u64)
    -> impl Future<Output = Result<u64, StoreError>> + Send;

    /// Adds to the history of a session that has no task.
    fn add_entry(
        &self,
        session: SessionId,
        entry: &TimelineEntry,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Sealed credentials.
pub trait CredentialStore: Clone + Send + Sync + 'static {
    /// Makes a sealed credential durable.
    fn put_credential(
        &self,
        session: SessionId,
        sealed: &[u8],
        recipient: &str,
        now: u64,
    ) -> impl Future<Output = Result<(), StoreError>> + Send;

    /// The sealed credential.
    fn credential(
        &self,
        session: SessionId,
    ) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send;

    /// Whether credentials sealed to this key are stored.
    fn has_credentials_of_vault(&self) -> impl Future<Output = Result<bool, StoreError>> + Send;
}

/// Who has access: callers by keys, end users by links.
pub trait AccessStore: KeyStore + HolderStore {}

impl<T: KeyStore + HolderStore> AccessStore for T {}

/// API keys: their hashes, names and times.
pub trait KeyStore: Clone + Send + Sync + 'static {
    /// Whose key this is. The look-up is by hash, so its time says nothing about the key.
    fn api_key(
        &self,
        key: &str,
    ) -> impl Future<Output = Result<Option<Principal>, StoreError>> + Send;

    /// Every key, by name.
    fn api_keys(&self) -> impl Future<Output = Result<Vec<KeptKey>, StoreError>> + Send;

    /// Keeps a key under a new name; `false` when there is one of that name.
    fn add_api_key(
        &self,
        name: &KeyName,
        role: KeyRole,
        key: &str,
        now: u64,
    ) -> impl Future<Output = Result<bool, StoreError>> + Send;

    /// Keeps another key with the same role under a name; the one before it and the role, or `None`
    /// when no key has that name.
    fn rotate_api_key(
        &self,
        name: &str,
        key: &str,
        now: u64,
    ) -> impl Future<Output = Result<Option<(KeyId, KeyRole)>, StoreError>> + Send;

    /// Forgets a key; which it was, or `None` when no key has that name.
    fn remove_api_key(
        &self,
        name: &str,
    ) -> impl Future<Output = Result<Option<KeyId>, StoreError>> + Send;

    /// Keeps when keys were last used.
    fn keys_were_used(
        &self,
        used: &[(KeyId, u64)],
    ) -> impl Future<Output = Result<(), StoreError>> + Send;
}

/// Who may view a session: the holder of its newest link, or of the cookie that it was exchanged for.
pub trait HolderStore: Clone + Send + Sync + 'static {
    /// Begins a generation: with a link, or with none.
    fn begin_generation(
        &self,
        session: SessionId,
        link: Option<&str>,
        now: u64,
        expires_at: u64,
    ) -> impl Future<Output = Result<HolderGeneration, StoreError>> + Send;

    /// Uses up a link and admits its viewer, in one transaction.
    fn exchange(
        &self,
        session: SessionId,
        link: &str,
        cookie: &str,
        now: u64,
    ) -> impl Future<Output = Result<Exchanged, StoreError>> + Send;

    /// What a viewer's cookie is, if it was given for this session and is not expired.
    fn cookie(
        &self,
        session: SessionId,
        cookie: &str,
        now: u64,
    ) -> impl Future<Output = Result<Option<Cookie>, StoreError>> + Send;
}

/// A key as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptKey {
    /// The id of the key.
    pub id: KeyId,
    /// As it was named.
    pub name: KeyName,
    /// What it may.
    pub role: KeyRole,
    /// When it was made, or made anew, in milliseconds since the Unix epoch.
    pub created_at: u64,
    /// When it was last used.
    pub last_used_at: Option<u64>,
}

/// A cookie that was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cookie {
    /// Of the newest generation.
    Good(HolderGeneration),
    /// Of an earlier one, which was revoked at this time.
    Revoked(u64),
}

/// What came of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchanged {
    /// Its viewer is admitted.
    Opened(HolderGeneration),
    /// It is none to be opened.
    Refused(Unusable),
}

/// Why a link cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It was opened at this time.
    Opened(u64),
    /// It was revoked at this time.
    Revoked(u64),
    /// It is expired, or none.
    Unknown,
}
