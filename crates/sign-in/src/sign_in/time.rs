//! What a sign-in waits for, and what is due.

use std::time::Instant;

use anteroom_guest_protocol::printable;
use anteroom_session::{EndReason, Observation};

use super::{Phase, SignIn};
use crate::{Action, End};

impl SignIn {
    /// When [`Input::Time`](crate::Input::Time) is to come next; `None` when nothing waits for time to pass.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Open => {
                let own = [self.rules.due(), self.pages.due(), self.url_deadline()];
                own.into_iter().chain([self.guard.next_deadline()]).flatten().min()
            }
            Phase::CatchingUp { by, .. } => Some(*by),
            Phase::LastOutput { still_by, by, .. } => Some(*still_by.min(by)),
            Phase::Over => None,
        }
    }

    /// Whether the terminal comes before the guest's next message, which the caller should leave where
    /// it is meanwhile. One that is handed in all the same ends the wait.
    #[must_use]
    pub fn waits_for_terminal(&self) -> bool {
        matches!(self.phase, Phase::CatchingUp { .. } | Phase::LastOutput { .. })
    }

    /// Goes on with what was waited for, as far as it has come.
    pub(super) fn settle(&mut self) -> Result<(), End> {
        match std::mem::replace(&mut self.phase, Phase::Open) {
            Phase::CatchingUp { actions, .. } => {
                // A CLI that shows that it failed has failed, whatever file it left.
                if !actions.iter().any(|action| matches!(action, Action::End(_))) {
                    self.report(Observation::CredentialFound);
                }
                self.act(actions)
            }
            Phase::LastOutput { event, over, .. } => self.cli_ended(event, over),
            other @ (Phase::Open | Phase::Over) => {
                self.phase = other;
                Ok(())
            }
        }
    }

    /// Does all that is due.
    pub(super) fn time_passed(&mut self, now: Instant) -> Result<(), End> {
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return Ok(());
        }
        if self.waits_for_terminal() {
            return self.settle();
        }
        let is_due = |due: Option<Instant>| due.is_some_and(|due| due <= now);
        if is_due(self.rules.due()) {
            let actions = self.rules.rest(&self.terminal, now);
            self.act(actions)?;
        }
        if is_due(self.pages.due()) {
            let says = self.pages.checked_for_ever();
            self.report(Observation::EndUserNotified { says });
        }
        if is_due(self.url_deadline()) {
            self.without_address()?;
        }
        self.guard.late(now).map_or(Ok(()), |reason| Err(reason.into()))
    }

    /// When the CLI must have given its address, while it is not the end user's turn yet.
    fn url_deadline(&self) -> Option<Instant> {
        self.url_by.filter(|_| self.rules.awaited().is_none())
    }

    /// The CLI had its time to give an address: what its terminal shows becomes the end user's turn.
    fn without_address(&mut self) -> Result<(), End> {
        let actions = self.rules.stuck(&self.terminal);
        if actions.is_empty() {
            let waited_ms = u64::try_from(self.url_timeout.as_millis()).unwrap_or(u64::MAX);
            let ignored = self.rules.ignored().map(printable);
            return Err(
                EndReason::NoSignInUrl { waited_ms, last_lines: Vec::new(), ignored }.into()
            );
        }
        self.act(actions)
    }
}
