//! What was there when the person's turn began: it is not what their sign-in leaves.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;

use super::watch::{Look, Watched};

/// How soon after its address a tool ends that waits for nobody.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What was seen of the files around the beginning of the person's turn.
#[derive(Default)]
pub(super) struct Turn {
    /// What was there when the tool last showed an address.
    at_address: RefCell<Option<Look>>,
    began: RefCell<Option<Began>>,
    /// What was found last that was no sign-in.
    rejected: RefCell<Option<Look>>,
}

/// The person's turn began.
struct Began {
    at: Instant,
    /// What was there then.
    before: Look,
}

impl Watched {
    /// The tool gives its address: what is there now is not what the person's sign-in leaves.
    pub fn turn_begins(&self) {
        if !self.has_begun() {
            self.begins_with(self.look());
        }
    }

    fn has_begun(&self) -> bool {
        self.turn.began.borrow().is_some()
    }

    fn begins_with(&self, before: Look) {
        self.turn.began.replace(Some(Began { at: Instant::now(), before }));
    }

    /// An address stands on the terminal. Whether it is the one, the host says when it has read it: by
    /// then the tool may have written already.
    pub fn address_shown(&self) {
        if !self.has_begun() {
            self.turn.at_address.replace(Some(self.look()));
        }
    }

    /// The host has read the address: the person's turn began when it was shown.
    pub fn turn_began(&self) {
        match self.turn.at_address.take() {
            Some(look) if !self.has_begun() => self.begins_with(look),
            _ => self.turn_begins(),
        }
    }

    /// Whether a sign-in may have left this: it was not there when the person's turn began. A tool that
    /// gives no address had nobody's turn.
    pub fn counts(&self, look: &Look) -> bool {
        if self.is_reported_otherwise() {
            return true;
        }
        let is_rejected = self.turn.rejected.borrow().as_ref() == Some(look);
        (self.has_begun() || self.reports()) && !is_rejected && self.before(look).is_none()
    }

    /// Whether a tool that ends now leaves just what was there when the person's turn began. Of one that
    /// ends at once it was not seen which came first, its address or its files.
    pub fn is_left_as_it_was(&self, look: &Look) -> bool {
        let began = self.before(look).filter(|_| !self.is_reported_otherwise());
        began.is_some_and(|began| began.elapsed() > AT_ONCE)
    }

    /// When the person's turn began, if just this was there then.
    fn before(&self, look: &Look) -> Option<Instant> {
        let began = self.turn.began.borrow();
        began.as_ref().filter(|began| began.before == *look).map(|began| began.at)
    }

    fn is_reported_otherwise(&self) -> bool {
        self.is_empty() || self.awaits_print
    }

    /// What was found was no sign-in.
    pub fn waits_for_another(&self, look: Look) {
        self.turn.rejected.replace(Some(look));
    }
}
