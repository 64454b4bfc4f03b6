//! Calls with an `Idempotency-Key` that are being answered: the same one again must wait.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_api::Idempotency;

/// Those of now.
#[derive(Debug, Default)]
pub struct CallsInAnswer(Arc<Mutex<HashSet<[u8; 32]>>>);

/// One of them, until dropped.
#[derive(Debug)]
pub struct CallInAnswer {
    key: [u8; 32],
    calls: Arc<Mutex<HashSet<[u8; 32]>>>,
}

impl CallsInAnswer {
    /// `None` when the same call is being answered.
    pub fn enter(&self, call: &Idempotency) -> Option<CallInAnswer> {
        let mut calls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        calls.insert(call.key).then(|| CallInAnswer { key: call.key, calls: Arc::clone(&self.0) })
    }
}

impl Drop for CallInAnswer {
    fn drop(&mut self) {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let calls = CallsInAnswer::default();
        let call = Idempotency { key: [1; 32], body: [2; 32] };
        let first = calls.enter(&call);
        assert!(first.is_some() && calls.enter(&call).is_none());
        drop(first);
        assert!(calls.enter(&call).is_some());
    }
}
