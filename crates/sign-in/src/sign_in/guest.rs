//! What the guest says.

use std::time::Instant;

use anteroom_crash::agent_failed;
use anteroom_guest_protocol::{GuestMessage, ServiceEvent, Transport, printable, service_name};
use anteroom_session::{EgressVerdict, EndReason, Observation, SealedCredential};

use super::act::refused;
use super::{CATCH_UP, LATE, Phase, SignIn};
use crate::protocol_guard::violation;
use crate::urls::web_address;
use crate::{End, Output, Over, no_keyring};

/// The service that is signed in to.
const CLI: &str = "cli";

impl SignIn {
    /// Takes a message that comes in its turn.
    pub(super) fn heard(&mut self, message: GuestMessage, now: Instant) -> Result<(), End> {
        match message {
            // Heartbeats are the link's. The others come before services start: the guard refuses them.
            GuestMessage::Heartbeat { .. }
            | GuestMessage::Hello { .. }
            | GuestMessage::SandboxConfigured {}
            | GuestMessage::Frozen {}
            | GuestMessage::SignInBegun {} => {}
            GuestMessage::Log { service, stream, line } => {
                self.outputs.push(Output::Log { service, stream, line });
            }
            GuestMessage::Cursor(image) => self.outputs.push(Output::ShowCursor(image)),
            GuestMessage::Service { name, event } if name == CLI => self.cli_changed(event, now)?,
            GuestMessage::Service { name, event } => {
                self.service_changed(&service_name(&name), event)?;
            }
            GuestMessage::SignInUrl { url } => {
                let url = web_address(&url).ok_or_else(|| {
                    violation("the guest sent a sign-in address that is not valid")
                })?;
                let actions = self.rules.opened(url, &self.terminal);
                self.act(actions)?;
            }
            GuestMessage::PageTitle { title } => self.page_titled(&printable(&title), now),
            GuestMessage::PageCallRefused { page, address } => {
                let says = self.pages.call_refused(printable(&page), printable(&address));
                self.report_all(says.map(|says| Observation::EndUserNotified { says }));
            }
            GuestMessage::ConnectionBlocked { host, port, transport } => {
                self.report(blocked(&host, port, transport));
            }
            GuestMessage::CredentialVerified { said } => {
                self.report(Observation::CredentialVerified { said: printable(&said) });
            }
            GuestMessage::SignInPageOpened {} => self.report(Observation::SignInPageOpened),
            GuestMessage::CredentialFound { terminal_bytes } => {
                // What is asked of the credential now is asked without a network.
                self.outputs.push(Output::CloseEgress);
                let (until_bytes, by) = (terminal_bytes, now + CATCH_UP);
                self.phase = Phase::CatchingUp { until_bytes, by, actions: Vec::new() };
                if until_bytes <= self.taken || !self.is_terminal_open {
                    self.settle()?;
                }
            }
            GuestMessage::CredentialLeft {} => self.left_credential = true,
            GuestMessage::CredentialSealed { ciphertext_base64 } => {
                let sealed = SealedCredential::try_from(ciphertext_base64)
                    .map_err(|error| violation(&error.to_string()))?;
                self.report(Observation::CredentialSealed { sealed });
            }
            GuestMessage::CredentialRefused { cause } => {
                let cause = printable(&cause);
                return Err(EndReason::CredentialRefused { cause }.into());
            }
            GuestMessage::Fatal { cause } => return Err(agent_failed(&cause).into()),
        }
        Ok(())
    }

    fn cli_changed(&mut self, event: ServiceEvent, now: Instant) -> Result<(), End> {
        match event {
            ServiceEvent::Exited { .. } if self.is_terminal_open => {
                let (still_by, by) = (now + LATE, now + CATCH_UP);
                self.phase = Phase::LastOutput { event, over: None, still_by, by };
                Ok(())
            }
            ServiceEvent::Exited { .. } => self.cli_ended(event, None),
            ServiceEvent::Started { .. } => {
                // Its time to give an address runs.
                self.url_by = Some(now + self.url_timeout);
                self.service_changed(CLI, event)
            }
            _ => self.service_changed(CLI, event),
        }
    }

    /// The CLI has ended by `event`, and all that its terminal shows has come.
    pub(super) fn cli_ended(&mut self, event: ServiceEvent, over: Option<Over>) -> Result<(), End> {
        if let Some(over) = over {
            // What the provider file says of its last screen is of more use than its status.
            return Err(refused(over).into());
        }
        if let Some(says) = no_keyring::advice(&self.terminal.text(), self.has_keyring) {
            self.report(Observation::EndUserNotified { says: says.to_owned() });
        }
        self.service_changed(CLI, event)
    }

    /// Reports a service's change; the end of one that is needed is the sign-in's.
    fn service_changed(&mut self, name: &str, event: ServiceEvent) -> Result<(), End> {
        let is_needed = !self.optional.contains(name);
        let changed = self.explainer.of_service(name, is_needed, event);
        let observation = changed.map_err(|mut reason| {
            if let EndReason::CliExited { left_credential, .. } = &mut reason {
                *left_credential = self.left_credential;
            }
            reason
        })?;
        self.report_all(observation);
        Ok(())
    }

    /// The desktop's browser shows a page with this title.
    fn page_titled(&mut self, title: &str, now: Instant) {
        let needed = self.needed.titled(title);
        self.report_all(needed);
        let says = self.pages.titled(title, now).map(str::to_owned);
        self.report_all(says.map(|says| Observation::EndUserNotified { says }));
    }
}

/// A connection that the guest's own firewall turned away.
fn blocked(host: &str, port: u16, transport: Transport) -> Observation {
    let host = match transport {
        Transport::Tcp => printable(host),
        Transport::Udp => format!("{}/udp", printable(host)),
    };
    Observation::HostContacted {
        host,
        port,
        verdict: EgressVerdict::RefusedByPolicy,
        connections: 1,
        bytes_up: 0,
        bytes_down: 0,
        detail: Some("programs may connect to it only through the proxy".to_owned()),
    }
}
