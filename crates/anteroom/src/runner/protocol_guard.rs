//! What a guest may say when, and until when it must have got on. Heartbeats alone keep no room
//! alive, and what comes out of turn ends it.

use std::collections::BTreeSet;
use std::time::Duration;

use anteroom_guest_protocol::{Desktop, GuestMessage, ServiceEvent};
use anteroom_session::{EndReason, Observation};
use tokio::time::Instant;

use super::guest::violation;

/// What the person needs before it is their turn.
const NEEDED: [&str; 3] = ["x", "window-manager", "browser"];

/// How long these may take to be ready: more than the agent gives X and the browser together, which
/// tells better why they are not.
const SERVICES: Duration = Duration::from_secs(330);

/// How long after its own limit for the CLI's address the agent may take to tell of it. The limit
/// counts from the CLI's start, which waits for X.
const URL_GRACE: Duration = Duration::from_secs(90);

/// How long sealing a credential may take, the CLI's own word on it included: it is asked twice when
/// it denies, a minute and a half at most each time.
const SEAL: Duration = Duration::from_secs(240);

/// A guest whose services are starting, as far as it is bound to an order.
pub struct ProtocolGuard {
    step: Step,
    unready: BTreeSet<&'static str>,
    services_by: Instant,
    url_timeout: Duration,
}

enum Step {
    /// The CLI was not told to start.
    BeforeTool,
    /// Neither an address nor a credential has come.
    BeforeAddress { by: Instant },
    /// The person's turn, which the session's own limits bound.
    EndUser,
    /// A credential is found.
    Sealing { by: Instant },
    /// It was sent; the controller's turn.
    Sealed,
}

impl ProtocolGuard {
    /// Services were told to start `now`; the CLI has `url_timeout` from its own start to give an
    /// address.
    pub fn new(url_timeout: Duration, desktop: Desktop, now: Instant) -> Self {
        let mut unready = BTreeSet::from(NEEDED);
        if desktop == Desktop::Spare {
            unready.remove("browser");
        }
        Self { step: Step::BeforeTool, unready, services_by: now + SERVICES, url_timeout }
    }

    /// The CLI is told to start `now`, unless it was before.
    pub fn start_tool(&mut self, now: Instant) -> bool {
        let starts = matches!(self.step, Step::BeforeTool);
        if starts {
            self.step = Step::BeforeAddress { by: now + self.url_timeout + URL_GRACE };
        }
        starts
    }

    /// Whether the guest may say this now, and what is to be told beside it.
    ///
    /// # Errors
    /// When it may not.
    pub fn heard(
        &mut self,
        message: &GuestMessage,
        now: Instant,
    ) -> Result<Option<Observation>, EndReason> {
        match (message, &self.step) {
            (GuestMessage::Service { name, event: ServiceEvent::Ready {} }, step) => {
                let is_last = self.unready.remove(name.as_str()) && self.unready.is_empty();
                if is_last && matches!(step, Step::BeforeTool) {
                    return Ok(Some(Observation::SandboxReady));
                }
            }
            (message, Step::BeforeTool) if shows_tool(message) => return Err(tool_too_early()),
            (GuestMessage::SignInPageOpened {}, Step::BeforeTool | Step::BeforeAddress { .. }) => {
                return Err(violation("the guest opened a sign-in page before it had its address"));
            }
            (GuestMessage::CredentialFound { .. }, Step::BeforeAddress { .. } | Step::EndUser) => {
                self.step = Step::Sealing { by: now + SEAL };
            }
            (GuestMessage::CredentialFound { .. }, _) => {
                return Err(violation("the guest found a second credential"));
            }
            (GuestMessage::CredentialSealed { .. }, Step::Sealing { .. }) => {
                self.step = Step::Sealed;
            }
            (GuestMessage::CredentialSealed { .. }, Step::Sealed) => {
                return Err(violation("the guest sealed a second credential"));
            }
            (GuestMessage::CredentialSealed { .. }, _) => {
                return Err(violation("the guest sealed a credential that it had not found"));
            }
            _ => {}
        }
        Ok(None)
    }

    /// It is the person's turn: the CLI has an address, or shows something that they may answer.
    ///
    /// # Errors
    /// When it was not even told to start.
    pub fn end_users_turn(&mut self) -> Result<(), EndReason> {
        match self.step {
            Step::BeforeTool => return Err(tool_too_early()),
            Step::BeforeAddress { .. } => self.step = Step::EndUser,
            Step::EndUser | Step::Sealing { .. } | Step::Sealed => {}
        }
        Ok(())
    }

    /// Waits until the guest is late with what it has to do next, and tells with what.
    pub async fn late(&self) -> EndReason {
        let Some((by, what, allowed)) = self.due() else { return std::future::pending().await };
        tokio::time::sleep_until(by).await;
        EndReason::GuestStalled { what, allowed_seconds: allowed.as_secs() }
    }

