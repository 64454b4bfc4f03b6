//! What the tasks of a session share.

use std::rc::Rc;

use anteroom_guest_link::Opener;
use tokio::sync::watch;

use crate::check::Checker;
use crate::desktop::PendingDesktop;
use crate::guest::Guest;
use crate::sign_in::{HostSignals, Terminal};
use crate::supervise::Supervisor;

/// Cheap to clone.
#[derive(Clone)]
pub struct Context {
    pub guest: Guest,
    pub supervisor: Supervisor,
    /// Opens streams to the host that is there.
    pub opener: watch::Sender<Option<Opener>>,
    pub desktop: PendingDesktop,
    /// In a sandbox that verifies its image: who answers the host's questions.
    pub checker: watch::Sender<Option<Rc<Checker>>>,
    /// The CLI's terminal, once it has one.
    pub terminal: watch::Sender<Option<Terminal>>,
    /// What the host says once in a sign-in.
    pub signals: HostSignals,
}
