//! Firecracker microVMs.
//!
//! What holds Firecracker is what holds QEMU: a file tree and namespaces of its own, the session's user,
//! a cgroup, and refused system calls, beside Firecracker's own filters. Its sockets lie in a folder that
//! goes with that file tree, or without one in the sandbox's folder on this host.

mod api;
mod config;
mod dial;
mod log;
mod monitor;
mod program;
mod snapshot;

use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;

use anteroom_confine::{Limits, SessionUser, filters_of_threads};
use anteroom_guest_protocol::{SANDBOX_ENV, VSOCK_PORT};
use anteroom_session::{Accelerator, DriverKind};
use tokio::net::UnixListener;
use tokio::net::unix::pipe;
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::api::Api;
pub use self::api::ApiError;
use self::config::{
    Action, Balloon, BootSource, Drive, Logger, MachineConfig, Serial, Version, Vm, Vsock,
};
use self::dial::Dial;
use self::log::Log;
use self::monitor::Monitor;
pub use self::program::{Installed, OLDEST, ProgramError};
use self::snapshot::Template;
use crate::descriptors::{INITRAMFS, KERNEL, MEMORY, ROOT_IMAGE, STATE, beginnings, pass, path_of};
use crate::driver::Booting;
use crate::held::Held;
use crate::host::make_runtime_dir;
use crate::link::LinkStream;
use crate::process::{Launch, RunningSandbox};
use crate::spawn_confinement::{SpawnConfinement, Vmm};
use crate::{BootError, Driver, SandboxName, SandboxSpec, VmSpec, VmStart};

/// Descriptors as Firecracker sees them.
const LOG: RawFd = 15;

/// Its sockets' names in their folder.
const API: &str = "api";
const VSOCK: &str = "vsock";

/// Where that folder is in a file tree of its own.
const SOCKETS: &str = "/run";

/// What Firecracker may take beside the guest's memory, in MiB.
const OVERHEAD_MIB: u64 = 64;

/// How long it may take to be seen ended after its socket has closed.
const ECHO: Duration = Duration::from_millis(500);

/// Threads beside those of the guest's processors: the API's, and the VMM's.
const OTHER_THREADS: u64 = 8;

/// Processors' worth of time beside the guest's.
const OTHER_CPUS: u64 = 1;

/// The driver: a VM, and what Firecracker alone understands.
#[derive(Clone, Debug)]
pub struct Firecracker {
    /// The VM.
    pub vm: VmSpec,
    /// The program.
    pub program: PathBuf,
    /// What is changed of the processor that the guest sees: a custom CPU template in JSON, the body of
    /// `PUT /cpu-config`.
    pub cpu_template: Option<String>,
}

impl Firecracker {
    /// Whether the program is there.
    ///
    /// # Errors
    /// [`BootError::Firecracker`] when it is not.
    pub fn installed(program: &Path) -> Result<(), BootError> {
        if program.is_file() { Ok(()) } else { Err(ProgramError::Missing.into()) }
    }

    fn limits(&self) -> Limits {
        let vcpus = u64::from(self.vm.vcpus);
        // What is saved is written, and counted, a second time.
        let copies = if matches!(self.vm.start, VmStart::ToBeSaved { .. }) { 2 } else { 1 };
        Limits {
            memory_bytes: (u64::from(self.vm.memory_mib) * copies + OVERHEAD_MIB) << 20,
            pids: vcpus + OTHER_THREADS,
            cpus: vcpus + OTHER_CPUS,
        }
    }

