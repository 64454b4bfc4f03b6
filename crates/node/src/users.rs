//! The users of sandboxes: each has one of its own while anything of it may be there.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_confine::SessionUser;
use anteroom_vm::SandboxName;

/// Those that are in use, and whose they are. Cheap to clone.
#[derive(Clone, Default)]
pub struct Users(Arc<Mutex<HashMap<SandboxName, SessionUser>>>);

impl Users {
    /// One that nobody has; `None` when all are in use. Looks at every process of the machine.
    pub fn lease(&self, sandbox: SandboxName) -> Option<Lease> {
        let mut leased = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let user = SessionUser::unused(|user| leased.values().any(|other| *other == user))?;
        leased.insert(sandbox.clone(), user);
        Some(Lease { sandbox, user, users: self.clone() })
    }

    /// Keeps the user that a sandbox's record names.
    pub fn hold(&self, sandbox: SandboxName, user: SessionUser) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(sandbox, user);
    }

    /// Lets others have it again: nothing is left of its sandbox.
    pub fn free(&self, sandbox: &SandboxName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(sandbox);
    }

    #[cfg(test)]
    pub fn has_leased(&self, user: SessionUser) -> bool {
        self.0.lock().unwrap().values().any(|leased| *leased == user)
    }
}

/// A user that nothing runs as yet; free again when dropped.
pub struct Lease {
    sandbox: SandboxName,
    user: SessionUser,
    users: Users,
}

impl Lease {
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
        self.users.free(&self.sandbox);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_one_sandbox_s_until_nothing_of_it_is_left() {
        let users = Users::default();
        let [of_first, of_second]: [SandboxName; 2] =
            ["one", "two"].map(|name| name.parse().unwrap());
        let first = users.lease(of_first).unwrap();
        let second = users.lease(of_second.clone()).unwrap();
        assert_ne!(first.user(), second.user());
        let (refused, begun) = (first.user(), second.user());
        drop(first);
        second.keep();
        assert!(!users.has_leased(refused) && users.has_leased(begun));
        users.free(&of_second);
        assert!(!users.has_leased(begun));
        users.hold(of_second, begun);
        assert!(users.has_leased(begun));
    }
}
