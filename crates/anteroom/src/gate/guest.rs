//! The room from the gate's side: booted under the processor, brought to ready, asked.
//!
//! As in a session all that comes is hostile: it is bounded and cleaned before it is kept.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anteroom_cpu::CpuProfile;
use anteroom_guest_link::{
    Incoming, Opener, Side, connect, read_message, start_handshake, write_message,
};
use anteroom_guest_protocol::frames::Request;
use anteroom_guest_protocol::{
    Check, Checked, Configure, Evidence, GuestCpu, GuestMessage, HostMessage, MAX_CONTROL_MESSAGE,
    MAX_OPENED_FILES, PageFacts, Purpose, ScreenSize, ServiceEvent, ServiceSpec, StreamKind,
    SystemFacts, Then,
};
use anteroom_image::ProgramSpec;
use anteroom_media::Codec;
use anteroom_media::frame_source::{Frame, FrameSource, LinkFrameSource};
use anteroom_media::screen::Screen;
use anteroom_media::viewed::{Viewed, view};
use anteroom_session::{Cause, Confidence, EndReason, Explanation, Observation, SessionId};
use anteroom_vm::{Driver, Qemu, RunningVm, VmAccelerator, VmEnd, VmSpec};
use anyhow::{Context, Result, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::{Notify, oneshot};
use tokio::time::timeout;

use super::Gate;
use crate::clock::now;
use crate::embedded;
use crate::runner::deaths::{Explainer, processor_of};
use crate::runner::guest::{
    GuestMessages, link_failed, open_control, printable, printable_lines, violation,
};
use crate::runner::paced_link::PacedLink;
use crate::runner::room::exit_reason;
use crate::runner::service_log::ServiceLog;

/// How long a guest may take to its first byte, to set itself up, and to bring its services up.
const BOOT: Duration = Duration::from_secs(120);
const SET_UP: Duration = Duration::from_secs(60);
const SERVICES: Duration = Duration::from_secs(330);

/// How long services may take before a picture is taken of what is there.
const PICTURE_AFTER: Duration = Duration::from_secs(100);

/// How long it may take to answer a question, beside the time that the question itself gives.
const ANSWER: Duration = Duration::from_secs(150);

/// How long the page may take to be painted once its script has run.
const PAINTED: Duration = Duration::from_secs(30);

/// Bytes of console that are kept.
const CONSOLE_LIMIT: u64 = 1024 * 1024;

/// Most crashes and opened files that are kept.
const MAX_CRASHES: usize = 50;
const MAX_OPENED: usize = 20_000;

const SCREEN: ScreenSize = ScreenSize { width: 1280, height: 720 };

/// Colours of the bars on the proof page (`crates/agent/src/browser/proof_page.html`).
pub const BARS: [[u8; 3]; 3] = [[0xc8, 0x1e, 0x5a], [0x1e, 0x78, 0xc8], [0x28, 0xa0, 0x50]];

/// The part of the picture that each bar has at least.
pub const LEAST_PART: f64 = 0.02;

/// The room's own services, in the order of a report.
pub const OWN_SERVICES: [&str; 3] = ["x", "window-manager", "browser"];

/// What was seen. What was not come to is `None`.
#[derive(Default)]
pub struct Seen {
    pub hello: Option<Hello>,
    pub services: BTreeMap<String, Service>,
    pub programs: BTreeMap<String, Ran>,
    pub system: Option<Result<At<SystemFacts>, String>>,
    pub page: Option<Result<PageFacts, String>>,
    pub vnc_greeting: Option<Result<String, String>>,
    pub viewed: Option<Result<Viewed, String>>,
    pub picture: Option<Vec<u8>>,
    pub opened: Option<Result<BTreeSet<String>, String>>,
    /// Files in which programs died of an illegal instruction.
    pub faults: BTreeSet<String>,
    /// Children of services that crashed: service and why.
    pub crashes: Vec<(String, Explanation)>,
    /// Why the room ended before it was done with.
    pub end: Option<Explanation>,
}

/// The agent's first word.
pub struct Hello {
    pub agent_version: String,
    pub kernel: String,
    pub cpu: Option<CpuProfile>,
    pub after: Duration,
}

/// Something and the host's clock when it came, in milliseconds since the Unix epoch.
pub struct At<T> {
    pub what: T,
    pub host_unix_ms: u64,
}

/// A service of the room.
#[derive(Default)]
pub struct Service {
    pub ready_after: Option<Duration>,
    pub deaths: Vec<Explanation>,
    /// Why there will be no further start.
    pub lost: Option<Explanation>,
}

/// A program that was run to its end.
pub struct Ran {
    pub lines: Vec<String>,
    pub lived_ms: u64,
    /// Why it did not end well.
    pub failure: Option<Explanation>,
}

/// Boots a room and looks at all there is; tells the processor as soon as the guest has.
pub async fn visit(gate: &Gate<'_>, processor: oneshot::Sender<CpuProfile>) -> Result<Seen> {
    let modules = gate.image.modules();
    let modules =
        std::fs::read(&modules).with_context(|| format!("reading {} failed", modules.display()))?;
    let spec = VmSpec {
        kernel: gate.image.kernel(),
        initramfs: anteroom_image::initramfs_with_agent(&modules, embedded::agent()?),
        root_image: gate.image.root(),
        memory_mib: gate.memory_mib,
        vcpus: gate.vcpus,
        console_log: gate.log_dir.join("console.log"),
        console_log_limit: CONSOLE_LIMIT,
        // Emulation refuses what the processor lacks; hardware only hides it.
        accelerator: VmAccelerator::Tcg,
        cpu: Some(gate.cpu.processor.qemu.clone()),
    };
    (gate.progress)("booting");
    let mut vm = Qemu.boot(SessionId::generate(), spec)?;
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
        end = vm.end_or_stop() => Some(machine_ended(&vm, end)),
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

fn machine_ended(vm: &RunningVm, end: VmEnd) -> EndReason {
    match end {
        VmEnd::Exited(exit) => exit_reason(vm, exit),
        VmEnd::Stopped { signal, seconds } => {
            EndReason::VmStopped { signal, stopped_seconds: seconds }
        }
    }
}

/// A reason as an explanation.
fn explained(reason: &EndReason) -> Explanation {
    reason.explanation().cloned().unwrap_or_else(|| Explanation {
        cause: Cause::Unknown,
        sentence: reason.to_string(),
        evidence: Vec::new(),
        confidence: Confidence::Unknown,
        advice: None,
    })
}

struct Visit<'a> {
    gate: &'a Gate<'a>,
    began: Instant,
    seen: RefCell<Seen>,
    explainer: RefCell<Explainer>,
    log: RefCell<ServiceLog>,
    /// A service changed.
    changed: Notify,
    processor: RefCell<Option<oneshot::Sender<CpuProfile>>>,
}

impl Visit<'_> {
    async fn run(&self, link: anteroom_vm::LinkStream) -> Result<(), EndReason> {
        let mut link = PacedLink::new(link);
        start_handshake(&mut link, rand::random(), BOOT).await.map_err(link_failed)?;
        let (opener, incoming, drive) = connect(link, Side::Host);
        tokio::task::spawn_local(drive);
        tokio::task::spawn_local(refuse(incoming));
        let (mut messages, mut voice) = open_control(&opener).await?;
        self.greeted(&mut messages).await?;
        (self.gate.progress)("setting the guest up");
        let configure = HostMessage::Configure(Box::new(self.configuration()));
        voice.say(&configure).await?;
        let late = |_| EndReason::GuestStalled {
            what: "set itself up".to_owned(),
            allowed_seconds: SET_UP.as_secs(),
        };
        timeout(SET_UP, self.configured(&mut messages)).await.map_err(late)??;
        voice.say(&HostMessage::StartServices {}).await?;
        tokio::select! {
            ended = self.listen(&mut messages) => Err(ended),
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
            now_unix_ms: now().0,
            entropy_base64: STANDARD.encode(entropy),
            browser_ip: std::net::Ipv4Addr::new(10, 77, 0, 2),
            screen: SCREEN,
            purpose: Purpose::Proof {},
            extra_ca_pem: String::new(),
            // One that cannot live must not take the room with it: all are looked at.
            services: services
                .iter()
                .map(|service| ServiceSpec { needed: false, ..service.clone() })
                .collect(),
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
    async fn listen(&self, messages: &mut GuestMessages) -> EndReason {
        loop {
            let heard = match messages.next().await {
                Ok(message) => self.heard(message),
                Err(reason) => Err(reason),
            };
            if let Err(reason) = heard {
                return reason;
            }
        }
    }

    fn heard(&self, message: GuestMessage) -> Result<(), EndReason> {
        match message {
            GuestMessage::Log { service, stream, line } => {
                // Evidence beside the record; a full disk does not change what was seen.
                let _ = self.log.borrow_mut().line(now(), &service, stream, &line);
            }
            GuestMessage::Service { name, event } => {
                let name: String = printable(&name).chars().take(64).collect();
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
        self.keep_fault(&event);
        let again = matches!(event, ServiceEvent::Exited { then: Then::Restart { .. }, .. });
        let needed = OWN_SERVICES.contains(&name);
        let told = self.explainer.borrow().of_service(name, needed, event);
        let mut seen = self.seen.borrow_mut();
        let known = needed || self.gate.image.manifest.services.iter().any(|s| s.name == name);
        match told {
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
                service.ready_after = None;
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

    fn keep_fault(&self, event: &ServiceEvent) {
        let evidence: &Evidence = match event {
            ServiceEvent::Exited { evidence, .. } | ServiceEvent::Failed { evidence, .. } => {
                evidence
            }
            ServiceEvent::ChildCrashed { fault } => return self.keep_fault_of(fault),
            ServiceEvent::Started { .. } | ServiceEvent::Ready {} => return,
        };
        if let Some(fault) = &evidence.fault {
            self.keep_fault_of(fault);
        }
    }

    fn keep_fault_of(&self, fault: &anteroom_guest_protocol::Fault) {
        let Some(mapping) = &fault.code_mapping else { return };
        if fault.signal != nix::libc::SIGILL {
            return;
        }
        let mut seen = self.seen.borrow_mut();
        if seen.faults.len() < MAX_CRASHES {
            seen.faults.insert(printable(&mapping.path));
        }
    }

    /// Asks all there is to ask.
    async fn inquire(&self, opener: &Opener) {
        if timeout(PICTURE_AFTER, self.settled()).await.is_err() {
            // What keeps a service from being ready may stand on the screen, and goes with it.
            self.photograph(opener).await;
            if timeout(SERVICES - PICTURE_AFTER, self.settled()).await.is_err() {
                self.give_up_waiting();
            }
        }
        (self.gate.progress)("looking at the desktop");
        if self.is_ready("browser") {
            let page = match ask(opener, &Check::Page {}, ANSWER).await {
                Ok(Checked::Page(page)) => Ok(page),
                other => Err(refusal(other)),
            };
            self.seen.borrow_mut().page = Some(page.map(cleaned_page));
        }
        self.look(opener).await;
        let greeting = match ask(opener, &Check::VncGreeting {}, ANSWER).await {
            Ok(Checked::VncGreeting { text }) => Ok(printable(&text)),
            other => Err(refusal(other)),
        };
        self.seen.borrow_mut().vnc_greeting = Some(greeting);
        for program in &self.gate.image.manifest.programs {
            (self.gate.progress)(&format!("running {}", program.name));
            let ran = self.run_program(opener, program).await;
            self.seen.borrow_mut().programs.insert(program.name.clone(), ran);
        }
        (self.gate.progress)("asking the guest");
        let system = match ask(opener, &Check::System {}, ANSWER).await {
            Ok(Checked::System(facts)) => {
                let facts = SystemFacts { os: printable(&facts.os), ..facts };
                Ok(At { what: facts, host_unix_ms: now().0 })
            }
            other => Err(refusal(other)),
        };
        self.seen.borrow_mut().system = Some(system);
        let opened = opened_files(opener).await;
        self.seen.borrow_mut().opened = Some(opened);
    }

    fn is_ready(&self, name: &str) -> bool {
        let seen = self.seen.borrow();
        seen.services.get(name).is_some_and(|service| service.ready_after.is_some())
    }

    /// Returns when each service is ready or lost.
    async fn settled(&self) {
        let declared = self.gate.image.manifest.services.iter().map(|s| s.name.as_str());
        let all: Vec<&str> = OWN_SERVICES.into_iter().chain(declared).collect();
        let is_open = |name: &&&str| {
            let seen = self.seen.borrow();
            let service = seen.services.get(**name);
            service.is_none_or(|s| s.ready_after.is_none() && s.lost.is_none())
        };
        loop {
            let open: Vec<&str> = all.iter().filter(is_open).copied().collect();
            if open.is_empty() {
                return;
            }
            (self.gate.progress)(&format!("waiting for {}", open.join(", ")));
            self.changed.notified().await;
        }
    }

    fn give_up_waiting(&self) {
        let mut seen = self.seen.borrow_mut();
        for spec in &self.gate.image.manifest.services {
            let service = seen.services.entry(spec.name.clone()).or_default();
            if service.ready_after.is_none() && service.lost.is_none() {
                service.lost = service.deaths.last().cloned();
            }
        }
    }

    /// Keeps a picture of the desktop as it is, if there is one.
    async fn photograph(&self, opener: &Opener) {
        let taken = timeout(PAINTED, async {
            let mut frames = LinkFrameSource::new(opener.open(StreamKind::Frames).await?);
            let (mut frame, mut screen) = (Frame::default(), Screen::default());
            frames.next(Request::Everything, &mut frame).await?;
            let (width, height) = frame.screen_size();
            screen.resize(width, height)?;
            for (rect, pixels) in frame.rects() {
                screen.apply(rect, pixels)?;
            }
            anyhow::Ok(screen.png()?)
        });
        // Without one the report is without one.
        if let Ok(Ok(picture)) = taken.await {
            self.seen.borrow_mut().picture = Some(picture);
        }
    }

    /// Takes frames until the page's bars are in them, as a viewer would see them.
    async fn look(&self, opener: &Opener) {
        let mut screen = Screen::default();
        let mut last = None;
        let painted = timeout(PAINTED, async {
            let stream = opener.open(StreamKind::Frames).await?;
            let mut frames = LinkFrameSource::new(stream);
            let (mut frame, mut request) = (Frame::default(), Request::Everything);
            loop {
                frames.next(request, &mut frame).await?;
                let (width, height) = frame.screen_size();
                screen.resize(width, height)?;
                for (rect, pixels) in frame.rects() {
                    screen.apply(rect, pixels)?;
                }
                let viewed = view(&screen, Codec::Vp9)?;
                let shows = BARS.iter().all(|bar| viewed.part_of(*bar) >= LEAST_PART);
                last = Some(viewed);
                if shows {
                    return anyhow::Ok(());
                }
                request = Request::Changes;
            }
        });
        let painted = painted.await;
        let has_browser = self.is_ready("browser");
        let mut seen = self.seen.borrow_mut();
        if has_browser || seen.picture.is_none() {
            seen.picture = screen.png().ok();
        }
        seen.viewed = Some(match (last, painted) {
            (Some(viewed), Ok(Ok(())) | Err(_)) => Ok(viewed),
            (_, Ok(Err(error))) => Err(format!("{error:#}")),
            (None, _) => Err(format!("no frame came within {} s", PAINTED.as_secs())),
        });
    }

    async fn run_program(&self, opener: &Opener, program: &ProgramSpec) -> Ran {
        let check = Check::Run {
            name: program.name.clone(),
            command: program.command.clone(),
            env: BTreeMap::new(),
            seconds: program.seconds,
        };
        let patience = Duration::from_secs(program.seconds.into()) + ANSWER;
        let failed = |sentence: String| Explanation {
            cause: Cause::Unknown,
            sentence,
            evidence: Vec::new(),
            confidence: Confidence::Unknown,
            advice: None,
        };
        let event = match ask(opener, &check, patience).await {
            Ok(Checked::Ran { event }) => event,
            other => {
                let failure = Some(failed(refusal(other)));
                return Ran { lines: Vec::new(), lived_ms: 0, failure };
            }
        };
        self.keep_fault(&event);
        let (lines, lived_ms, well) = match &event {
            ServiceEvent::Exited { exit, last_lines, lived_ms, .. } => {
                let well = *exit == anteroom_guest_protocol::ProcessExit::Exited { code: 0 };
                (printable_lines(last_lines), *lived_ms, well)
            }
            ServiceEvent::Failed { last_lines, lived_ms, .. } => {
                (printable_lines(last_lines), *lived_ms, false)
            }
            _ => (Vec::new(), 0, false),
        };
        if well {
            let wanted = program.prints.as_deref().unwrap_or_default();
            let prints = lines.iter().any(|line| line.contains(wanted)) || wanted.is_empty();
            let failure = (!prints).then(|| {
                let said = lines.last().map(String::as_str).unwrap_or_default();
                failed(format!("it ended well and printed {said:?}, without {wanted:?}"))
            });
            return Ran { lines, lived_ms, failure };
        }
        let told = self.explainer.borrow().of_service(&program.name, false, event);
        let failure = match told {
            Ok(Some(
                Observation::ServiceExited { explanation, .. }
                | Observation::ServiceGivenUp { explanation, .. },
            )) => *explanation,
            Ok(_) => failed("the guest told nothing of its end".to_owned()),
            Err(reason) => explained(&reason),
        };
        Ran { lines, lived_ms, failure: Some(failure) }
    }
}

/// A room that is proven reaches nobody.
async fn refuse(mut incoming: Incoming) {
    while let Some(stream) = incoming.next().await {
        drop(stream);
    }
}

async fn ask(opener: &Opener, check: &Check, patience: Duration) -> Result<Checked> {
    let asked = async {
        let mut stream = opener.open(StreamKind::Check).await?;
        write_message(&mut stream, check, MAX_CONTROL_MESSAGE).await?;
        let answer = read_message(&mut stream, MAX_CONTROL_MESSAGE).await?;
        anyhow::Ok(answer.context("the guest closed the stream without an answer")?)
    };
    match timeout(patience, asked).await {
        Ok(answer) => answer,
        Err(_) => bail!("the guest gave no answer within {} s", patience.as_secs()),
    }
}

/// Why there is no answer.
fn refusal(answer: Result<Checked>) -> String {
    match answer {
        Ok(Checked::Failed { cause }) => printable(&cause),
        Ok(_) => "the guest answered another question".to_owned(),
        Err(error) => printable(&format!("{error:#}")),
    }
}

async fn opened_files(opener: &Opener) -> Result<BTreeSet<String>, String> {
    let mut all = BTreeSet::new();
    let mut skip = 0;
    loop {
        let check = Check::OpenedFiles { skip };
        let (paths, more) = match ask(opener, &check, ANSWER).await {
            Ok(Checked::OpenedFiles { paths, more }) => (paths, more),
            other => return Err(refusal(other)),
        };
        skip += u32::try_from(paths.len()).unwrap_or(u32::MAX).min(1 << 16);
        all.extend(paths.iter().take(MAX_OPENED_FILES).map(|path| printable(path)));
        if !more || paths.is_empty() || all.len() > MAX_OPENED {
            return Ok(all);
        }
    }
}

fn cleaned_page(page: PageFacts) -> PageFacts {
    let without_glyphs = page.without_glyphs.iter().take(20).map(|name| printable(name)).collect();
    PageFacts { user_agent: printable(&page.user_agent), without_glyphs, ..page }
}
