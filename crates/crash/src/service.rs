//! A service's change, as the guest reports it, as what it is to the session. What the guest sent is
//! bounded and cleaned here, and explained by the processor that the guest itself runs on.

use anteroom_cpu::{CpuProfile, CpuidDump, CpuidLeaf};
use anteroom_guest_protocol::{
    Evidence, GuestCpu, MAX_CHILDREN, MAX_CPUID_LEAVES, NotStarted, ProcessExit, ServiceEvent,
    Then, printable, printable_lines,
};
use anteroom_session::counted::counted;
use anteroom_session::{EndReason, Explanation, Observation, service_title};

use crate::{Cpu, Death, explain, process_exit, seconds};

/// Things unseen that are listed.
const MAX_UNSEEN: usize = 8;

/// Explains the deaths of one guest.
#[derive(Clone, Debug)]
pub struct Explainer {
    cpu: Option<Cpu>,
}

/// One death, as the guest reports it.
struct Reported<'a> {
    /// What the sentence calls it, cleaned.
    title: &'a str,
    /// Its wait status, if it ran and ended.
    exit: Option<ProcessExit>,
    /// How long it lived, in milliseconds, where that is known.
    lived_ms: Option<u64>,
    /// Its last lines, as the guest sent them; `None` where its output was not seen.
    last_lines: Option<&'a [String]>,
    /// What else was seen, as the guest sent it.
    evidence: Evidence,
}

impl Explainer {
    /// For a guest that has said hello; `model` is how its processor is called.
    #[must_use]
    pub fn new(model: &str, cpu: &GuestCpu) -> Self {
        let profile = processor_of(cpu);
        Self { cpu: profile.map(|profile| Cpu { name: model.to_owned(), profile }) }
    }

    /// Why.
    fn explain(&self, reported: Reported<'_>) -> Box<Explanation> {
        let last_lines = reported.last_lines.map(printable_lines);
        let evidence = cleaned(reported.evidence);
        Box::new(explain(&Death {
            service: reported.title,
            exit: reported.exit,
            lived_ms: reported.lived_ms,
            last_lines: last_lines.as_deref(),
            evidence: &evidence,
            cpu: self.cpu.as_ref(),
        }))
    }

    /// What a service's change means for the session: something to report, nothing, or the end.
    ///
    /// # Errors
    /// The session's end, when a service that it needs is not to be had any more.
    pub fn of_service(
        &self,
        name: &str,
        needed: bool,
        event: ServiceEvent,
    ) -> Result<Option<Observation>, EndReason> {
        self.of_event(name, &service_title(name), needed, event)
    }

    /// What is reported of a program that ran to its end in place of a service.
    ///
    /// # Errors
    /// As of a service; no program is one that a session needs.
    pub fn of_program(
        &self,
        name: &str,
        event: ServiceEvent,
    ) -> Result<Option<Observation>, EndReason> {
        self.of_event(name, &format!("the program {name}"), false, event)
    }

    fn of_event(
        &self,
        name: &str,
        title: &str,
        needed: bool,
        event: ServiceEvent,
    ) -> Result<Option<Observation>, EndReason> {
        let service = name.to_owned();
        Ok(Some(match event {
            ServiceEvent::Started { .. } => return Ok(None),
            ServiceEvent::Ready {} => Observation::ServiceReady { service },
            ServiceEvent::Exited { exit, lived_ms, last_lines, evidence, deaths, then } => {
                let reported = Reported {
                    title,
                    exit: Some(exit),
                    lived_ms: Some(lived_ms),
                    last_lines: Some(&last_lines),
                    evidence: *evidence,
                };
                if name == "cli" {
                    let explanation = Some(self.explain(reported));
                    let (exit, last_lines) = (process_exit(exit), printable_lines(&last_lines));
                    return Err(EndReason::CliExited {
                        exit,
                        left_credential: false,
                        last_lines,
                        explanation,
                    });
                }
                let mut explanation = self.explain(reported);
                let (exit, last_lines) = (process_exit(exit), printable_lines(&last_lines));
                let then_text = then_text(then, deaths);
                if needed && !matches!(then, Then::Restart { .. }) {
                    explanation.sentence = format!("{}; {then_text}", explanation.sentence);
                    let (cause, explanation) = (format!("it {exit}"), Some(explanation));
                    return Err(EndReason::ServiceFailed {
                        service,
                        cause,
                        last_lines,
                        explanation,
                    });
                }
                Observation::ServiceExited { service, explanation, then: then_text }
            }
            ServiceEvent::Failed { cause, last_lines, evidence, exit, lived_ms } => {
                // Without evidence the agent's own words say more than "unknown".
                let explained = exit.is_some() || *evidence != Evidence::default();
                let reported = Reported {
                    title,
                    exit,
                    lived_ms: Some(lived_ms),
                    last_lines: Some(&last_lines),
                    evidence: *evidence,
                };
                let mut explanation = self.explain(reported);
                let (cause, last_lines) = (printable(&cause), printable_lines(&last_lines));
                if needed {
                    let explanation = explained.then_some(explanation);
                    return Err(EndReason::ServiceFailed {
                        service,
                        cause,
                        last_lines,
                        explanation,
                    });
                }
                if !explained {
                    explanation.sentence = format!("{title} could not be supervised: {cause}");
                }
                Observation::ServiceGivenUp { service, explanation }
            }
            ServiceEvent::ChildDied { child, evidence } => {
                let explanation = self.explain_child(&child, title, *evidence);
                Observation::ChildDied { service, explanation }
            }
        }))
    }

