//! The order of a guest's messages, and its deadlines. Heartbeats alone do not keep a sandbox alive, and what comes out of order ends the session.
//!
//! This is the one place of these rules. The controller's state machine (`anteroom-session`) does not
//! repeat them: it ignores what means nothing in its state.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anteroom_guest_protocol::{Desktop, GuestMessage, ServiceEvent};
use anteroom_session::{EndReason, Observation, service_title};

/// Services that the end user needs before it is their turn.
const NEEDED: [&str; 3] = ["x", "window-manager", "browser"];

/// How long these may take to be ready: more than the agent gives X and the browser together, whose
/// own report explains better why they are not.
const SERVICES: Duration = Duration::from_secs(330);

/// How long after its own limit for the CLI's address the agent may take to report it. The limit
/// counts from the CLI's start, which waits for X.
const URL_GRACE: Duration = Duration::from_secs(90);

/// How long sealing a credential may take, the CLI's own check of it included: the CLI is asked twice
/// when it reports no sign-in, a minute and a half at most each time.
const SEAL: Duration = Duration::from_secs(240);

/// A guest whose services are starting, as far as it is bound to an order.
pub struct ProtocolGuard {
    turn: Turn,
    unready: BTreeSet<&'static str>,
    services_by: Instant,
    url_timeout: Duration,
}

/// Whose turn it is.
enum Turn {
    /// The CLI was not to start yet.
    BeforeTool,
    /// Neither an address nor a credential has come.
    BeforeAddress { by: Instant },
    /// The end user's, which the session's own limits bound.
    EndUser,
    /// A credential is found.
    Sealing { by: Instant },
    /// It was sent; the controller's turn.
    Sealed,
}

impl ProtocolGuard {
    /// Services start `now`; the CLI has `url_timeout` from its own start to give an
    /// address.
    pub fn new(url_timeout: Duration, desktop: Desktop, now: Instant) -> Self {
        let mut unready = BTreeSet::from(NEEDED);
        if desktop == Desktop::OnDemand {
            unready.remove("browser");
        }
        Self { turn: Turn::BeforeTool, unready, services_by: now + SERVICES, url_timeout }
    }

    /// The CLI is to start `now`; `false` when it was before.
    pub fn start_tool(&mut self, now: Instant) -> bool {
        let starts = matches!(self.turn, Turn::BeforeTool);
        if starts {
            self.turn = Turn::BeforeAddress { by: now + self.url_timeout + URL_GRACE };
        }
        starts
    }

    /// Checks a message against its turn. Returns the observation to report if a new turn begins with it.
    ///
    /// # Errors
    /// When the guest may not send this now.
    pub fn check(
        &mut self,
        message: &GuestMessage,
        now: Instant,
    ) -> Result<Option<Observation>, EndReason> {
        match (message, &self.turn) {
            (GuestMessage::Hello { .. }, _) => return Err(violation("the guest sent hello twice")),
            (GuestMessage::SandboxConfigured {}, _) => {
                return Err(violation("the guest was configured twice"));
            }
            (GuestMessage::Frozen {}, _) => {
                return Err(violation("the guest was frozen in a sign-in"));
            }
            (GuestMessage::SignInBegun {}, _) => {
                return Err(violation("the guest began the sign-in twice"));
            }
            (GuestMessage::Service { name, event: ServiceEvent::Ready {} }, turn) => {
                let is_last = self.unready.remove(name.as_str()) && self.unready.is_empty();
                if is_last && matches!(turn, Turn::BeforeTool) {
                    return Ok(Some(Observation::SandboxReady));
                }
            }
            (message, Turn::BeforeTool) if shows_tool(message) => return Err(tool_too_early()),
            (GuestMessage::SignInPageOpened {}, Turn::BeforeTool | Turn::BeforeAddress { .. }) => {
                return Err(violation("the guest opened a sign-in page before it had its address"));
            }
            (GuestMessage::CredentialFound { .. }, Turn::BeforeAddress { .. } | Turn::EndUser) => {
                self.turn = Turn::Sealing { by: now + SEAL };
            }
            (GuestMessage::CredentialFound { .. }, _) => {
                return Err(violation("the guest found a second credential"));
            }
            (GuestMessage::CredentialSealed { .. }, Turn::Sealing { .. }) => {
                self.turn = Turn::Sealed;
            }
            (GuestMessage::CredentialSealed { .. }, Turn::Sealed) => {
                return Err(violation("the guest sealed a second credential"));
            }
            (GuestMessage::CredentialSealed { .. }, _) => {
                return Err(violation("the guest sealed a credential that it had not found"));
            }
            _ => {}
        }
        Ok(None)
    }

