//! The VM from the verifier's side: booted under the processor, and listened to. What it is asked is in
//! [`super::inquiry`].
//!
//! As in a session all that comes is hostile: it is bounded and cleaned before it is kept.

use std::cell::RefCell;
use std::time::Instant;

use anteroom_cpu::CpuProfile;
use anteroom_crash::{Explainer, processor_of};
use anteroom_guest_link::Incoming;
use anteroom_guest_protocol::{
    ConfigureSandbox, GuestCpu, GuestMessage, LogStream, Purpose, ServiceEvent, ServiceSpec, Then,
    printable, service_name,
};
use anteroom_guest_session::{
    Conversation, DiagnosedEnd, GuestMessages, GuestSender, OwnSandbox, ServiceLog, boot,
    cpu_profile_name, entropy_base64, start_guest, unix_ms, until_end, vm_spec,
};
use anteroom_session::{Cause, EndReason, Explanation, Observation, Timestamp};
use anteroom_vm::RunningSandbox;
use tokio::sync::{Notify, oneshot};

use crate::seen::{Hello, OWN_SERVICES, Seen, explained};
use crate::{Verifier, VerifyError};

/// Most crashes that are kept.
const MAX_CRASHES: usize = 50;

/// Boots the image and looks at all there is; reports the processor as soon as the guest has.
pub async fn visit(
    verifier: &Verifier<'_>,
    processor: oneshot::Sender<CpuProfile>,
) -> Result<Seen, VerifyError> {
    let sandbox = OwnSandbox::record(&verifier.vmm, &verifier.log_dir)
        .map_err(|source| VerifyError::Write { path: verifier.log_dir.clone(), source })?;
    let seen = look(verifier, processor, &sandbox).await;
    // Whatever became of the VM: nobody else tears it down.
    sandbox.remove()?;
    seen
}

async fn look(
    verifier: &Verifier<'_>,
    processor: oneshot::Sender<CpuProfile>,
    OwnSandbox { name, confinement }: &OwnSandbox,
) -> Result<Seen, VerifyError> {
    let vmm = &verifier.vmm;
    let not_started = |reason| VerifyError::NotStarted { driver: vmm.kind(), reason };
    (verifier.progress)("booting");
    let driver =
        vm_spec(&verifier.image.files, verifier.agent, verifier.memory_mib, verifier.vcpus)
            .map(|vm| vmm.driver(vm));
    let driver = driver.map_err(not_started)?;
    let mut vm = boot(&*driver, name, confinement, &verifier.log_dir).await.map_err(not_started)?;
    let link = vm.take_link();
    let log = ServiceLog::create(&verifier.log_dir)
        .map_err(|source| VerifyError::Write { path: verifier.log_dir.clone(), source })?;
    let visit = Visit {
        verifier,
        began: Instant::now(),
        seen: RefCell::default(),
        explainer: RefCell::new(Explainer::new("", &GuestCpu::default())),
        log: RefCell::new(log),
        changed: Notify::new(),
        processor: RefCell::new(Some(processor)),
    };
    start_guest(&mut vm).await.map_err(not_started)?;
    let end = match until_end(&mut vm, visit.run(link)).await {
        Ok(Ok(())) => None,
        Ok(Err(reason)) => Some(visit.diagnosed(&mut vm, reason).await),
        Err(reason) => Some(reason),
    };
    vm.kill().await;
    let mut seen = visit.seen.into_inner();
    seen.end = end.map(|reason| explained(&reason, vmm.kind()));
    Ok(seen)
}

/// One look at a VM.
pub struct Visit<'a> {
    pub verifier: &'a Verifier<'a>,
    pub seen: RefCell<Seen>,
    pub explainer: RefCell<Explainer>,
    /// A service changed.
    pub changed: Notify,
    began: Instant,
    log: RefCell<ServiceLog>,
    processor: RefCell<Option<oneshot::Sender<CpuProfile>>>,
}

