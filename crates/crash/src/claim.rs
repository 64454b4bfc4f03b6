//! What a sentence may say: each claim is about something in the evidence, and says how sure an
//! explanation can be that rests on it. Sentences are made of nothing else, so that one property test
//! (`claim/tests.rs`) holds all of them to all evidence.

use anteroom_cpu::Feature;
use anteroom_guest_protocol::{NotStarted, ProcessExit, Sender, Stall};
use anteroom_session::{Cause, Confidence, Explanation, named_signal};

use super::{numbers, process_exit, seconds};

mod dumped;

pub(crate) use dumped::{Access, AtAddress, Dumped};

/// One thing that is said of a death. The first of a sentence follows the service's name, the others
/// follow it with their own punctuation.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Claim {
    Exited(i32),
    EndedWithoutError,
    EndedBy(i32),
    /// `abort`, by the program itself.
    AbortedItself,
    /// Milliseconds; nothing where they are not known.
    After(Option<u64>),
    GoneUnseen,
    NotStarted(NotStarted),

    /// Its own words, as what it died of.
    LastMessage(String),
    OwnMessage(String),
    /// A loader's, in place of a program.
    CouldNotStart(String),
    /// Its last line, which may have nothing to do with it.
    LastLine(String),
    /// One of its last lines, which may have nothing to do with it either.
    AmongLast(String),
    PrintedNothing,
    OutputUnseen,
    /// The message that its C library keeps in memory.
    KeptMessage(String),
    CaughtFault {
        signal: Option<i32>,
        lived: Option<u64>,
        exit: ProcessExit,
        line: String,
    },
    /// Its words about its processor, and what they say it lacks.
    Complaint {
        lacks: Option<String>,
        phrase: String,
    },

    /// What a shell means by its code 126 or 127.
    ShellCouldNot(i32),
    /// The signal that a shell's child was ended by.
    ShellsChild(i32),
    /// What programs do that are ended so, unless a process sent it.
    Typical(i32),
    SomebodySent(i32),
    NoDump,
    /// Its core dump has no code for what raised the signal.
    DumpWithoutCause,
    /// Who may have sent SIGKILL.
    Killers {
        log_read: bool,
    },
    LimitReached(i32),

    KilledForMemory,
    ChildKilledForMemory {
        child: String,
        exit: Option<ProcessExit>,
    },
    /// The service's own.
    MemoryLimit(u64),
    /// Of a group that the service's limit is not of.
    GroupLimit,
    NoMemoryLeft,
    MemoryPeak(u64),
    Unanswering(Stall),
    Doing(Stall),

    CpuLacks {
        cpu: String,
        features: Vec<Feature>,
    },
    CpuHasAll {
        cpu: String,
        features: Vec<Feature>,
    },
    /// Of some of them it says nothing.
    CpuLeavesToHost {
        cpu: String,
        features: Vec<Feature>,
    },
    CpuUnknown,

    /// Of its core dump.
    Dumped(Dumped),
    /// Sent by a process, as its core dump says.
    Sent {
        signal: i32,
        lived: Option<u64>,
        sender: Option<Sender>,
    },
    /// Neither the processor nor a process: by a code of its core dump.
    SentByCode(i32),
}

impl Claim {
    /// The most that an explanation may be which says this.
    fn allows(&self) -> Confidence {
        match self {
            Self::GoneUnseen
            | Self::NotStarted(NotStarted::Other { .. })
            | Self::ShellsChild(_)
            | Self::NoDump
            | Self::DumpWithoutCause
            | Self::CpuHasAll { .. }
            | Self::CpuLeavesToHost { .. } => Confidence::Unknown,
            Self::LastMessage(_)
            | Self::OwnMessage(_)
            | Self::CouldNotStart(_)
            | Self::KeptMessage(_)
            | Self::CaughtFault { .. }
            | Self::Complaint { .. }
            | Self::ShellCouldNot(_)
            | Self::Typical(_)
            | Self::LimitReached(25)
            | Self::SentByCode(_)
            | Self::ChildKilledForMemory { .. } => Confidence::Likely,
            Self::Dumped(dumped) => dumped.allows(),
            _ => Confidence::Certain,
        }
    }

    /// Whether it says something that the program printed.
    pub(crate) fn is_quote(&self) -> bool {
        matches!(self, Self::LastLine(_) | Self::AmongLast(_))
    }

