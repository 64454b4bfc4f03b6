//! What a VM is asked once its services are up: one stream a question, each with a deadline.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use anteroom_guest_link::{Opener, chain, read_message, write_message};
use anteroom_guest_protocol::frames::Request;
use anteroom_guest_protocol::{
    Check, Checked, MAX_CONTROL_MESSAGE, MAX_OPENED_FILES, PageFacts, ProcessExit, ServiceEvent,
    StreamKind, SystemFacts, printable, printable_lines,
};
use anteroom_guest_session::unix_ms;
use anteroom_image::ProgramSpec;
use anteroom_media::Codec;
use anteroom_media::frame_source::{Frame, FrameSource, LinkFrameSource};
use anteroom_media::screen::Screen;
use anteroom_media::viewed::view;
use anteroom_session::Observation;
use tokio::time::timeout;

use crate::guest::{Visit, code_of};
use crate::seen::{At, OWN_SERVICES, Ran, explained, unexplained};

/// How long the services may take to be ready.
const SERVICES: Duration = Duration::from_secs(330);

/// How long services may take before a picture is taken of what is there.
const PICTURE_AFTER: Duration = Duration::from_secs(100);

/// How long it may take to answer a question, beside the time that the question itself gives.
const ANSWER: Duration = Duration::from_secs(150);

/// How long the page may take to be painted once its script has run.
const PAINTED: Duration = Duration::from_secs(30);

/// Most opened files that are kept.
const MAX_OPENED: usize = 20_000;

/// Colours of the bars on the verification page (`crates/agent/src/desktop/browser/verification_page.html`).
pub const BARS: [[u8; 3]; 3] = [[0xc8, 0x1e, 0x5a], [0x1e, 0x78, 0xc8], [0x28, 0xa0, 0x50]];

/// The part of the picture that each bar has at least.
pub const LEAST_PART: f64 = 0.02;

/// Of the link, a frame, or a picture.
type AnyError = Box<dyn std::error::Error>;

/// A PNG of the desktop as it is.
///
/// # Errors
/// Why there is none, as a sentence: the guest sends no frame, or no picture can be made of it.
pub async fn photograph(opener: &Opener) -> Result<Vec<u8>, String> {
    picture(opener).await.map_err(|error| chain(&*error))
}

async fn picture(opener: &Opener) -> Result<Vec<u8>, AnyError> {
    let mut frames = LinkFrameSource::new(opener.open(StreamKind::Frames).await?);
    let (mut frame, mut screen) = (Frame::default(), Screen::default());
    frames.next(Request::Everything, &mut frame).await?;
    screen.show(&frame)?;
    Ok(screen.png()?)
}

impl Visit<'_> {
    /// Asks all there is to ask.
    pub async fn inquire(&self, opener: &Opener) {
        if timeout(PICTURE_AFTER, self.settled()).await.is_err() {
            // The screen may show what keeps a service from being ready, and disappears with the VM.
            self.photograph(opener).await;
            if timeout(SERVICES - PICTURE_AFTER, self.settled()).await.is_err() {
                self.give_up_waiting();
            }
        }
        (self.verifier.progress)("looking at the desktop");
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
        for program in &self.verifier.image.manifest.programs {
            (self.verifier.progress)(&format!("running {}", program.name));
            let ran = self.run_program(opener, program).await;
            self.seen.borrow_mut().programs.insert(program.name.clone(), ran);
        }
        (self.verifier.progress)("asking the guest");
        let system = match ask(opener, &Check::System {}, ANSWER).await {
            Ok(Checked::System(facts)) => {
                let facts = SystemFacts { os: printable(&facts.os), ..facts };
                Ok(At { what: facts, host_unix_ms: unix_ms() })
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
        let declared = self.verifier.image.manifest.services.iter().map(|s| s.name.as_str());
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
            (self.verifier.progress)(&format!("waiting for {}", open.join(", ")));
            self.changed.notified().await;
        }
    }

    fn give_up_waiting(&self) {
        let mut seen = self.seen.borrow_mut();
        for spec in &self.verifier.image.manifest.services {
            let service = seen.services.entry(spec.name.clone()).or_default();
            if service.ready_after.is_none() && service.lost.is_none() {
                service.lost = service.deaths.last().cloned();
            }
        }
    }

    /// Keeps a picture of the desktop as it is, if there is one.
    async fn photograph(&self, opener: &Opener) {
        let taken = timeout(PAINTED, photograph(opener));
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
                screen.show(&frame)?;
                let viewed = view(&screen, Codec::Vp9)?;
                let shows = BARS.iter().all(|bar| viewed.part_of(*bar) >= LEAST_PART);
                last = Some(viewed);
                if shows {
                    return Ok::<_, AnyError>(());
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
            (_, Ok(Err(error))) => Err(chain(&*error)),
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
        let (first_lines, event) = match ask(opener, &check, patience).await {
            Ok(Checked::Ran { first_lines, event }) => (printable_lines(&first_lines), event),
            other => {
                let failure = Some(unexplained(refusal(other)));
                return Ran { first_lines: Vec::new(), lived_ms: 0, failure };
            }
        };
        let (lines, lived_ms, succeeded) = match &event {
            ServiceEvent::Exited { exit, last_lines, lived_ms, .. } => {
                let succeeded = *exit == ProcessExit::Exited { code: 0 };
                (printable_lines(last_lines), *lived_ms, succeeded)
            }
            ServiceEvent::Failed { last_lines, lived_ms, .. } => {
                (printable_lines(last_lines), *lived_ms, false)
            }
            _ => (Vec::new(), 0, false),
        };
        if succeeded {
            let wanted = program.prints.as_deref().unwrap_or_default();
            let mut said = first_lines.iter().chain(&lines);
            let prints = wanted.is_empty() || said.any(|line| line.contains(wanted));
            let failure = (!prints).then(|| {
                let said = lines.last().map(String::as_str).unwrap_or_default();
                unexplained(format!("it succeeded, but printed {said:?} without {wanted:?}"))
            });
            return Ran { first_lines, lived_ms, failure };
        }
        let code = code_of(&event);
        let reported = self.explainer.borrow().of_program(&program.name, event);
        let failure = match reported {
            Ok(Some(
                Observation::ServiceExited { explanation, .. }
                | Observation::ServiceGivenUp { explanation, .. },
            )) => *explanation,
            Ok(_) => unexplained("the guest did not report its end".to_owned()),
            Err(reason) => explained(&reason, self.verifier.vmm.kind()),
        };
        self.keep_reached(code, &failure);
        Ran { first_lines, lived_ms, failure: Some(failure) }
    }
}

async fn ask(opener: &Opener, check: &Check, patience: Duration) -> Result<Checked, String> {
    let asked = async {
        let mut stream = opener.open(StreamKind::Check).await?;
        write_message(&mut stream, check, MAX_CONTROL_MESSAGE).await?;
        read_message(&mut stream, MAX_CONTROL_MESSAGE).await
    };
    match timeout(patience, asked).await {
        Ok(Ok(Some(answer))) => Ok(answer),
        Ok(Ok(None)) => Err("the guest closed the stream without an answer".to_owned()),
        Ok(Err(error)) => Err(chain(&error)),
        Err(_) => Err(format!("the guest did not answer within {} s", patience.as_secs())),
    }
}

/// Why there is no answer.
fn refusal(answer: Result<Checked, String>) -> String {
    match answer {
        Ok(Checked::Failed { cause }) => printable(&cause),
        Ok(_) => "the guest answered another question".to_owned(),
        Err(error) => printable(&error),
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
