//! Who makes a request, and what they may do.

use anteroom_session::{AccessGrant, Actor, HolderGeneration, KeyName, SessionId};

use crate::wire::KeyRole;

/// Which API key, by its hash: a rotated key is another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeyId(pub [u8; 32]);

/// Whoever makes a request, once they are authenticated.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// The key or the link by which they were identified.
    pub id: PrincipalId,
    /// What they may do.
    pub scopes: &'static [Scope],
}

/// Who somebody is, by what authenticated them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrincipalId {
    /// A caller of the API.
    ApiKey {
        /// Their key.
        id: KeyId,
        /// As the operator named it.
        name: KeyName,
    },
    /// The end user of a session.
    ViewerLink {
        /// Their session; they have no right to any other.
        session: SessionId,
        /// The link whose cookie they have.
        generation: HolderGeneration,
    },
}

/// Something that a principal may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Start sessions, and do everything with each of them.
    Sessions,
    /// See their own session, and sign in there.
    OwnSession,
    /// Make and revoke API keys.
    Keys,
}

impl Principal {
    /// A caller whose key has this role.
    #[must_use]
    pub fn caller(id: KeyId, name: KeyName, role: KeyRole) -> Self {
        let scopes: &[Scope] = match role {
            KeyRole::Caller => &[Scope::Sessions],
            KeyRole::Admin => &[Scope::Sessions, Scope::Keys],
        };
        Self { id: PrincipalId::ApiKey { id, name }, scopes }
    }

    /// The end user who holds the cookie of this link.
    #[must_use]
    pub fn end_user(session: SessionId, generation: HolderGeneration) -> Self {
        Self { id: PrincipalId::ViewerLink { session, generation }, scopes: &[Scope::OwnSession] }
    }

    /// Whether they may do this.
    #[must_use]
    pub fn may(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope)
    }

    /// As the session's viewer.
    #[must_use]
    pub fn viewer(&self) -> AccessGrant {
        match &self.id {
            PrincipalId::ApiKey { name, .. } => AccessGrant::ApiKey { key: name.clone() },
            PrincipalId::ViewerLink { generation, .. } => {
                AccessGrant::Link { generation: *generation }
            }
        }
    }

    /// As the one who acts on the session, which its timeline keeps.
    #[must_use]
    pub fn actor(&self) -> Actor {
        self.viewer().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_principal_may_do_what_it_was_authenticated_for() {
        let key = |role| Principal::caller(KeyId([1; 32]), "ci".parse().unwrap(), role);
        let link = Principal::end_user(SessionId::generate(), HolderGeneration::FIRST);
        let may = |principal: &Principal| {
            [Scope::Sessions, Scope::OwnSession, Scope::Keys].map(|scope| principal.may(scope))
        };
        assert_eq!(may(&key(KeyRole::Caller)), [true, false, false]);
        assert_eq!(may(&key(KeyRole::Admin)), [true, false, true]);
        assert_eq!(may(&link), [false, true, false]);
    }
}