    async fn start(&self, sandbox: &SandboxSpec) -> Result<RunningSandbox, BootError> {
        let SandboxSpec { name, confinement, console: console_file } = sandbox;
        let has_own_tree = confinement.enclosed().is_some();
        let folder = if has_own_tree { PathBuf::from(SOCKETS) } else { name.runtime_dir() };
        if !has_own_tree {
            make_runtime_dir(&folder, confinement.user)?;
        }
        let (console, guest_console) =
            UnixStream::pair().map_err(BootError::system("making the console"))?;
        let (log, log_end) = log_pipe().map_err(BootError::system("making Firecracker's log"))?;
        let command = self.command(name, &folder, guest_console, log_end)?;
        let vmm = Vmm {
            program: &self.program,
            files: vec![self.vm.kernel.clone(), self.vm.root_image.clone()],
            uses_kvm: true,
            sockets: Some(&folder),
            limits: self.limits(),
        };
        let confined = SpawnConfinement::vmm(name, confinement, vmm)?;
        let mut running = RunningSandbox::start(Launch {
            driver: self.kind(),
            accelerator: Accelerator::Kvm,
            command,
            confined,
            console: console.into(),
            console_file,
        })?;
        let mut log = Log::follow(log);
        let seen_here = if has_own_tree {
            PathBuf::from(format!("/proc/{}/root{SOCKETS}", running.pid))
        } else {
            folder.clone()
        };
        let (api, vsock) = (seen_here.join(API), folder.join(VSOCK));
        let set_up = tokio::select! {
            set_up = self.set_up(&api, &vsock) => set_up,
            // Before its socket is there no call would fail.
            _ = running.wait() => {
                Err(BootError::system("waiting for Firecracker")(io::ErrorKind::BrokenPipe))
            }
        };
        let api = match set_up {
            Ok(api) => Rc::new(api),
            Err(error) => {
                let last_lines = async || {
                    let _ = timeout(ECHO, log.closed()).await;
                    log.lines()
                };
                return Err(running.ended_in_place_of(error, "Firecracker", last_lines).await);
            }
        };
        let vsock = seen_here.join(VSOCK);
        let (link, runs) = self.link(&vsock, confinement.user).await?;
        let is_clone = self.vm.start.is_clone();
        let held = Configured { api: api.clone(), pid: running.pid, is_clone, runs };
        let running = match self.vm.start {
            VmStart::ToBeSaved { .. } => running.saved_by(Template::new(api.clone())),
            VmStart::PowerOn | VmStart::Clone { .. } => running,
        };
        Ok(running.linked_by(link).inspected_by(Monitor { api, log }).held_by(held))
    }

    /// The link, and whom to notify when the guest runs.
    async fn link(
        &self,
        vsock: &Path,
        user: Option<SessionUser>,
    ) -> Result<(LinkStream, oneshot::Sender<()>), BootError> {
        let (resumed, runs) = oneshot::channel();
        if self.vm.start.is_clone() {
            let dial = Dial::prepare(vsock)
                .await
                .map_err(BootError::system("connecting to the VM's vsock device"))?;
            return Ok((LinkStream::dialled(dial.guest(runs)), resumed));
        }
        let mut path = vsock.to_path_buf();
        path.set_file_name(format!("{VSOCK}_{VSOCK_PORT}"));
        let listener =
            listen(&path, user).map_err(BootError::system("listening for the guest link"))?;
        Ok((LinkStream::awaited(listener), resumed))
    }

    /// Firecracker with its sockets in `folder`.
    fn command(
        &self,
        name: &SandboxName,
        folder: &Path,
        console: UnixStream,
        log: OwnedFd,
    ) -> Result<Command, BootError> {
        let second = console.try_clone().map_err(BootError::system("making the console"))?;
        let mut command = Command::new(&self.program);
        command
            .arg("--api-sock")
            .arg(folder.join(API))
            .args(["--id", name.as_str()])
            .env_clear()
            .env(SANDBOX_ENV, name.as_str())
            .stdin(Stdio::null())
            // The guest's serial port; and Firecracker's own panics, which explain an early death.
            .stdout(OwnedFd::from(console))
            .stderr(OwnedFd::from(second));
        let descriptors = self.files()?.into_iter().chain([(log, LOG)]);
        pass(&mut command, descriptors)
            .map_err(BootError::system("passing descriptors to Firecracker"))?;
        Ok(command)
    }

