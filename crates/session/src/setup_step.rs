//! The steps that set a session up, beside its sandbox.

use serde::{Deserialize, Serialize};

/// A step between a session's start and its sign-in that is not the sandbox's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(strum::EnumIter))]
#[serde(rename_all = "snake_case")]
pub enum SetupStep {
    /// The session's node starts its runner.
    StartRunner,
    /// The runner reads the golden image and compares it with its digest.
    CheckImage,
    /// The runner creates the log of the sandbox's services.
    CreateServiceLog,
    /// The runner gives up its rights, and reads from the kernel what confines the sandbox.
    Confine,
    /// The egress gate is made as the provider file describes it.
    OpenEgressGate,
    /// The viewers' media is started.
    StartMedia,
    /// The patterns of the provider file are compiled.
    CompilePatterns,
}

impl SetupStep {
    /// As in "… failed".
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::StartRunner => "starting its runner",
            Self::CheckImage => "checking its golden image",
            Self::CreateServiceLog => "creating the log of its services",
            Self::Confine => "confining its processes",
            Self::OpenEgressGate => "setting up its egress gate",
            Self::StartMedia => "starting its media stream",
            Self::CompilePatterns => "compiling the patterns of its provider file",
        }
    }
}
