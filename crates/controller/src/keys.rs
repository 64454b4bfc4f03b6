//! API keys: made, listed, made anew and revoked while the controller runs.
//!
//! Whose key one is, is read from the store at each request, so a revoked one is refused from then on.
//! What it opened before and is still open (events, terminals) is closed.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_api::{
    KeyId, KeyRole, KeyView, MadeKey, Principal, PrincipalId, Problem, ProblemCode,
};
use anteroom_clock::now;
use anteroom_guest_protocol::chain;
use anteroom_session::{Actor, InvalidKeyName};
use tokio::sync::watch;

use super::store::{KeptKey, Store};
use super::{not_stored, secret, unreadable};

/// How often it is stored when keys were last used: once for many requests.
const STORE_USE_EVERY: Duration = Duration::from_secs(60);

/// The controller's keys. Cheap to clone.
#[derive(Clone)]
pub struct Keys<S>(Arc<Inner<S>>);

struct Inner<S> {
    store: S,
    /// When keys were used, as far as it is not stored yet.
    used: Mutex<HashMap<KeyId, u64>>,
    /// Those that were good and are not any more, since this process began.
    revoked: watch::Sender<HashSet<KeyId>>,
}

impl<S: Store> Keys<S> {
    /// The keys of this store.
    pub fn new(store: S) -> Self {
        let keys = Self(Arc::new(Inner {
            store,
            used: Mutex::default(),
            revoked: watch::Sender::new(HashSet::new()),
        }));
        let storing = keys.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(STORE_USE_EVERY).await;
                storing.store_use().await;
            }
        });
        keys
    }

    /// Whose key this is, if anybody's.
    pub async fn authenticate(&self, key: &str) -> Result<Option<Principal>, Problem> {
        let found = self.0.store.api_key(key).await.map_err(unreadable)?;
        if let Some(PrincipalId::ApiKey { id, .. }) = found.as_ref().map(|found| &found.id) {
            self.with_used(|used| used.insert(*id, now().0));
        }
        Ok(found)
    }

    /// Comes when this key is revoked, or was.
    pub fn revoked(&self, key: KeyId) -> impl Future<Output = ()> + Send + use<S> {
        let mut revoked = self.0.revoked.subscribe();
        async move {
            if revoked.wait_for(|revoked| revoked.contains(&key)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Every key, by name.
    pub async fn list(&self) -> Result<Vec<KeyView>, Problem> {
        let kept = self.0.store.api_keys().await.map_err(unreadable)?;
        let view = |key: KeptKey| KeyView {
            last_used_at: self.with_used(|used| used.get(&key.id).copied()).or(key.last_used_at),
            name: key.name.to_string(),
            role: key.role,
            created_at: key.created_at,
        };
        Ok(kept.into_iter().map(view).collect())
    }

    /// Makes a key under a new name.
    pub async fn add(&self, name: &str, role: KeyRole, by: &Actor) -> Result<MadeKey, Problem> {
        let parsed = name.parse().map_err(|error: InvalidKeyName| {
            Problem::new(ProblemCode::InvalidValue, error.to_string())
        })?;
        let key = new_key();
        if !self.0.store.add_api_key(&parsed, role, &key, now().0).await.map_err(not_stored)? {
            let detail =
                format!("a key named {name} already exists; rotate it, or choose another name");
            return Err(Problem::new(ProblemCode::KeyExists, detail));
        }
        tracing::info!(name, role = <&str>::from(role), %by, "an API key was created");
        Ok(MadeKey { name: name.to_owned(), role, key })
    }

    /// Makes the key of a name anew; the one before it is revoked.
    pub async fn rotate(&self, name: &str, by: &Actor) -> Result<MadeKey, Problem> {
        let key = new_key();
        let before = self.0.store.rotate_api_key(name, &key, now().0).await.map_err(not_stored)?;
        let (before, role) = before.ok_or_else(|| no_such_key(name))?;
        self.close(before);
        tracing::info!(name, %by, "an API key was rotated; the earlier one is revoked");
        Ok(MadeKey { name: name.to_owned(), role, key })
    }

    /// Makes a key under a name, instead of one it may have had.
    pub async fn put(&self, name: &str, role: KeyRole, by: &Actor) -> Result<String, Problem> {
        match self.rotate(name, by).await {
            Ok(made) => Ok(made.key),
            Err(problem) if problem.code == ProblemCode::NoSuchKey => {
                Ok(self.add(name, role, by).await?.key)
            }
            Err(problem) => Err(problem),
        }
    }

    /// Revokes a key, and closes what it opened.
    pub async fn revoke(&self, name: &str, by: &Actor) -> Result<(), Problem> {
        let before = self.0.store.remove_api_key(name).await.map_err(not_stored)?;
        self.close(before.ok_or_else(|| no_such_key(name))?);
        tracing::info!(name, %by, "an API key was revoked");
        Ok(())
    }

    /// Stores when keys were last used.
    pub async fn store_use(&self) {
        let used: Vec<(KeyId, u64)> = self.with_used(|used| used.drain().collect());
        if used.is_empty() {
            return;
        }
        if let Err(error) = self.0.store.keys_were_used(&used).await {
            tracing::warn!("{}", chain(&error));
        }
    }

    fn close(&self, key: KeyId) {
        self.with_used(|used| used.remove(&key));
        self.0.revoked.send_modify(|revoked| {
            revoked.insert(key);
        });
    }

    fn with_used<T>(&self, with: impl FnOnce(&mut HashMap<KeyId, u64>) -> T) -> T {
        with(&mut self.0.used.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn new_key() -> String {
    format!("ak_{}", secret())
}

fn no_such_key(name: &str) -> Problem {
    let detail = format!("there is no key named {name:?}; `anteroom keys list` shows all keys");
    Problem::new(ProblemCode::NoSuchKey, detail)
}

#[cfg(test)]
mod tests {
    use anteroom_api::Scope;

    use super::*;

    const BY: Actor = Actor::Operator {};
    use crate::store::SqliteStore;

    fn id_of(principal: &Principal) -> KeyId {
        match &principal.id {
            PrincipalId::ApiKey { id, name } => {
                assert_eq!(name.as_str(), "deploy");
                *id
            }
            PrincipalId::ViewerLink { .. } => panic!("an API key is no link"),
        }
    }

    async fn keys() -> (tempfile::TempDir, Keys<SqliteStore>) {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&folder.path().join("a.db")).await.unwrap();
        (folder, Keys::new(store))
    }

    #[tokio::test]
    async fn a_key_is_good_until_it_is_made_anew_or_revoked() {
        let (_folder, keys) = keys().await;
        let made = keys.add("deploy", KeyRole::Caller, &BY).await.unwrap();
        let known = keys.authenticate(&made.key).await.unwrap().unwrap();
        assert!(known.may(Scope::Sessions) && !known.may(Scope::Keys));
        assert_eq!(
            keys.add("deploy", KeyRole::Admin, &BY).await.unwrap_err().code,
            ProblemCode::KeyExists
        );
        let again = keys.rotate("deploy", &BY).await.unwrap();
        keys.revoked(id_of(&known)).await;
        assert_eq!(keys.authenticate(&made.key).await.unwrap(), None);
        let known = keys.authenticate(&again.key).await.unwrap().unwrap();
        keys.revoke("deploy", &BY).await.unwrap();
        keys.revoked(id_of(&known)).await;
        assert_eq!(keys.authenticate(&again.key).await.unwrap(), None);
        assert_eq!(keys.revoke("deploy", &BY).await.unwrap_err().code, ProblemCode::NoSuchKey);
        // The name is free again, and its new key is no revoked one.
        let third = keys.add("deploy", KeyRole::Admin, &BY).await.unwrap();
        assert!(keys.authenticate(&third.key).await.unwrap().unwrap().may(Scope::Keys));
    }

    #[tokio::test]
    async fn the_list_has_names_and_times_and_no_key() {
        let (_folder, keys) = keys().await;
        let made = keys.add("ci", KeyRole::Caller, &BY).await.unwrap();
        assert_eq!(keys.list().await.unwrap()[0].last_used_at, None);
        keys.authenticate(&made.key).await.unwrap();
        let used = keys.list().await.unwrap()[0].last_used_at;
        assert!(used.is_some());
        keys.store_use().await;
        let listed = keys.list().await.unwrap();
        assert_eq!(listed[0].last_used_at, used);
        assert!(!format!("{listed:?}").contains(&made.key));
    }

    #[tokio::test]
    async fn an_invalid_name_is_refused() {
        let (_folder, keys) = keys().await;
        for name in ["", "a b", "a/b", "\u{1b}[2J", &"a".repeat(65), "é"] {
            let refused = keys.add(name, KeyRole::Caller, &BY).await.unwrap_err();
            assert_eq!(refused.code, ProblemCode::InvalidValue, "{name:?}");
        }
    }
}
