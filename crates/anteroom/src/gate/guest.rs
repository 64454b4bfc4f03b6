//! The room from the gate's side: booted under the processor, and listened to. What it is asked is in
//! [`super::inquiry`].
//!
//! As in a session all that comes is hostile: it is bounded and cleaned before it is kept.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use anteroom_confine::Confinement;
use anteroom_cpu::CpuProfile;
use anteroom_crash::{Explainer, processor_of};
use anteroom_guest_link::{Incoming, Side, connect, start_handshake};
use anteroom_guest_protocol::{
    Configure, GuestCpu, GuestMessage, HostMessage, Purpose, ServiceEvent, ServiceSpec, Then,
    printable, service_name,
};
use anteroom_session::{Cause, EndReason, Explanation, Observation, SessionId};
use anteroom_vm::{Driver, Qemu, VmAccelerator};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::Gate;
use super::seen::{Hello, OWN_SERVICES, Seen, explained};
use crate::clock::{now, wall};
use crate::controller::SCREEN;
use crate::runner::guest::{GuestMessages, GuestSender, link_failed, open_control, violation};
use crate::runner::paced_link::PacedLink;
use crate::runner::sandbox::{end_reason, exit_reason, vm_spec};
use crate::runner::service_log::ServiceLog;
use crate::runner_protocol::sandbox_name;

/// How long a guest may take to its first byte, and to set itself up.
const BOOT: Duration = Duration::from_secs(120);
const SET_UP: Duration = Duration::from_secs(60);

/// Most crashes that are kept.
const MAX_CRASHES: usize = 50;

/// Boots a room and looks at all there is; tells the processor as soon as the guest has.
pub async fn visit(gate: &Gate<'_>, processor: oneshot::Sender<CpuProfile>) -> Result<Seen> {
    let processor_text = Some(gate.cpu.processor.qemu.clone());
    // Emulation refuses what the processor lacks; hardware only hides it.
    let tcg = VmAccelerator::Tcg;
    let confinement = Confinement::of_this_machine(anteroom_vm::qemu_program().as_deref());
    let spec = vm_spec(
        gate.image,
        confinement,
        &gate.log_dir,
        gate.memory_mib,
        gate.vcpus,
        tcg,
        processor_text,
    )?;
    (gate.progress)("booting");
    let mut vm = Qemu.boot(&sandbox_name(SessionId::generate()), spec)?;
    let link = vm.take_link();
    let visit = Visit {
        gate,
        began: Instant::now(),
        seen: RefCell::default(),
        explainer: RefCell::new(Explainer::new("", &GuestCpu::default())),
        log: RefCell::new(ServiceLog::create(&gate.log_dir).context("creating a log failed")?),
        changed: Notify::new(),
        processor: RefCell::new(Some(processor)),
    };
    let end = tokio::select! {
        biased;
        end = vm.end_or_stop() => Some(end_reason(&vm, end)),
        visited = visit.run(link) => match visited {
            Ok(()) => None,
            // What the link says may only be the echo of a machine that is gone.
            Err(reason) => match timeout(Duration::from_millis(500), vm.wait()).await {
                Ok(exit) => Some(exit_reason(&vm, exit)),
                Err(_) => Some(reason),
            },
        },
    };
    vm.kill().await;
    let mut seen = visit.seen.into_inner();
    seen.end = end.map(|reason| explained(&reason));
    Ok(seen)
}