    fn text(&self) -> String {
        match self {
            Self::Exited(code) => process_exit(ProcessExit::Exited { code: *code }).to_string(),
            Self::EndedWithoutError => "exited without an error (code 0)".to_owned(),
            Self::EndedBy(signal) => {
                process_exit(ProcessExit::Signalled { signal: *signal }).to_string()
            }
            Self::AbortedItself => "aborted itself (SIGABRT)".to_owned(),
            Self::After(None) => String::new(),
            Self::After(Some(millis)) => format!(" after {}", seconds(*millis)),
            Self::GoneUnseen => "ended, but how it ended was not observed".to_owned(),
            Self::NotStarted(failure) => format!("could not start: {}", not_started(failure)),
            Self::LastMessage(line) => format!("; its last message: {line}"),
            Self::OwnMessage(line) => format!("; it reported: {line}"),
            Self::CouldNotStart(line) => format!("could not start: {line}"),
            Self::LastLine(line) => format!("; its last line: {line}"),
            Self::AmongLast(line) => format!("; among its last lines: {line}"),
            Self::PrintedNothing => "; it printed nothing".to_owned(),
            Self::OutputUnseen => "; its output was not captured".to_owned(),
            Self::KeptMessage(text) => {
                format!("; its C library's message: {text}")
            }
            Self::CaughtFault { signal, lived, exit, line } => caught(*signal, *lived, *exit, line),
            Self::Complaint { lacks, phrase } => {
                let lacks = lacks.as_deref().unwrap_or("a feature that it does not name");
                format!(", saying that its processor lacks {lacks}: {phrase}")
            }
            Self::ShellCouldNot(126) => {
                "; a shell exits with this code when a program cannot be executed".to_owned()
            }
            Self::ShellCouldNot(_) => {
                "; a shell exits with this code when a program or its interpreter does not exist".to_owned()
            }
            Self::ShellsChild(number) => format!(
                "; a shell exits with this code when {} killed its child, but any program may use it",
                named_signal(*number)
            ),
            Self::Typical(number) => match numbers::typical(*number) {
                Some(what) => format!(
                    "; a program ends this way when it {what}, unless a process sent the signal"
                ),
                None => String::new(),
            },
            Self::SomebodySent(1..=3) => {
                "; the signal came from its terminal or from a process, possibly the program itself".to_owned()
            }
            Self::SomebodySent(_) => "; the signal came from a process, possibly the program itself".to_owned(),
            Self::NoDump => "; there is no core dump that would show where".to_owned(),
            Self::DumpWithoutCause => "; its core dump does not show what raised the signal".to_owned(),
            Self::Killers { log_read: true } => {
                "; the signal came from a process or from the program's own CPU time limit: the kernel's log shows no lack of memory".to_owned()
            }
            Self::Killers { log_read: false } => {
                "; the signal came from a process, from the program's own CPU time limit, or from the kernel because memory ran out (the kernel's log was not read)".to_owned()
            }
            Self::LimitReached(number) => limit_reached(*number),
            Self::KilledForMemory => "was killed by the kernel: out of memory".to_owned(),
            Self::ChildKilledForMemory { child, exit } => format!(
                "{} just after the kernel killed {child}, a process in its process group: out of memory",
                exit.map_or_else(|| "ended".to_owned(), |exit| process_exit(exit).to_string())
            ),
            Self::MemoryLimit(bytes) => format!("; its memory limit is {}", mebibytes(*bytes)),
            Self::GroupLimit => "; a control group reached its memory limit".to_owned(),
            Self::NoMemoryLeft => "; the whole VM ran out".to_owned(),
            Self::MemoryPeak(bytes) => format!("; its peak was {}", mebibytes(*bytes)),
            Self::Unanswering(stall) => unanswering(stall),
            Self::Doing(stall) => format!("; {}", numbers::doing(stall)),
            Self::CpuLacks { cpu, features } => format!("; {cpu} lacks {}", names(features)),
            Self::CpuHasAll { cpu, .. } => {
                format!("; {cpu} has every feature that this needs, so the cause is unknown")
            }
            Self::CpuLeavesToHost { cpu, .. } => format!("; whether {cpu} has every feature that this needs depends on the host"),
            Self::CpuUnknown => "; its processor's features are unknown".to_owned(),
            Self::Dumped(dumped) => dumped.text(),
            Self::Sent { signal, lived, sender } => sent(*signal, *lived, *sender),
            Self::SentByCode(code) => {
                format!("; the signal has the code {code}, which neither a fault nor kill() sets")
            }
        }
    }
}

fn caught(number: Option<i32>, lived: Option<u64>, exit: ProcessExit, line: &str) -> String {
    let fault = number.map_or_else(|| "a fault".to_owned(), named_signal);
    let (ended, after) = (process_exit(exit), Claim::After(lived).text());
    format!("caught {fault}, reported it and {ended}{after}: {line}")
}

fn limit_reached(number: i32) -> String {
    let what =
        if number == 24 { "reached its CPU time limit" } else { "exceeded its file size limit" };
    format!("{what} and was killed by {}", named_signal(number))
}

