//! What a death means: the vocabulary in which the crate `crash` explains it.

use serde::{Deserialize, Serialize};

/// What a death means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Explanation {
    /// The kind of cause.
    pub cause: Cause,
    /// One sentence: what happened to which service.
    pub sentence: String,
    /// The evidence, a line each.
    pub evidence: Vec<String>,
    /// How certain the explanation is.
    pub confidence: Confidence,
    /// What to do; absent where there is no useful advice.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// How certain an explanation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The kernel or the processor said so.
    Certain,
    /// The evidence fits nothing else that is known, or it is the program's own word.
    Likely,
    /// The evidence does not show the cause.
    Unknown,
}

/// Kinds of causes, as metrics count them.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    utoipa::ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// An instruction that this processor does not have.
    MissingCpuFeature,
    /// The program stopped itself by an instruction made for that (`ud2`, `int3`).
    DeliberateTrap,
    /// The processor refused an instruction for another reason.
    BadInstruction,
    /// Memory that is not there, or may not be used so.
    BadMemoryAccess,
    /// The stack was used up.
    StackOverflow,
    /// An arithmetic fault, as a division by zero.
    BadArithmetic,
    /// The kernel had no more memory to give.
    OutOfMemory,
    /// The program called `abort`.
    Aborted,
    /// A check of the program's own failed: an assertion, a panic.
    FailedCheck,
    /// An exception that nobody caught.
    UncaughtException,
    /// Its source text or its configuration cannot be read.
    SyntaxError,
    /// The program is not there.
    MissingProgram,
    /// The program's interpreter is not there.
    MissingInterpreter,
    /// A library, a symbol or a module that it needs is not there.
    MissingLibrary,
    /// The file may not be executed, or is no program.
    NotExecutable,
    /// Something that it wanted to use is denied to it.
    PermissionDenied,
    /// An address or a lock that it needs is another's.
    AlreadyInUse,
    /// A system call that its sandbox forbids.
    ForbiddenSystemCall,
    /// A limit of its own: processor time, file size.
    LimitReached,
    /// It did not answer any more.
    Stall,
    /// The guest's kernel panicked.
    KernelPanic,
    /// The guest restarted or shut itself down.
    GuestEndedItself,
    /// Somebody sent it a signal.
    KilledBySignal,
    /// It ended by itself and said why.
    EndedBySelf,
    /// It was seen and not understood.
    Unknown,
}

impl Cause {
    /// Its stable name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MissingCpuFeature => "missing_cpu_feature",
            Self::DeliberateTrap => "deliberate_trap",
            Self::BadInstruction => "bad_instruction",
            Self::BadMemoryAccess => "bad_memory_access",
            Self::StackOverflow => "stack_overflow",
            Self::BadArithmetic => "bad_arithmetic",
            Self::OutOfMemory => "out_of_memory",
            Self::Aborted => "aborted",
            Self::FailedCheck => "failed_check",
            Self::UncaughtException => "uncaught_exception",
            Self::SyntaxError => "syntax_error",
            Self::MissingProgram => "missing_program",
            Self::MissingInterpreter => "missing_interpreter",
            Self::MissingLibrary => "missing_library",
            Self::NotExecutable => "not_executable",
            Self::PermissionDenied => "permission_denied",
            Self::AlreadyInUse => "already_in_use",
            Self::ForbiddenSystemCall => "forbidden_system_call",
            Self::LimitReached => "limit_reached",
            Self::Stall => "stall",
            Self::KernelPanic => "kernel_panic",
            Self::GuestEndedItself => "guest_ended_itself",
            Self::KilledBySignal => "killed_by_signal",
            Self::EndedBySelf => "ended_by_self",
            Self::Unknown => "unknown",
        }
    }

    /// Whether starting it again cannot change anything: the same file meets the same machine.
    #[must_use]
    pub fn stays(self) -> bool {
        matches!(
            self,
            Self::MissingCpuFeature
                | Self::SyntaxError
                | Self::MissingProgram
                | Self::MissingInterpreter
                | Self::MissingLibrary
                | Self::NotExecutable
                | Self::ForbiddenSystemCall
        )
    }
}

impl Explanation {
    /// Of this kind, this sure, in this sentence; without evidence and advice yet.
    #[must_use]
    pub fn new(cause: Cause, confidence: Confidence, sentence: String) -> Self {
        Self { cause, sentence, evidence: Vec::new(), confidence, advice: None }
    }

    /// With advice.
    #[must_use]
    pub fn advise(mut self, advice: &str) -> Self {
        self.advice = Some(advice.to_owned());
        self
    }

    /// With further lines of evidence.
    #[must_use]
    pub fn resting_on(mut self, evidence: impl IntoIterator<Item = String>) -> Self {
        self.evidence.extend(evidence);
        self
    }
}
