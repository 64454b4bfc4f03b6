//! All that the runner knows of its session.

use std::net::SocketAddr;

use anteroom_guest_session::SandboxConfig;
use anteroom_runner_protocol::{SessionConfig, SignInConfig};

/// The sandbox, and the session that it is for.
#[derive(Debug)]
pub struct RunnerConfig {
    /// What was booted.
    pub sandbox: SandboxConfig,
    /// Who signs in to what.
    pub sign_in: SignInConfig,
    /// Addresses of the media demultiplexer that viewers can reach.
    pub candidates: Vec<SocketAddr>,
}

impl RunnerConfig {
    /// A sandbox's session begins.
    pub fn of(sandbox: SandboxConfig, session: SessionConfig) -> Self {
        let SessionConfig { sign_in, candidates } = session;
        Self { sandbox, sign_in, candidates }
    }
}