    /// What Firecracker opens by path, each with its number there: a clone's are its template's.
    fn files(&self) -> Result<Vec<(OwnedFd, RawFd)>, BootError> {
        let mut files = beginnings(&self.vm)?;
        if let Some(saved) = self.vm.start.files()? {
            for (file, number) in saved.into_iter().zip([MEMORY, STATE]) {
                let own = file.try_clone();
                files.push((own.map_err(BootError::system("passing the VM's memory"))?, number));
            }
        }
        Ok(files)
    }

    async fn set_up(&self, socket: &Path, vsock: &Path) -> Result<Api, BootError> {
        let api = Api::connect(socket).await?;
        self.configure(&api, vsock).await?;
        Ok(api)
    }

    async fn configure(&self, api: &Api, vsock: &Path) -> Result<(), BootError> {
        let Version { firecracker_version } = api.get("/version").await?;
        program::check_version(&firecracker_version)?;
        api.put("/logger", &Logger::to(path_of(LOG))).await?;
        if self.vm.start.is_clone() {
            return Ok(snapshot::load(api, vsock).await?);
        }
        api.put("/machine-config", &MachineConfig::of(&self.vm)).await?;
        if let Some(template) = &self.cpu_template {
            api.put_json("/cpu-config", template.clone()).await?;
        }
        api.put("/boot-source", &BootSource::new(path_of(KERNEL), path_of(INITRAMFS))).await?;
        api.put("/drives/image", &Drive::image(path_of(ROOT_IMAGE))).await?;
        api.put("/vsock", &Vsock::at(vsock.display().to_string())).await?;
        api.put("/entropy", &serde_json::json!({})).await?;
        api.put("/balloon", &Balloon::empty()).await?;
        api.put("/serial", &Serial::bounded()).await?;
        Ok(())
    }
}

impl Driver for Firecracker {
    fn kind(&self) -> DriverKind {
        DriverKind::Firecracker
    }

    fn boot<'a>(&'a self, sandbox: &'a SandboxSpec) -> Booting<'a> {
        Box::pin(self.start(sandbox))
    }
}

/// A VM that Firecracker knows all of.
struct Configured {
    api: Rc<Api>,
    pid: u32,
    is_clone: bool,
    /// Whoever waits for it.
    runs: oneshot::Sender<()>,
}

impl Held for Configured {
    fn release<'a>(self: Box<Self>) -> Pin<Box<dyn Future<Output = Result<(), BootError>> + 'a>>
    where
        Self: 'a,
    {
        Box::pin(async move {
            if self.is_clone {
                self.api.patch("/vm", &Vm::RESUMED).await?;
            } else {
                self.api.put("/actions", &Action::INSTANCE_START).await?;
            }
            // One filter is ours; Firecracker sets its own for each thread before the guest runs.
            let threads = filters_of_threads(self.pid)
                .map_err(BootError::system("looking at the filters of Firecracker's threads"))?;
            if let Some(found) = threads.iter().find(|thread| thread.filters < 2) {
                return Err(BootError::Unfiltered { thread: found.thread.clone() });
            }
            // Nobody waits where the guest connects.
            let _ = self.runs.send(());
            Ok(())
        })
    }
}

/// A socket that Firecracker connects to when the guest does (docs/vsock.md).
fn listen(path: &Path, user: Option<SessionUser>) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    if let Some(user) = user {
        std::os::unix::fs::lchown(path, Some(user.id()), Some(user.id()))?;
    }
    Ok(listener)
}

/// A pipe that Firecracker opens anew, as another user.
fn log_pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    use nix::fcntl::OFlag;
    let (reads, writes) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    nix::sys::stat::fchmod(&writes, nix::sys::stat::Mode::from_bits_truncate(0o666))?;
    Ok((pipe::Receiver::from_owned_fd(reads)?, writes))
}

/// As one line of bounded length, harmless to a terminal.
fn one_line(text: &str) -> String {
    const LONGEST: usize = 400;
    let clean: String = text
        .chars()
        .map(|c| if c.is_whitespace() { ' ' } else { c })
        .filter(|c| !anteroom_guest_protocol::is_harmful(*c))
        .take(LONGEST)
        .collect();
    clean.trim().to_owned()
}
