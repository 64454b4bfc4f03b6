//! From a machine that boots to a guest whose services are starting.

use std::time::Duration;

use anteroom_crash::Explainer;
use anteroom_guest_link::{Incoming, LinkError, Opener, Side, connect, start_handshake};
use anteroom_guest_protocol::{Configure, GuestMessage, HostMessage, Purpose, printable};
use anteroom_session::{EndReason, Observation};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::super::guest::{self, GuestMessages, GuestSender, STEP_SECONDS, broken, violation};
use super::super::paced_link::PacedLink;
use super::super::sandbox;
use super::{Session, agent_failed, kind, millis, step};
use crate::clock::wall;

/// How long a guest may take from power-on to the agent's first byte. Emulation on a busy machine
/// has been seen to take 20 s.
const BOOT: Duration = Duration::from_secs(120);

/// A guest whose services are starting.
pub(super) struct Prepared {
    pub opener: Opener,
    pub incoming: Incoming,
    pub messages: GuestMessages,
    pub guest: GuestSender,
}

impl Session<'_> {
    /// From the first byte of the link to services that are starting.
    pub(super) async fn prepare(&mut self, link: sandbox::Link) -> Result<Prepared, EndReason> {
        let mut link = PacedLink::new(link);
        step("boot.handshake")?;
        start_handshake(&mut link, rand::random(), BOOT).await.map_err(|error| match error {
            LinkError::Silent { what: "a boot", .. } => {
                let waited_ms = millis(BOOT);
                EndReason::AgentSilent { waited_ms, run_state: None, console_tail: Vec::new() }
            }
            error => guest::link_failed(error),
        })?;
        let (opener, incoming, drive) = connect(link, Side::Host);
        self.link = Some(tokio::task::spawn_local(drive));
        let (mut messages, mut voice_to_guest) = guest::open_control(&opener).await?;
        match messages.next().await? {
            GuestMessage::Hello { agent_version, kernel, boot_id: _, cpu } => {
                self.explainer =
                    Explainer::new(&sandbox::processor(&self.config.sandbox.driver), &cpu);
                let (agent_version, kernel) = (printable(&agent_version), printable(&kernel));
                self.sender.observed(Observation::AgentConnected { agent_version, kernel }).await;
            }
            GuestMessage::Fatal { cause } => return Err(agent_failed(&cause)),
            other => {
                return Err(violation(&format!(
                    "the guest sent {} before its hello",
                    kind(&other)
                )));
            }
        }
        step("boot.hello")?;
        voice_to_guest.say(&HostMessage::Configure(Box::new(self.configuration()))).await?;
        let late = |_| broken(&format!("the guest did not set itself up within {STEP_SECONDS} s"));
        let step_time = Duration::from_secs(STEP_SECONDS);
        tokio::time::timeout(step_time, self.configured(&mut messages)).await.map_err(late)??;
        step("boot.configured")?;
        self.inject_files(&opener).await?;
        step("boot.files_injected")?;
        voice_to_guest.say(&HostMessage::StartServices {}).await?;
        step("boot.services_started")?;
        Ok(Prepared { opener, incoming, messages, guest: voice_to_guest })
    }

    async fn configured(&mut self, messages: &mut GuestMessages) -> Result<(), EndReason> {
        loop {
            match messages.next().await? {
                GuestMessage::Configured {} => return Ok(()),
                GuestMessage::Log { service, stream, line } => {
                    self.write_log(&service, stream, &line)
                }
                // Its clock is being set.
                GuestMessage::Heartbeat { .. } => {}
                GuestMessage::Fatal { cause } => return Err(agent_failed(&cause)),
                other => {
                    return Err(violation(&format!(
                        "the guest sent {} before it was configured",
                        kind(&other)
                    )));
                }
            }
        }
    }

    async fn inject_files(&self, opener: &Opener) -> Result<(), EndReason> {
        let files = || self.config.sign_in.provider.files.iter().chain(&self.config.sign_in.files);
        for file in files() {
            guest::inject(opener, file).await?;
        }
        self.sender.observed(Observation::FilesInjected { count: files().count() }).await;
        Ok(())
    }

    fn configuration(&self) -> Configure {
        let provider = &self.config.sign_in.provider;
        let entropy: [u8; 32] = rand::random();
        Configure {
            session_id: self.config.sign_in.session.to_string(),
            now_unix_ms: wall().0,
            entropy_base64: STANDARD.encode(entropy),
            browser_ip: self.config.sign_in.browser_ip,
            screen: self.config.sandbox.screen,
            purpose: Purpose::SignIn(Box::new(guest::sign_in_spec(&self.config.sign_in))),
            egress_ports: guest::egress_ports(provider),
            extra_ca_pem: provider.egress.extra_ca_pem.clone(),
            services: self.config.sandbox.services.clone(),
            locale: self.config.sign_in.locale.clone(),
            time_zone: self.config.sign_in.time_zone.clone(),
        }
    }
}
