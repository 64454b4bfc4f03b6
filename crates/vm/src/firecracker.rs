//! Firecracker microVMs.
//!
//! What holds Firecracker is what holds QEMU: a file tree and namespaces of its own, the session's user,
//! a cgroup, and refused system calls, beside Firecracker's own filters. Its sockets lie in a folder that
//! goes with that file tree, or without one in the sandbox's folder on this host.

mod api;
mod config;
mod configured;
mod dial;
mod log;
mod metrics;
mod monitor;
mod pipe;
mod program;
mod snapshot;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::{Duration, Instant};

use anteroom_confine::{Limits, SessionUser};
use anteroom_guest_protocol::{SANDBOX_ENV, VSOCK_PORT};
use anteroom_session::{Accelerator, DriverKind};
use tokio::net::UnixListener;
use tokio::sync::oneshot;
use tokio::time::timeout;

use self::api::Api;
pub use self::api::ApiError;
use self::config::{
    Balloon, BootSource, Drive, Logger, MachineConfig, MetricsPath, Serial, Version, Vsock,
};
use self::configured::Configured;
use self::dial::Dial;
use self::log::Log;
use self::monitor::Monitor;
use self::pipe::{Followed, pipe};
pub use self::program::{Installed, OLDEST, ProgramError};
use self::snapshot::Template;
use crate::descriptors::{INITRAMFS, KERNEL, MEMORY, ROOT_IMAGE, STATE, beginnings, pass, path_of};
use crate::driver::Booting;
use crate::host::{make_runtime_dir, remove_runtime_dir};
use crate::link::LinkStream;
use crate::process::{Launch, RunningSandbox};
use crate::spawn_confinement::{SpawnConfinement, Vmm};
use crate::{BootError, Driver, SandboxName, SandboxSpec, VmSpec, VmStart};

/// Descriptors as Firecracker sees them.
const LOG: RawFd = 15;
const METRICS: RawFd = 18;

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
        let SandboxSpec { name, confinement, .. } = sandbox;
        if confinement.enclosed().is_some() {
            return self.start_in(Path::new(SOCKETS), sandbox).await;
        }
        let folder = name.runtime_dir();
        make_runtime_dir(&folder, confinement.user)?;
        let started = self.start_in(&folder, sandbox).await;
        if started.is_err() {
            // Whoever asked has no sandbox whose folder it could remove.
            let _ = remove_runtime_dir(&folder, confinement.user);
        }
        started
    }

    /// With its sockets in `folder`.
    async fn start_in(
        &self,
        folder: &Path,
        sandbox: &SandboxSpec,
    ) -> Result<RunningSandbox, BootError> {
        let SandboxSpec { name, confinement, console: console_file } = sandbox;
        let (console, guest_console) =
            UnixStream::pair().map_err(BootError::system("making the console"))?;
        let (log, log_end) = pipe().map_err(BootError::system("making Firecracker's log"))?;
        let (metrics, metrics_end) =
            pipe().map_err(BootError::system("making the pipe of Firecracker's metrics"))?;
        let pipes = [(log_end, LOG), (metrics_end, METRICS)];
        let command = self.command(name, folder, guest_console, pipes)?;
        let vmm = Vmm {
            program: &self.program,
            files: [&self.vm.kernel, &self.vm.root_image]
                .map(|file| path_of(file.as_raw_fd()).into())
                .to_vec(),
            uses_kvm: true,
            sockets: Some(folder),
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
        let (mut log, metrics) = (Followed::<Log>::new(log), Followed::new(metrics));
        let sockets = Sockets {
            seen_here: match confinement.enclosed() {
                Some(_) => PathBuf::from(format!("/proc/{}/root{SOCKETS}", running.pid)),
                None => folder.to_path_buf(),
            },
            folder,
            user: confinement.user,
        };
        let mut set_up = pin!(self.set_up(&sockets));
        let set_up = tokio::select! {
            set_up = &mut set_up => set_up,
            // Its last answer may be on the way still; before its socket is there no call would fail.
            _ = running.wait() => timeout(ECHO, set_up).await.unwrap_or_else(|_| {
                Err(BootError::system("waiting for Firecracker")(io::ErrorKind::BrokenPipe))
            }),
        };
        let SetUp { api, vmm_start, link, runs } = match set_up {
            Ok(set_up) => set_up,
            Err(error) => {
                // What it refused is why it ended, and what its log repeats.
                let fault = match &error {
                    BootError::Api(ApiError::Refused { fault, .. }) => Some(fault.clone()),
                    _ => None,
                };
                let said = async || {
                    let _ = timeout(ECHO, log.closed()).await;
                    fault.map_or_else(|| log.taken().errors(), |fault| vec![fault])
                };
                let error = running.ended_in_place_of(error, "Firecracker", said).await;
                running.kill().await;
                return Err(error);
            }
        };
        self.vm.start.make_own_ahead(running.pid);
        let is_clone = self.vm.start.is_clone();
        let held = Configured { api: api.clone(), pid: running.pid, is_clone, runs };
        let running = match self.vm.start {
            VmStart::ToBeSaved { .. } => running.saved_by(Template::new(api.clone())),
            VmStart::PowerOn => running,
            VmStart::Clone { .. } => running.loaded_in(vmm_start),
        };
        Ok(running.linked_by(link).inspected_by(Monitor { api, log, metrics }).held_by(held))
    }

    /// Waits for Firecracker's API, and has it know all of the VM.
    async fn set_up(&self, sockets: &Sockets<'_>) -> Result<SetUp, BootError> {
        let began = Instant::now();
        let api = Api::connect(&sockets.seen_here.join(API)).await?;
        self.configure(&api, &sockets.folder.join(VSOCK)).await?;
        let vmm_start = began.elapsed();
        let (link, runs) = self.link(&sockets.seen_here.join(VSOCK), sockets.user).await?;
        Ok(SetUp { api: Rc::new(api), vmm_start, link, runs })
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
        pipes: [(OwnedFd, RawFd); 2],
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
        let descriptors = self.files()?.into_iter().chain(pipes);
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

    async fn configure(&self, api: &Api, vsock: &Path) -> Result<(), BootError> {
        let Version { firecracker_version } = api.get("/version").await?;
        program::check_version(&firecracker_version)?;
        api.put("/logger", &Logger::to(path_of(LOG))).await?;
        api.put("/metrics", &MetricsPath::at(path_of(METRICS))).await?;
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

/// Where its sockets are.
struct Sockets<'a> {
    /// As Firecracker sees them.
    folder: &'a Path,
    /// As this process does.
    seen_here: PathBuf,
    /// Whose they are.
    user: Option<SessionUser>,
}

/// What there is once Firecracker knows all of a VM.
struct SetUp {
    api: Rc<Api>,
    /// How long that was waited for.
    vmm_start: Duration,
    link: LinkStream,
    /// Whom to notify when the guest runs.
    runs: oneshot::Sender<()>,
}

/// A socket that Firecracker connects to when the guest does (docs/vsock.md).
fn listen(path: &Path, user: Option<SessionUser>) -> io::Result<UnixListener> {
    let listener = UnixListener::bind(path)?;
    if let Some(user) = user {
        std::os::unix::fs::lchown(path, Some(user.id()), Some(user.id()))?;
    }
    Ok(listener)
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