    /// It is the end user's turn: the CLI has an address, or shows something that they may answer.
    ///
    /// # Errors
    /// When it was not even to start yet.
    pub fn end_users_turn(&mut self) -> Result<(), EndReason> {
        match self.turn {
            Turn::BeforeTool => return Err(tool_too_early()),
            Turn::BeforeAddress { .. } => self.turn = Turn::EndUser,
            Turn::EndUser | Turn::Sealing { .. } | Turn::Sealed => {}
        }
        Ok(())
    }

    /// When the guest must have done what it has to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.due().map(|(by, ..)| by)
    }

    /// The end of a session whose guest is late at `now`.
    pub fn late(&self, now: Instant) -> Option<EndReason> {
        let (_, what, allowed) = self.due().filter(|(by, ..)| *by <= now)?;
        Some(EndReason::GuestStalled { what, allowed_seconds: allowed.as_secs() })
    }

    /// The next deadline, what must have been done then, and how long it had.
    fn due(&self) -> Option<(Instant, String, Duration)> {
        let services =
            self.unready.iter().next().map(|name| {
                (self.services_by, format!("get {} ready", service_title(name)), SERVICES)
            });
        match self.turn {
            Turn::BeforeAddress { by } => {
                let allowed = self.url_timeout + URL_GRACE;
                let address =
                    (by, "report a sign-in address or why there is none".to_owned(), allowed);
                Some(match services {
                    Some(services) if services.0 < by => services,
                    _ => address,
                })
            }
            Turn::BeforeTool | Turn::EndUser => services,
            Turn::Sealing { by } => {
                Some((by, "seal the credential that it found".to_owned(), SEAL))
            }
            Turn::Sealed => None,
        }
    }
}

/// Whether it can only come of a CLI that runs.
fn shows_tool(message: &GuestMessage) -> bool {
    match message {
        GuestMessage::Service { name, event: ServiceEvent::Started { .. } } => name == "cli",
        GuestMessage::SignInUrl { .. } | GuestMessage::CredentialFound { .. } => true,
        _ => false,
    }
}

/// What the guest did wrong.
pub fn violation(cause: &str) -> EndReason {
    EndReason::GuestBrokeProtocol { cause: cause.to_owned() }
}

fn tool_too_early() -> EndReason {
    violation("the guest started the tool before it was asked to")
}

#[cfg(test)]
mod tests {
    use anteroom_session::DriverKind;

    use super::*;

    fn ready(name: &str) -> GuestMessage {
        GuestMessage::Service { name: name.into(), event: ServiceEvent::Ready {} }
    }

    fn sealed() -> GuestMessage {
        GuestMessage::CredentialSealed { ciphertext_base64: String::new() }
    }

    /// Heartbeats in between change nothing.
    fn late_after(end_users_turn: bool, messages: &[GuestMessage]) -> Option<(u64, String)> {
        let start = Instant::now();
        let mut guard = ProtocolGuard::new(Duration::from_secs(120), Desktop::Used, start);
        assert!(guard.start_tool(start));
        if end_users_turn {
            guard.end_users_turn().unwrap();
        }
        for message in messages {
            guard.check(&GuestMessage::Heartbeat { sent_ms: 1 }, start).unwrap();
            guard.check(message, start).unwrap();
        }
        let by = guard.next_deadline()?;
        assert_eq!(guard.late(by.checked_sub(Duration::from_millis(1)).unwrap()), None);
        let why = guard.late(by).unwrap().sentence(DriverKind::Qemu);
        Some(((by - start).as_secs(), why))
    }

