//! What was there when the end user's turn began: it is not what their sign-in leaves.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;

use super::look::Look;

/// How soon after its address a tool ends that waits for nobody.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What was seen of the files around the beginning of the end user's turn.
#[derive(Default)]
pub struct Turn {
    /// What was there when the tool last showed an address.
    at_address: RefCell<Option<Look>>,
    began: RefCell<Option<Began>>,
    /// What was found last that was no sign-in.
    rejected: RefCell<Option<Look>>,
}

/// The end user's turn began.
struct Began {
    at: Instant,
    /// What was there then.
    before: Look,
}

impl Turn {
    /// Whether it has begun.
    pub fn has_begun(&self) -> bool {
        self.began.borrow().is_some()
    }

    /// It begins with what is there, unless it has begun.
    pub fn begins(&self, now: impl FnOnce() -> Look) {
        if !self.has_begun() {
            self.begins_with(now());
        }
    }

    /// An address is shown, by which it may turn out to have begun.
    pub fn address_shown(&self, now: impl FnOnce() -> Look) {
        if !self.has_begun() {
            self.at_address.replace(Some(now()));
        }
    }

    /// It began when the last address was shown.
    pub fn began_at_address(&self, now: impl FnOnce() -> Look) {
        match self.at_address.take() {
            Some(look) if !self.has_begun() => self.begins_with(look),
            _ => self.begins(now),
        }
    }

    /// Whether this was neither there when it began nor found to be no sign-in.
    pub fn is_new(&self, look: &Look) -> bool {
        self.rejected.borrow().as_ref() != Some(look) && self.before(look).is_none()
    }

    /// Whether just this was there when it began. Of a tool that ends at once it was not seen which came
    /// first, its address or its files.
    pub fn is_left_as_it_was(&self, look: &Look) -> bool {
        self.before(look).is_some_and(|began| began.elapsed() > AT_ONCE)
    }

    /// What was found was no sign-in.
    pub fn rejects(&self, look: Look) {
        self.rejected.replace(Some(look));
    }

    fn begins_with(&self, before: Look) {
        self.began.replace(Some(Began { at: Instant::now(), before }));
    }

    /// When it began, if just this was there then.
    fn before(&self, look: &Look) -> Option<Instant> {
        let began = self.began.borrow();
        began.as_ref().filter(|began| began.before == *look).map(|began| began.at)
    }
}
