//! Starts a session's runner, with the sockets that it inherits.

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::{UnixDatagram as StdUnixDatagram, UnixStream as StdUnixStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anteroom_fail_point::fail_point;
use anteroom_guest_link::{Side, connect};
use anteroom_guest_protocol::SANDBOX_ENV;
use anteroom_guest_session::{ImageFiles, TemplateFiles, VmFiles, log_files};
use anteroom_node_protocol::Reports;
use anteroom_runner_protocol::{
    CHANNELS_FD_ENV, CONTROL_FD_ENV, FirstLine, IMAGE_KERNEL_FD_ENV, IMAGE_MODULES_FD_ENV,
    IMAGE_ROOT_FD_ENV, MEDIA_FD_ENV, TEMPLATE_MEMORY_FD_ENV, TEMPLATE_STATE_FD_ENV,
};
use anteroom_session::HolderGeneration;
use anteroom_vm::SandboxName;
use command_fds::{CommandFdExt, FdMapping};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::sync::{mpsc, watch};

use super::Runner;
use super::control::{read, wait, write};
use crate::error::LocalNodeError;

/// Descriptors as the runner sees them.
const CONTROL: RawFd = 10;
const MEDIA: RawFd = 11;
const CHANNELS: RawFd = 12;
const TEMPLATE_MEMORY: RawFd = 13;
const TEMPLATE_STATE: RawFd = 14;
const IMAGE_ROOT: RawFd = 15;
const IMAGE_KERNEL: RawFd = 16;
const IMAGE_MODULES: RawFd = 17;

/// Reports that may wait for the controller; more wait in the runner.
const REPORTS: usize = 256;

/// From how many bytes on the runner's memory is mapped by itself (mallopt(3); glibc's first value).
const LARGE_BUFFER: &str = "131072";

impl Runner {
    /// Starts a runner, whose sandbox waits for [`Runner::begin`]; `media` is its end of the media socket.
    pub fn start(
        config: FirstLine,
        files: Option<VmFiles>,
        media: StdUnixDatagram,
        environment: &[(&'static str, OsString)],
    ) -> Result<(Self, Reports), LocalNodeError> {
        let (control, runner_control) =
            StdUnixStream::pair().map_err(LocalNodeError::system("making the control socket"))?;
        let (channels, runner_channels) =
            StdUnixStream::pair().map_err(LocalNodeError::system("making the channels' socket"))?;
        channels.set_nonblocking(true)?;
        control.set_nonblocking(true)?;
        let mut command = command(&config.name, &config.log_dir, environment)?;
        let mut mappings = vec![
            (OwnedFd::from(runner_control), CONTROL),
            (OwnedFd::from(media), MEDIA),
            (OwnedFd::from(runner_channels), CHANNELS),
        ];
        for (file, number, variable) in files.iter().flat_map(of_vm) {
            command.env(variable, number.to_string());
            mappings.push((file.try_clone()?, number));
        }
        command
            .fd_mappings(
                mappings
                    .into_iter()
                    .map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd })
                    .collect(),
            )
            .map_err(io::Error::other)
            .map_err(LocalNodeError::system("passing sockets to the runner"))?;
        let mut command = tokio::process::Command::from(command);
        let starting = || LocalNodeError::system("starting its process");
        fail_point("runner.spawn").map_err(starting())?;
        let child = command.spawn().map_err(starting())?;
        drop(command);
        let pid = child.id().ok_or(LocalNodeError::RunnerGone)?;
        fail_point("runner.spawned").map_err(LocalNodeError::system("reaching the runner"))?;
        let (reader, writer) = UnixStream::from_std(control)?.into_split();
        let (commands, queue) = mpsc::channel(32);
        let (reports, watch_reports) = mpsc::channel(REPORTS);
        let waiting = Arc::default();
        let (oldest, watch_oldest) = watch::channel(HolderGeneration::FIRST);
        tokio::spawn(write(config, queue, watch_oldest, writer));
        let reading =
            tokio::spawn(read(BufReader::new(reader), reports.clone(), Arc::clone(&waiting)));
        let (channels, _, drive) = connect(UnixStream::from_std(channels)?, Side::Host);
        // It ends with the runner, whose end is reported elsewhere.
        tokio::spawn(drive);
        let (exited, watch_exit) = watch::channel(None);
        tokio::spawn(wait(child, reading, reports, exited));
        let runner = Self {
            pid,
            commands,
            oldest: Arc::new(oldest),
            waiting,
            exited: watch_exit,
            channels,
            places: Arc::default(),
        };
        Ok((runner, watch_reports))
    }
}

/// The files of a VM, each with its number in the runner, and the variable that says it.
fn of_vm(files: &VmFiles) -> Vec<(&OwnedFd, RawFd, &'static str)> {
    let VmFiles { image: ImageFiles { root, kernel, modules }, template } = files;
    let mut passed: Vec<(&OwnedFd, RawFd, &str)> = vec![
        (root, IMAGE_ROOT, IMAGE_ROOT_FD_ENV),
        (kernel, IMAGE_KERNEL, IMAGE_KERNEL_FD_ENV),
        (modules, IMAGE_MODULES, IMAGE_MODULES_FD_ENV),
    ];
    if let Some(TemplateFiles { memory, state }) = template {
        passed.push((memory, TEMPLATE_MEMORY, TEMPLATE_MEMORY_FD_ENV));
        passed.push((state, TEMPLATE_STATE, TEMPLATE_STATE_FD_ENV));
    }
    passed
}

/// This very program, also when its file was replaced since: both ends speak one version.
fn command(
    sandbox: &SandboxName,
    log_dir: &Path,
    environment: &[(&'static str, OsString)],
) -> Result<Command, LocalNodeError> {
    let log_path = log_dir.join(log_files::RUNNER);
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(&log_path)
        .map_err(LocalNodeError::system(format!("creating {}", log_path.display())))?;
    let mut command = Command::new("/proc/self/exe");
    command
        .arg0("anteroom")
        .arg("session")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env(SANDBOX_ENV, sandbox.as_str())
        .env(CONTROL_FD_ENV, CONTROL.to_string())
        .env(MEDIA_FD_ENV, MEDIA.to_string())
        .env(CHANNELS_FD_ENV, CHANNELS.to_string())
        // An encoder's buffers go back to the system with it: left to itself glibc raises this after
        // the first, keeps those of every later one, and a runner grows with each viewer that comes.
        .env("MALLOC_MMAP_THRESHOLD_", LARGE_BUFFER)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .envs(environment.iter().cloned())
        .envs(anteroom_fail_point::inherited());
    Ok(command)
}