impl Visit<'_> {
    async fn run(&self, link: anteroom_vm::LinkStream) -> Result<(), EndReason> {
        let (mut conversation, hello) = Conversation::begin(link).await?;
        self.greeted(hello);
        let link = conversation.link.clone();
        match self.look_at(&mut conversation).await {
            Ok(()) => Ok(()),
            Err(reason) => Err(link.cause_of(reason).await),
        }
    }

    async fn look_at(&self, conversation: &mut Conversation) -> Result<(), EndReason> {
        (self.verifier.progress)("setting the guest up");
        let log = |service: &str, stream, line: &str| self.keep_line(service, stream, line);
        conversation.configure(self.configuration(), log).await?;
        conversation.start_services().await?;
        let Conversation { opener, incoming, messages, sender, link: _ } = conversation;
        tokio::select! {
            ended = self.listen(messages, sender) => Err(ended),
            never = refuse(incoming) => match never {},
            () = self.inquire(opener) => Ok(()),
        }
    }

    fn greeted(&self, hello: anteroom_guest_session::Hello) {
        let model = cpu_profile_name(&self.verifier.cpu.processor.profile);
        self.explainer.replace(Explainer::new(&model, &hello.cpu));
        let profile = processor_of(&hello.cpu);
        if let (Some(sender), Some(profile)) = (self.processor.take(), &profile) {
            // Whoever reads the programs may have failed already, which is said there.
            let _ = sender.send(profile.clone());
        }
        self.seen.borrow_mut().hello = Some(Hello {
            agent_version: hello.agent_version,
            kernel: hello.kernel,
            cpu: profile,
            after: self.began.elapsed(),
        });
    }

    async fn diagnosed(&self, vm: &mut RunningSandbox, reason: EndReason) -> EndReason {
        let DiagnosedEnd { reason, lines } = DiagnosedEnd::of(vm, reason).await;
        for line in lines {
            self.keep_line(vm.driver.into(), LogStream::Stdout, &line);
        }
        reason
    }

    /// Evidence beside the record; a full disk does not change what was seen.
    fn keep_line(&self, service: &str, stream: LogStream, line: &str) {
        let _ = self.log.borrow_mut().line(Timestamp(unix_ms()), service, stream, line);
    }

    fn configuration(&self) -> ConfigureSandbox {
        let services = &self.verifier.image.manifest.services;
        ConfigureSandbox {
            now_unix_ms: unix_ms(),
            entropy_base64: entropy_base64(),
            browser_ip: std::net::Ipv4Addr::new(10, 77, 0, 2),
            screen: self.verifier.screen,
            purpose: Purpose::Verification {},
            egress_ports: Vec::new(),
            extra_ca_pem: String::new(),
            // One that cannot live must not take the VM with it: all are looked at.
            services: services
                .iter()
                .map(|service| ServiceSpec { needed: false, ..service.clone() })
                .collect(),
        }
    }

    /// Takes what the guest says until that is the end.
    async fn listen(&self, messages: &mut GuestMessages, sender: &mut GuestSender) -> EndReason {
        loop {
            if let Err(reason) = self.listen_once(messages, sender).await {
                return reason;
            }
        }
    }

    async fn listen_once(
        &self,
        messages: &mut GuestMessages,
        sender: &mut GuestSender,
    ) -> Result<(), EndReason> {
        let message = messages.next().await?;
        sender.answer_heartbeat(&message).await?;
        self.heard(message)
    }

    fn heard(&self, message: GuestMessage) -> Result<(), EndReason> {
        match message {
            GuestMessage::Log { service, stream, line } => {
                self.keep_line(&service, stream, &line);
            }
            GuestMessage::Service { name, event } => {
                let name = service_name(&name);
                self.service_changed(&name, event);
                self.changed.notify_one();
            }
            GuestMessage::Fatal { cause } => {
                // A service that died has reported more before.
                let lost = self.seen.borrow().services.values().find_map(|s| s.lost.clone());
                return Err(EndReason::ServiceFailed {
                    service: "agent".to_owned(),
                    cause: printable(&cause),
                    last_lines: Vec::new(),
                    explanation: lost.map(Box::new),
                });
            }
            _ => {}
        }
        Ok(())
    }

    fn service_changed(&self, name: &str, event: ServiceEvent) {
        let code = code_of(&event);
        let again = matches!(event, ServiceEvent::Exited { then: Then::Restart { .. }, .. });
        let needed = OWN_SERVICES.contains(&name);
        let reported = self.explainer.borrow().of_service(name, needed, event);
        if let Some(why) = explanation_of(&reported) {
            self.keep_reached(code, why);
        }
        let mut seen = self.seen.borrow_mut();
        let known = needed || self.verifier.image.manifest.services.iter().any(|s| s.name == name);
        match reported {
            Ok(Some(Observation::ChildDied { service, explanation })) => {
                if seen.crashes.len() < MAX_CRASHES {
                    seen.crashes.push((service, *explanation));
                }
            }
            // A program that is run to its end is reported by the answer to its question.
            _ if !known => {}
            Ok(Some(Observation::ServiceReady { service })) => {
                let after = self.began.elapsed();
                seen.services.entry(service).or_default().ready_after = Some(after);
            }
            Ok(Some(Observation::ServiceExited { service, explanation, then: _ })) => {
                let service = seen.services.entry(service).or_default();
                service.died_ready |= service.ready_after.take().is_some();
                if service.deaths.len() < MAX_CRASHES {
                    service.deaths.push((*explanation).clone());
                }
                if !again {
                    service.lost = Some(*explanation);
                }
            }
            Ok(Some(Observation::ServiceGivenUp { service, explanation })) => {
                let service = seen.services.entry(service).or_default();
                service.ready_after = None;
                service.lost = Some(*explanation);
            }
            Ok(_) => {}
            Err(reason) => {
                let service = seen.services.entry(name.to_owned()).or_default();
                service.ready_after = None;
                service.lost = Some(explained(&reason, self.verifier.vmm.kind()));
            }
        }
    }

    /// Keeps that code in a file was reached that the processor lacks.
    pub fn keep_reached(&self, path: Option<String>, why: &Explanation) {
        let mut seen = self.seen.borrow_mut();
        if let Some(path) = path
            && why.cause == Cause::MissingCpuFeature
            && seen.reached.len() < MAX_CRASHES
        {
            seen.reached.insert(path);
        }
    }
}

/// The file whose code a program was at when it died of a fault.
pub fn code_of(event: &ServiceEvent) -> Option<String> {
    let fault = match event {
        ServiceEvent::Exited { evidence, .. }
        | ServiceEvent::Failed { evidence, .. }
        | ServiceEvent::ChildDied { evidence, .. } => evidence.fault.as_deref(),
        ServiceEvent::Started { .. } | ServiceEvent::Ready {} => None,
    };
    Some(printable(&fault?.code_mapping.as_ref()?.path))
}

/// Why, of an observation that reports an end.
fn explanation_of(reported: &Result<Option<Observation>, EndReason>) -> Option<&Explanation> {
    match reported {
        Ok(Some(
            Observation::ChildDied { explanation, .. }
            | Observation::ServiceExited { explanation, .. }
            | Observation::ServiceGivenUp { explanation, .. },
        )) => Some(explanation),
        Ok(_) => None,
        Err(reason) => reason.explanation(),
    }
}

/// A sandbox whose image is verified reaches nobody. That the link is gone is seen by who listens.
async fn refuse(incoming: &mut Incoming) -> std::convert::Infallible {
    while let Some(stream) = incoming.next().await {
        drop(stream);
    }
    std::future::pending().await
}