    /// Why a child of a service died. Its wait status is its parent's: only a core dump shows the signal.
    fn explain_child(&self, child: &str, parent: &str, evidence: Evidence) -> Box<Explanation> {
        let signal = evidence.fault.as_ref().map(|fault| fault.signal);
        self.explain(Reported {
            title: &format!("{}, started by {parent},", printable(child)),
            exit: signal.map(|signal| ProcessExit::Signalled { signal }),
            lived_ms: None,
            last_lines: None,
            evidence,
        })
    }
}

/// The end of a session whose agent says that it cannot go on.
#[must_use]
pub fn agent_failed(cause: &str) -> EndReason {
    EndReason::ServiceFailed {
        service: "agent".to_owned(),
        cause: printable(cause),
        last_lines: Vec::new(),
        explanation: None,
    }
}

/// The processor that a guest says it has; none where it has not said anything, rather than one
/// without features.
#[must_use]
pub fn processor_of(cpu: &GuestCpu) -> Option<CpuProfile> {
    let leaves = cpu.leaves.iter().take(MAX_CPUID_LEAVES).map(|leaf| {
        let [leaf, subleaf, eax, ebx, ecx, edx] = *leaf;
        CpuidLeaf { leaf, subleaf, eax, ebx, ecx, edx }
    });
    let dump = CpuidDump::new(leaves.collect(), cpu.xcr0).ok()?;
    (!dump.leaves().is_empty()).then(|| CpuProfile::of_host(dump))
}

/// What the supervisor does, as the end of a sentence.
fn then_text(then: Then, deaths: u32) -> String {
    match then {
        Then::Restart { after_ms: 0 } => "it is being restarted".to_owned(),
        Then::Restart { after_ms } => format!("it will be restarted in {}", seconds(after_ms)),
        Then::Useless {} => "it will not be restarted, because that would not help".to_owned(),
        Then::TooOften {} => {
            let times = counted(deaths, "time", "times");
            format!("it has died {times} and will not be restarted")
        }
        Then::Nothing {} => "it will not be restarted".to_owned(),
    }
}

/// A guest's words without control characters, each bounded.
fn cleaned(mut evidence: Evidence) -> Evidence {
    if let Some(fault) = &mut evidence.fault {
        clean(&mut fault.thread);
        clean(&mut fault.program);
        clean(&mut fault.instruction);
        fault.last_message.iter_mut().for_each(clean);
        fault.unseen.truncate(MAX_UNSEEN);
        fault.unseen.iter_mut().for_each(clean);
        for mapping in [&mut fault.code_mapping, &mut fault.near_address].into_iter().flatten() {
            clean(&mut mapping.path);
            clean(&mut mapping.permissions);
            mapping.build_id.iter_mut().for_each(clean);
        }
        fault.symbol.iter_mut().for_each(|symbol| clean(&mut symbol.name));
    }
    if let Some(oom) = &mut evidence.out_of_memory {
        clean(&mut oom.line);
        oom.child.iter_mut().for_each(clean);
    }
    if let Some(stall) = &mut evidence.stall {
        clean(&mut stall.asked);
        clean(&mut stall.state);
        stall.waits_in.iter_mut().for_each(clean);
        stall.children.truncate(MAX_CHILDREN);
        stall.children.iter_mut().for_each(clean);
    }
    match &mut evidence.not_started {
        Some(
            NotStarted::NoProgram { program }
            | NotStarted::NotExecutable { program, .. }
            | NotStarted::Other { program, .. },
        ) => clean(program),
        Some(NotStarted::NoInterpreter { program, interpreter: other })
        | Some(NotStarted::OtherProcessor { program, processor: other })
        | Some(NotStarted::NotAProgram { program, begins_with: other }) => {
            clean(program);
            clean(other);
        }
        None => {}
    }
    evidence
}

fn clean(text: &mut String) {
    *text = printable(text);
}