    /// The next deadline, what must have been done then, and how long it had.
    fn due(&self) -> Option<(Instant, String, Duration)> {
        let services = self
            .unready
            .iter()
            .next()
            .map(|name| (self.services_by, format!("bring its {name} to readiness"), SERVICES));
        match self.step {
            Step::BeforeAddress { by } => {
                let allowed = self.url_timeout + URL_GRACE;
                let address = (by, "give a sign-in address or say why not".to_owned(), allowed);
                Some(match services {
                    Some(services) if services.0 < by => services,
                    _ => address,
                })
            }
            Step::BeforeTool | Step::EndUser => services,
            Step::Sealing { by } => {
                Some((by, "seal the credential that it found".to_owned(), SEAL))
            }
            Step::Sealed => None,
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

fn tool_too_early() -> EndReason {
    violation("the guest started the tool before it was told to")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(name: &str) -> GuestMessage {
        GuestMessage::Service { name: name.into(), event: ServiceEvent::Ready {} }
    }

    fn sealed() -> GuestMessage {
        GuestMessage::CredentialSealed { ciphertext_base64: String::new() }
    }

    /// Heartbeats in between change nothing: they never reach it.
    async fn late_after(end_users_turn: bool, messages: &[GuestMessage]) -> (u64, String) {
        let start = Instant::now();
        let mut guard = ProtocolGuard::new(Duration::from_secs(120), Desktop::Used, start);
        assert!(guard.start_tool(start));
        if end_users_turn {
            guard.end_users_turn().unwrap();
        }
        for message in messages {
            guard.heard(message, start).unwrap();
        }
        let reason = guard.late().await;
        (start.elapsed().as_secs(), reason.to_string())
    }

    #[tokio::test(start_paused = true)]
    async fn each_step_of_the_guest_has_its_deadline() {
        let (after, why) = late_after(false, &[]).await;
        assert_eq!(after, 210);
        assert!(
            why.contains("did not give a sign-in address or say why not within 210 s"),
            "{why}"
        );
        let (after, why) = late_after(true, &[ready("x")]).await;
        assert_eq!(after, 330);
        assert!(why.contains("did not bring its browser to readiness within 330 s"), "{why}");
        let (after, why) =
            late_after(true, &[GuestMessage::CredentialFound { terminal_bytes: 0 }]).await;
        assert_eq!(after, 240);
        assert!(why.contains("did not seal the credential that it found within 240 s"), "{why}");
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_user_and_the_controller_take_as_long_as_the_session_lets_them() {
        let waits = |turn, messages: Vec<GuestMessage>| async move {
            let late = late_after(turn, &messages);
            tokio::time::timeout(Duration::from_secs(86_400), late).await.is_err()
        };
        assert!(waits(true, vec![ready("x"), ready("window-manager"), ready("browser")]).await);
        assert!(
            waits(false, vec![GuestMessage::CredentialFound { terminal_bytes: 0 }, sealed()]).await
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_tool_that_waits_for_the_end_user_has_its_time_from_its_own_start() {
        let day = Duration::from_secs(86_400);
        let start = Instant::now();
        let mut guard = ProtocolGuard::new(Duration::from_secs(120), Desktop::Spare, start);
        assert_eq!(guard.heard(&ready("x"), start).unwrap(), None);
        let reported = guard.heard(&ready("window-manager"), start).unwrap();
        assert_eq!(reported, Some(Observation::SandboxReady));
        assert!(tokio::time::timeout(day, guard.late()).await.is_err(), "it waits");
        assert!(guard.start_tool(Instant::now()));
        assert!(!guard.start_tool(Instant::now()), "told twice it starts once");
        let why = guard.late().await.to_string();
        assert_eq!(start.elapsed(), day + Duration::from_secs(210), "{why}");
        // Where the person came before all was there, nobody is waited for.
        let mut early = ProtocolGuard::new(Duration::from_secs(120), Desktop::Spare, start);
        early.start_tool(start);
        for name in ["x", "window-manager"] {
            assert_eq!(early.heard(&ready(name), start).unwrap(), None);
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
            let refused = waits().heard(&message, now).unwrap_err();
            assert_eq!(refused.code(), "guest_broke_protocol", "{message:?}");
        }
        assert_eq!(waits().end_users_turn().unwrap_err().code(), "guest_broke_protocol");
        let other = GuestMessage::Service { name: "keyring".into(), event: started };
        assert!(waits().heard(&other, now).is_ok());
    }

    #[test]
    fn what_comes_out_of_turn_is_refused() {
        let now = Instant::now();
        let refused = |before: &[GuestMessage], message: GuestMessage| {
            let mut guard = ProtocolGuard::new(Duration::from_secs(1), Desktop::Used, now);
            guard.start_tool(now);
            guard.end_users_turn().unwrap();
            before.iter().for_each(|message| drop(guard.heard(message, now).unwrap()));
            guard.heard(&message, now).unwrap_err().code()
        };
        let found = || GuestMessage::CredentialFound { terminal_bytes: 0 };
        assert_eq!(refused(&[], sealed()), "guest_broke_protocol");
        assert_eq!(refused(&[found()], found()), "guest_broke_protocol");
        assert_eq!(refused(&[found(), sealed()], sealed()), "guest_broke_protocol");
        let mut early = ProtocolGuard::new(Duration::from_secs(1), Desktop::Used, now);
        early.start_tool(now);
        let opened = early.heard(&GuestMessage::SignInPageOpened {}, now).unwrap_err();
        assert_eq!(opened.code(), "guest_broke_protocol");
    }
}
