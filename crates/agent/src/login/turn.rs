//! What was there when the person's turn began: it is not what their sign-in leaves.

use std::time::Duration;

use tokio::time::Instant;

use super::credential::{Look, Watched};

/// How soon after its address a tool ends that waits for nobody.
const AT_ONCE: Duration = Duration::from_secs(2);

impl Watched {
    /// The tool gives its address: what is there now is not what the person's sign-in leaves.
    pub fn turn_begins(&self) {
        if self.before.borrow().is_none() {
            self.begins_with(self.look());
        }
    }

    fn begins_with(&self, look: Look) {
        self.before.replace(Some(look));
        self.began.set(Some(Instant::now()));
    }

    /// An address stands on the terminal. Whether it is the one, the host says when it has read it: by
    /// then the tool may have written already.
    pub fn address_shown(&self) {
        if self.before.borrow().is_none() {
            self.at_address.replace(Some(self.look()));
        }
    }

    /// The host has read the address: the person's turn began when it was shown.
    pub fn turn_began(&self) {
        match self.at_address.take() {
            Some(look) if self.before.borrow().is_none() => {
                self.begins_with(look);
            }
            _ => self.turn_begins(),
        }
    }

    /// Whether a sign-in may have left this: it was not there when the person's turn began. A tool that
    /// gives no address had nobody's turn.
    pub fn counts(&self, look: &Look) -> bool {
        if self.is_told_otherwise() {
            return true;
        }
        let has_begun = self.before.borrow().is_some();
        let is_rejected = self.rejected.borrow().as_ref() == Some(look);
        (has_begun || self.tells()) && !is_rejected && !self.was_there(look)
    }

    /// Whether a tool that ends now leaves just what was there when the person's turn began. Of one that
    /// ends at once it was not seen which came first, its address or its files.
    pub fn is_left_as_it_was(&self, look: &Look) -> bool {
        self.began.get().is_some_and(|began| began.elapsed() > AT_ONCE) && self.was_there(look)
    }

    /// Whether just this was there when the person's turn began.
    fn was_there(&self, look: &Look) -> bool {
        !self.is_told_otherwise() && self.before.borrow().as_ref() == Some(look)
    }

    fn is_told_otherwise(&self) -> bool {
        self.is_empty() || self.awaits_print
    }

    /// What was found was no sign-in.
    pub fn waits_for_another(&self, look: Look) {
        self.rejected.replace(Some(look));
    }
}
