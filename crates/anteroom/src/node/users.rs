//! The users of sessions: each has one of its own while anything of it may be there.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_confine::SessionUser;

/// Those that are in use. Cheap to clone.
#[derive(Clone, Default)]
pub struct Users(Arc<Mutex<HashSet<SessionUser>>>);

impl Users {
    /// One that nobody has; `None` when all are in use.
    pub fn lease(&self) -> Option<Lease> {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let user = SessionUser::unused(|user| taken.contains(&user))?;
        taken.insert(user);
        Some(Lease { user, users: self.clone() })
    }

    /// Keeps one for the session that its record names it for.
    pub fn keep(&self, user: SessionUser) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(user);
    }

    /// Lets others have it again: nothing is left of its session.
    pub fn free(&self, user: SessionUser) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&user);
    }

    #[cfg(test)]
    pub fn has_leased(&self, user: SessionUser) -> bool {
        self.0.lock().unwrap().contains(&user)
    }
}

/// A user that nothing runs as yet; free again when dropped.
pub struct Lease {
    user: SessionUser,
    users: Users,
}

impl Lease {
    /// Who.
    pub fn user(&self) -> SessionUser {
        self.user
    }

    /// Keeps it until [`Users::free`]: a session that may run as it has begun.
    pub fn keep(self) {
        std::mem::forget(self);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.users.free(self.user);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_one_session_s_until_nothing_of_it_is_left() {
        let users = Users::default();
        let first = users.lease().unwrap();
        let second = users.lease().unwrap();
        assert_ne!(first.user(), second.user());
        let (refused, begun) = (first.user(), second.user());
        drop(first);
        second.keep();
        assert!(!users.has_leased(refused) && users.has_leased(begun));
        users.free(begun);
        assert!(!users.has_leased(begun));
        users.keep(begun);
        assert!(users.has_leased(begun));
    }
}