    #[test]
    fn each_step_of_the_guest_has_its_deadline() {
        let (after, why) = late_after(false, &[]).unwrap();
        assert_eq!(after, 210);
        let expected = "did not report a sign-in address or why there is none within 210 s";
        assert!(why.contains(expected), "{why}");
        let (after, why) = late_after(true, &[ready("x")]).unwrap();
        assert_eq!(after, 330);
        assert!(why.contains("did not get the browser ready within 330 s"), "{why}");
        let (after, why) =
            late_after(true, &[GuestMessage::CredentialFound { terminal_bytes: 0 }]).unwrap();
        assert_eq!(after, 240);
        assert!(why.contains("did not seal the credential that it found within 240 s"), "{why}");
    }

    #[test]
    fn the_end_user_and_the_controller_take_as_long_as_the_session_lets_them() {
        let bound = |turn, messages: &[GuestMessage]| late_after(turn, messages);
        assert_eq!(bound(true, &[ready("x"), ready("window-manager"), ready("browser")]), None);
        let found = GuestMessage::CredentialFound { terminal_bytes: 0 };
        assert_eq!(bound(false, &[found, sealed()]), None);
    }

    #[test]
    fn a_tool_that_waits_for_the_end_user_has_its_time_from_its_own_start() {
        let day = Duration::from_secs(86_400);
        let start = Instant::now();
        let mut guard = ProtocolGuard::new(Duration::from_secs(120), Desktop::OnDemand, start);
        assert_eq!(guard.check(&ready("x"), start).unwrap(), None);
        let reported = guard.check(&ready("window-manager"), start).unwrap();
        assert_eq!(reported, Some(Observation::SandboxReady));
        assert_eq!(guard.next_deadline(), None, "it waits");
        assert!(guard.start_tool(start + day));
        assert!(!guard.start_tool(start + day), "asked twice it starts once");
        let by = start + day + Duration::from_secs(210);
        assert_eq!(guard.next_deadline(), Some(by));
        assert!(guard.late(by).is_some());
        // Where the end user came before all was there, nobody is waited for.
        let mut early = ProtocolGuard::new(Duration::from_secs(120), Desktop::OnDemand, start);
        early.start_tool(start);
        for name in ["x", "window-manager"] {
            assert_eq!(early.check(&ready(name), start).unwrap(), None);
        }
    }

    #[test]
    fn a_tool_that_was_not_to_start_has_nothing_to_report() {
        let now = Instant::now();
        let waits = || ProtocolGuard::new(Duration::from_secs(1), Desktop::Used, now);
        let url = "https://login.example.com/".to_owned();
        let started = ServiceEvent::Started { pid: 7 };
        for message in [
            GuestMessage::Service { name: "cli".into(), event: started.clone() },
            GuestMessage::SignInUrl { url },
            GuestMessage::CredentialFound { terminal_bytes: 0 },
            GuestMessage::SignInPageOpened {},
            sealed(),
        ] {
            let refused = waits().check(&message, now).unwrap_err();
            assert_eq!(refused.code(), "guest_broke_protocol", "{message:?}");
        }
        assert_eq!(waits().end_users_turn().unwrap_err().code(), "guest_broke_protocol");
        let other = GuestMessage::Service { name: "keyring".into(), event: started };
        assert!(waits().check(&other, now).is_ok());
    }

    #[test]
    fn what_comes_out_of_turn_is_refused() {
        let now = Instant::now();
        let refused = |before: &[GuestMessage], message: GuestMessage| {
            let mut guard = ProtocolGuard::new(Duration::from_secs(1), Desktop::Used, now);
            guard.start_tool(now);
            guard.end_users_turn().unwrap();
            before.iter().for_each(|message| drop(guard.check(message, now).unwrap()));
            guard.check(&message, now).unwrap_err().code()
        };
        let found = || GuestMessage::CredentialFound { terminal_bytes: 0 };
        assert_eq!(refused(&[], sealed()), "guest_broke_protocol");
        assert_eq!(refused(&[found()], found()), "guest_broke_protocol");
        assert_eq!(refused(&[found(), sealed()], sealed()), "guest_broke_protocol");
        let mut early = ProtocolGuard::new(Duration::from_secs(1), Desktop::Used, now);
        early.start_tool(now);
        let opened = early.check(&GuestMessage::SignInPageOpened {}, now).unwrap_err();
        assert_eq!(opened.code(), "guest_broke_protocol");
    }
}
