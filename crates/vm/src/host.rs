//! The agent on this machine: no VM, no isolation. For tests and benchmarks at native speed.

use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anteroom_session::{Accelerator, SessionId};
use command_fds::{CommandFdExt, FdMapping};

use crate::console::ConsoleFile;
use crate::process::{RunningVm, unprivileged_user};
use crate::{BootError, Driver, SESSION_ENV};

/// The link's descriptor as the agent sees it.
const LINK: RawFd = 10;

/// The agent's process.
#[derive(Clone, Debug)]
pub struct HostSpec {
    /// The agent binary.
    pub agent: PathBuf,
    /// Folder for all it writes; made here, removed by whoever boots.
    pub runtime_dir: PathBuf,
    /// Where its output goes.
    pub console_log: PathBuf,
    /// Largest size of that file in bytes.
    pub console_log_limit: u64,
}

/// The driver.
#[derive(Clone, Copy, Debug, Default)]
pub struct Host;

impl Driver for Host {
    type Spec = HostSpec;

    fn boot(&self, session: SessionId, spec: HostSpec) -> Result<RunningVm, BootError> {
        make_runtime_dir(&spec)?;
        let (link, agent_link) =
            UnixStream::pair().map_err(BootError::system("making the guest link"))?;
        let (console, agent_console) =
            UnixStream::pair().map_err(BootError::system("making the console"))?;
        let second = agent_console.try_clone().map_err(BootError::system("making the console"))?;
        let mut command = Command::new(&spec.agent);
        command
            .args(["--host-driver", "--link-fd", &LINK.to_string()])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &spec.runtime_dir)
            .env("ANTEROOM_RUNTIME_DIR", &spec.runtime_dir)
            .env(SESSION_ENV, session.to_string())
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(agent_console))
            .stderr(OwnedFd::from(second));
        command
            .fd_mappings(vec![FdMapping { parent_fd: agent_link.into(), child_fd: LINK }])
            .map_err(|_| std::io::Error::other("two descriptors have one number"))
            .map_err(BootError::system("passing the link to the agent"))?;
        let file = ConsoleFile { path: spec.console_log, limit: spec.console_log_limit };
        RunningVm::start(command, Accelerator::None, link.into(), console.into(), &file)
    }
}

/// Private to whoever the agent will run as.
fn make_runtime_dir(spec: &HostSpec) -> Result<(), BootError> {
    use std::os::unix::fs::DirBuilderExt;
    let failed = |source| BootError::File { path: spec.runtime_dir.clone(), source };
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&spec.runtime_dir)
        .map_err(failed)?;
    if let Some(user) = unprivileged_user() {
        std::os::unix::fs::chown(&spec.runtime_dir, Some(user), Some(user)).map_err(failed)?;
    }
    Ok(())
}