fn sent(number: i32, lived: Option<u64>, sender: Option<Sender>) -> String {
    let by = match sender {
        Some(Sender::Itself) => "the program itself".to_owned(),
        Some(Sender::Process(pid)) => format!("the process with PID {pid}"),
        None => "a process".to_owned(),
    };
    let (signal, after) = (named_signal(number), Claim::After(lived).text());
    format!("was killed by {signal}{after}: {by} sent the signal, the processor did not raise it")
}

/// How an ELF file begins, and a script behind a byte order mark, in hexadecimal.
pub(crate) const ELF: &str = "7f454c46";
pub(crate) const MARKED: &str = "efbbbf2321";

fn not_started(failure: &NotStarted) -> String {
    match failure {
        NotStarted::NoProgram { program } => format!("the program {program} does not exist"),
        NotStarted::NoInterpreter { program, interpreter } if interpreter.ends_with("\\r") => {
            format!(
                "the interpreter {interpreter} of {program} does not exist, because the first line of the file ends in a carriage return"
            )
        }
        NotStarted::NoInterpreter { program, interpreter } => {
            format!("the interpreter {interpreter} of {program} does not exist")
        }
        NotStarted::NotExecutable { program, mode } => {
            format!("{program} is not executable by its user (mode {:o})", mode & 0o7777)
        }
        NotStarted::NotAProgram { program, begins_with } if begins_with.starts_with(ELF) => {
            format!(
                "{program} starts like a binary but is not a valid one; it is probably truncated or damaged"
            )
        }
        NotStarted::NotAProgram { program, begins_with } if begins_with.starts_with(MARKED) => {
            format!(
                "{program} has a byte order mark before the #! of its first line, so the kernel does not recognise it as a script"
            )
        }
        NotStarted::NotAProgram { program, begins_with } => format!(
            "{program} is neither a script with a first line like #!/bin/sh nor a binary for this machine (it starts with the bytes {begins_with})"
        ),
        NotStarted::OtherProcessor { program, processor } => format!(
            "{program} is a program for another processor ({processor}); this machine's is x86-64"
        ),
        NotStarted::Other { program, errno } => {
            format!("executing {program} failed: {}", std::io::Error::from_raw_os_error(*errno))
        }
    }
}

fn unanswering(stall: &Stall) -> String {
    let (asked, seconds) = (&stall.asked, stall.silent_ms / 1000);
    if asked.is_empty() {
        format!("did not end within {seconds} s")
    } else if stall.was_ready {
        format!("stopped responding for {seconds} s (watchdog: {asked})")
    } else {
        format!("did not become ready within {seconds} s ({asked})")
    }
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes / (1024 * 1024))
}

fn names(features: &[Feature]) -> String {
    let names: Vec<&str> = features.iter().map(|feature| feature.name()).collect();
    match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} and {last}", others.join(", ")),
        None => String::new(),
    }
}

/// An explanation before it is put into words.
#[derive(Clone, Debug)]
pub(crate) struct Diagnosis {
    pub(crate) cause: Cause,
    pub(crate) claims: Vec<Claim>,
    at_most: Confidence,
    advice: Option<String>,
    evidence: Vec<String>,
}

impl Diagnosis {
    pub(crate) fn new(cause: Cause, claims: impl Into<Vec<Claim>>) -> Self {
        let claims = claims.into();
        Self { cause, claims, at_most: Confidence::Certain, advice: None, evidence: Vec::new() }
    }

    /// Not sure, although each claim by itself is.
    pub(crate) fn unknown(self) -> Self {
        Self { at_most: Confidence::Unknown, ..self }
    }

    pub(crate) fn advise(self, advice: impl Into<String>) -> Self {
        Self { advice: Some(advice.into()), ..self }
    }

    pub(crate) fn advise_if(self, advice: Option<impl Into<String>>) -> Self {
        match advice {
            Some(advice) => self.advise(advice),
            None => self,
        }
    }

    pub(crate) fn resting_on(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }

    /// As sure as the weakest of its claims.
    pub(crate) fn confidence(&self) -> Confidence {
        let doubt = |confidence: &Confidence| match confidence {
            Confidence::Certain => 0,
            Confidence::Likely => 1,
            Confidence::Unknown => 2,
        };
        let all = self.claims.iter().map(Claim::allows).chain([self.at_most]);
        all.max_by_key(doubt).unwrap_or(Confidence::Unknown)
    }

    pub(crate) fn explanation(self, service: &str) -> Explanation {
        let claims: String = self.claims.iter().map(Claim::text).collect();
        let sentence = format!("{service} {claims}");
        let explanation = Explanation::new(self.cause, self.confidence(), sentence);
        let explanation = explanation.resting_on(self.evidence);
        match self.advice {
            Some(advice) => explanation.advise(&advice),
            None => explanation,
        }
    }
}

#[cfg(test)]
mod tests;
