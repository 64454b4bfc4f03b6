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

    /// The one that a session has already, which an earlier controller began.
    pub fn lease_again(&self, user: SessionUser) -> Lease {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(user);
        Lease { user, users: self.clone() }
    }
}

/// A user, until dropped.
pub struct Lease {
    user: SessionUser,
    users: Users,
}

impl Lease {
    /// Who.
    pub fn user(&self) -> SessionUser {
        self.user
    }

    /// Lets nobody else have it while this controller lives: something of the session is left.
    pub fn withdraw(self) {
        std::mem::forget(self);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.users.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.user);
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
        let (gone, left) = (first.user(), second.user());
        drop(first);
        second.withdraw();
        let taken = |user| users.0.lock().unwrap().contains(&user);
        assert!(!taken(gone) && taken(left));
        assert_eq!(users.lease_again(gone).user(), gone);
    }
}
