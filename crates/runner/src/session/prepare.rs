//! From a sandbox that boots to a guest whose services are starting.

use std::time::Duration;

use anteroom_crash::Explainer;
use anteroom_guest_link::Opener;
use anteroom_guest_session::{Conversation, Hello, inject, violation};
use anteroom_session::{EndReason, Observation, Waited};
use anteroom_vm::{CloneStart, LinkStream};

use super::super::sign_in_spec::{sandbox_of, sign_in_of, wake_of};
use super::{Session, step};

impl Session<'_> {
    /// From the first byte of the link to services that are starting.
    pub(super) async fn prepare(&mut self, link: LinkStream) -> Result<Conversation, EndReason> {
        step("boot.handshake")?;
        let (mut conversation, hello) = Conversation::begin(link).await?;
        let waited = self.clone_start.map(waited_by_now);
        let Hello { agent_version, kernel, cpu, is_clone } = hello;
        if is_clone != self.config.sandbox.driver.clone_of().is_some() {
            return Err(violation(match is_clone {
                true => "a guest that was powered on says that it was frozen before",
                false => "a clone says that it was powered on",
            }));
        }
        self.explainer = Explainer::new(&self.config.sandbox.driver.processor_name(), &cpu);
        let connected = Observation::AgentConnected { agent_version, kernel, waited };
        self.sender.observed(connected).await;
        match self.set_up(&mut conversation).await {
            Ok(()) => Ok(conversation),
            Err(reason) => Err(conversation.link.cause_of(reason).await),
        }
    }

    async fn set_up(&mut self, conversation: &mut Conversation) -> Result<(), EndReason> {
        step("boot.hello")?;
        let config = self.config;
        let mut log = |service: &str, stream, line: &str| self.write_log(service, stream, line);
        match config.sandbox.driver.clone_of() {
            Some(clone) => conversation.wake(wake_of(config, clone), &mut log).await?,
            None => conversation.configure(sandbox_of(config), &mut log).await?,
        }
        step("boot.configured")?;
        conversation.begin_sign_in(sign_in_of(&config.sign_in), &mut log).await?;
        step("boot.sign_in_begun")?;
        self.inject_files(&conversation.opener).await?;
        step("boot.files_injected")?;
        conversation.start_services().await?;
        step("boot.services_started")
    }

    async fn inject_files(&self, opener: &Opener) -> Result<(), EndReason> {
        let sign_in = &self.config.sign_in;
        let files = || sign_in.provider.files.iter().chain(&sign_in.files);
        for file in files() {
            inject(opener, file).await?;
        }
        self.sender.observed(Observation::FilesInjected { count: files().count() }).await;
        Ok(())
    }
}

/// What a clone's start has waited for whose agent has just said hello.
fn waited_by_now(start: CloneStart) -> Waited {
    let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    Waited {
        vmm_start_micros: Some(micros(start.vmm_start)),
        resume_micros: micros(start.resume),
        guest_micros: micros(start.resumed_at.elapsed()),
    }
}