/// One look at a room.
pub struct Visit<'a> {
    pub gate: &'a Gate<'a>,
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
        let mut link = PacedLink::new(link);
        start_handshake(&mut link, rand::random(), BOOT).await.map_err(link_failed)?;
        let (opener, incoming, drive) = connect(link, Side::Host);
        tokio::task::spawn_local(drive);
        tokio::task::spawn_local(refuse(incoming));
        let (mut messages, mut sender) = open_control(&opener).await?;
        self.greeted(&mut messages).await?;
        (self.gate.progress)("setting the guest up");
        let configure = HostMessage::Configure(Box::new(self.configuration()));
        sender.say(&configure).await?;
        let late = |_| EndReason::GuestStalled {
            what: "set itself up".to_owned(),
            allowed_seconds: SET_UP.as_secs(),
        };
        timeout(SET_UP, self.configured(&mut messages)).await.map_err(late)??;
        sender.say(&HostMessage::StartServices {}).await?;
        tokio::select! {
            ended = self.listen(&mut messages, &mut sender) => Err(ended),
            () = self.inquire(&opener) => Ok(()),
        }
    }

    async fn greeted(&self, messages: &mut GuestMessages) -> Result<(), EndReason> {
        let GuestMessage::Hello { agent_version, kernel, boot_id: _, cpu } =
            messages.next().await?
        else {
            return Err(violation("the guest said something before its hello"));
        };
        let model = format!("this VM's CPU profile {}", self.gate.cpu.processor.profile);
        self.explainer.replace(Explainer::new(&model, &cpu));
        let profile = processor_of(&cpu);
        if let (Some(sender), Some(profile)) = (self.processor.take(), &profile) {
            // Whoever reads the programs may have failed already, which is said there.
            let _ = sender.send(profile.clone());
        }
        self.seen.borrow_mut().hello = Some(Hello {
            agent_version: printable(&agent_version),
            kernel: printable(&kernel),
            cpu: profile,
            after: self.began.elapsed(),
        });
        Ok(())
    }

    fn configuration(&self) -> Configure {
        let entropy: [u8; 32] = rand::random();
        let services = &self.gate.image.manifest.services;
        Configure {
            session_id: SessionId::generate().to_string(),
            now_unix_ms: wall().0,
            entropy_base64: STANDARD.encode(entropy),
            browser_ip: std::net::Ipv4Addr::new(10, 77, 0, 2),
            screen: SCREEN,
            purpose: Purpose::Proof {},
            egress_ports: Vec::new(),
            extra_ca_pem: String::new(),
            // One that cannot live must not take the room with it: all are looked at.
            services: services
                .iter()
                .map(|service| ServiceSpec { needed: false, ..service.clone() })
                .collect(),
            locale: None,
            time_zone: None,
        }
    }

    async fn configured(&self, messages: &mut GuestMessages) -> Result<(), EndReason> {
        loop {
            match messages.next().await? {
                GuestMessage::Configured {} => return Ok(()),
                other => self.heard(other)?,
            }
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
                // Evidence beside the record; a full disk does not change what was seen.
                let _ = self.log.borrow_mut().line(now(), &service, stream, &line);
            }
            GuestMessage::Service { name, event } => {
                let name = service_name(&name);
                self.service_changed(&name, event);
                self.changed.notify_one();
            }
            GuestMessage::Fatal { cause } => {
                // A service that died has told more before.
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
        let known = needed || self.gate.image.manifest.services.iter().any(|s| s.name == name);
        match reported {
            Ok(Some(Observation::ChildCrashed { service, explanation })) => {
                if seen.crashes.len() < MAX_CRASHES {
                    seen.crashes.push((service, *explanation));
                }
            }
            // A program that is run to its end is told of by the answer to its question.
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
                service.lost = Some(explained(&reason));
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
        ServiceEvent::Exited { evidence, .. } | ServiceEvent::Failed { evidence, .. } => {
            evidence.fault.as_deref()
        }
        ServiceEvent::ChildCrashed { fault } => Some(&**fault),
        ServiceEvent::Started { .. }
        | ServiceEvent::Ready {}
        | ServiceEvent::ChildKilled { .. } => None,
    };
    Some(printable(&fault?.code_mapping.as_ref()?.path))
}

/// Why, of an observation that tells of an end.
fn explanation_of(reported: &Result<Option<Observation>, EndReason>) -> Option<&Explanation> {
    match reported {
        Ok(Some(
            Observation::ChildCrashed { explanation, .. }
            | Observation::ServiceExited { explanation, .. }
            | Observation::ServiceGivenUp { explanation, .. },
        )) => Some(explanation),
        Ok(_) => None,
        Err(reason) => reason.explanation(),
    }
}

/// A room that is proven reaches nobody.
async fn refuse(mut incoming: Incoming) {
    while let Some(stream) = incoming.next().await {
        drop(stream);
    }
}
