//! A running sandbox's process.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anteroom_confine::{boundaries_of, killed_for_memory};
use anteroom_fail_point::fail_point;
use anteroom_session::{Accelerator, Boundaries, DriverKind, ProcessExit};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::signal::unix::{SignalKind, signal};

use crate::clone_start::{CloneStart, Resumed};
use crate::console::{ConsoleFile, ConsoleLog};
use crate::held::Held;
use crate::link::LinkStream;
use crate::save::Save;
use crate::spawn_confinement::{OwnedCgroup, SpawnConfinement};
use crate::{BootError, Inspect, SaveError};

/// A running sandbox. Dropping it kills the process.
pub struct RunningSandbox {
    /// What booted it.
    pub driver: DriverKind,
    /// The process id on this host; also of its process group.
    pub pid: u32,
    /// What executes guest code.
    pub accelerator: Accelerator,
    link: Option<LinkStream>,
    child: Child,
    exit: Option<ProcessExit>,
    console: Rc<RefCell<ConsoleLog>>,
    following: Option<tokio::task::JoinHandle<()>>,
    inspect: Option<Box<dyn Inspect>>,
    held: Option<Box<dyn Held>>,
    /// Of a clone.
    vmm_start: Option<Duration>,
    resumed: Option<Resumed>,
    save: Option<Box<dyn Save>>,
    ending: Ending,
    /// Dropped after the child, which is killed then.
    cgroup: Option<OwnedCgroup>,
    memory: Option<MemoryLimit>,
}

/// A process that is to be started as a sandbox.
pub(crate) struct Launch<'a> {
    pub driver: DriverKind,
    pub accelerator: Accelerator,
    pub command: Command,
    /// What holds it.
    pub confined: SpawnConfinement,
    /// What its console or output arrives on.
    pub console: OwnedFd,
    /// Where that goes.
    pub console_file: &'a ConsoleFile,
}

/// How a sandbox is ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By killing the process: nothing outside of it is the guest's.
    Kill,
    /// By asking it to end what it started on the host, and killing it when it has not in that time.
    Ask(Duration),
}

/// A limit of a cgroup, and where the kernel counts what it did because of it.
struct MemoryLimit {
    mib: u64,
    events: File,
}

/// A cgroup's limit that was met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutOfMemory {
    /// The limit.
    pub limit_mib: u64,
    /// How many processes the kernel killed.
    pub killed: u64,
}

/// How long the console may take to arrive after the process' end.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// How long a VMM may take to be seen ended after its socket has closed.
const ECHO: Duration = Duration::from_millis(500);

/// How long a process may be stopped before that is its end.
const STOPPED: Duration = Duration::from_secs(5);

impl RunningSandbox {
    /// Starts a process as a sandbox.
    pub(crate) fn start(launch: Launch<'_>) -> Result<Self, BootError> {
        let Launch { driver, accelerator, command, confined, console, console_file } = launch;
        let open_console = |source| BootError::File { path: console_file.path.clone(), source };
        let log =
            ConsoleLog::create(&console_file.path, console_file.limit).map_err(open_console)?;
        let console_log = Rc::new(RefCell::new(log));
        fail_point("sandbox.spawn").map_err(BootError::system("starting the sandbox's process"))?;
        let (child, cgroup) = confined.spawn(command)?;
        let memory = cgroup.as_ref().and_then(|held| {
            let events = held.cgroup.memory_events().ok()?;
            Some(MemoryLimit { mib: held.limits.memory_bytes >> 20, events })
        });
        let pid = child.id().ok_or(std::io::ErrorKind::NotFound.into());
        let pid = pid.map_err(BootError::system::<std::io::Error>("asking for the process id"))?;
        fail_point("sandbox.spawned").map_err(BootError::system("watching the console"))?;
        let console = stream(console).map_err(BootError::system("watching the console"))?;
        let following =
            Some(tokio::task::spawn_local(ConsoleLog::follow(console_log.clone(), console)));
        Ok(Self {
            driver,
            pid,
            accelerator,
            link: None,
            child,
            exit: None,
            console: console_log,
            following,
            inspect: None,
            held: None,
            vmm_start: None,
            resumed: None,
            save: None,
            ending: Ending::Kill,
            cgroup,
            memory,
        })
    }

    /// Its agent is at the other end of this.
    pub(crate) fn linked_by(mut self, link: LinkStream) -> Self {
        self.link = Some(link);
        self
    }

    /// Its VMM can be asked about its guest so.
    pub(crate) fn inspected_by(mut self, vmm: impl Inspect + 'static) -> Self {
        self.inspect = Some(Box::new(vmm));
        self
    }

    /// Its guest runs once this lets it.
    pub(crate) fn held_by(mut self, held: impl Held + 'static) -> Self {
        self.held = Some(Box::new(held));
        self
    }

    /// It is a clone, whose VMM was waited for so long since [`Self::start`] until it was loaded.
    pub(crate) fn loaded_in(mut self, vmm_start: Duration) -> Self {
        self.vmm_start = Some(vmm_start);
        self
    }

    /// Its VMM can save it so.
    pub(crate) fn saved_by(mut self, save: impl Save + 'static) -> Self {
        self.save = Some(Box::new(save));
        self
    }

    /// Stops the guest for good, and writes its memory and the state of its devices to the files that it
    /// was started with ([`VmStart::ToBeSaved`](crate::VmStart::ToBeSaved)): bounded by two minutes. What
    /// the host has sent to the guest, and the guest has not read, is lost to its clones. The VMM goes on
    /// running, and has the files open, until [`Self::end`]: they can be sealed after that.
    ///
    /// # Errors
    /// When it was not started to be saved, or its VMM does not save it. Its guest may be stopped then.
    pub async fn save(&mut self) -> Result<(), SaveError> {
        self.save.as_mut().ok_or(SaveError::NotToBeSaved)?.save().await
    }

    /// Lets the guest run, where its VMM holds it: whoever reads what the guest sends is confined first.
    /// May be called again.
    ///
    /// # Errors
    /// When the VMM does not.
    pub async fn start_guest(&mut self) -> Result<(), BootError> {
        if let Some(held) = self.held.take() {
            self.resumed = Some(held.release().await?);
        }
        Ok(())
    }

    /// How long its VMM was waited for, of a clone whose guest runs.
    #[must_use]
    pub fn clone_start(&self) -> Option<CloneStart> {
        let (vmm_start, resumed) = (self.vmm_start?, self.resumed?);
        Some(CloneStart { vmm_start, resume: resumed.took, resumed_at: resumed.at })
    }

    /// The sandbox is ended so.
    pub(crate) fn ended_by(mut self, ending: Ending) -> Self {
        self.ending = ending;
        self
    }

    /// Its VMM, where that can be asked about its guest.
    #[must_use]
    pub fn inspect(&self) -> Option<&dyn Inspect> {
        self.inspect.as_deref()
    }

    /// What executes guest code, as the VMM itself says; what was asked for where it does not say.
    pub async fn confirmed_accelerator(&mut self) -> Accelerator {
        let asked = Instant::now();
        let confirmed = match self.inspect() {
            Some(vmm) => vmm.accelerator().await,
            None => None,
        };
        // Before its guest runs that is waited for too.
        if self.resumed.is_none()
            && let Some(vmm_start) = &mut self.vmm_start
        {
            *vmm_start += asked.elapsed();
        }
        confirmed.unwrap_or(self.accelerator)
    }

    /// What holds the process, as the kernel says.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn boundaries(&self) -> io::Result<Boundaries> {
        boundaries_of(self.pid)
    }

    /// Whether the kernel killed something of it because its cgroup was out of memory.
    #[must_use]
    pub fn out_of_memory(&self) -> Option<OutOfMemory> {
        let MemoryLimit { mib, events } = self.memory.as_ref()?;
        let killed = killed_for_memory(events).filter(|killed| *killed > 0)?;
        Some(OutOfMemory { limit_mib: *mib, killed })
    }

    /// The byte stream to the agent; to be taken once.
    ///
    /// # Panics
    /// When it is taken twice.
    pub fn take_link(&mut self) -> LinkStream {
        self.link.take().expect("the link is taken once, by the session that booted the sandbox")
    }

    /// Waits for the process' end; may be dropped and called again.
    pub async fn wait(&mut self) -> ProcessExit {
        let exit = match self.exit {
            Some(exit) => exit,
            None => self.child.wait().await.map_or(ProcessExit::Unknown, ProcessExit::from),
        };
        self.exit = Some(exit);
        // Its last output may still be on the way; a child of its own may keep the console open.
        if let Some(following) = &mut self.following {
            let _ = tokio::time::timeout(LAST_OUTPUT, following).await;
            self.following = None;
        }
        if let Some(vmm) = &mut self.inspect {
            let _ = tokio::time::timeout(LAST_OUTPUT, vmm.drained()).await;
        }
        exit
    }

    /// What to report when starting failed with `error`: a VMM's end says more than the call does that
    /// failed of it. `said` has its last words after its end; where it has none, the console may.
    pub(crate) async fn ended_in_place_of(
        &mut self,
        error: BootError,
        vmm: &'static str,
        said: impl AsyncFnOnce() -> Vec<String>,
    ) -> BootError {
        match tokio::time::timeout(ECHO, self.wait()).await {
            Ok(exit) => {
                let mut said = said().await;
                if said.is_empty() {
                    said = self.console_tail(3);
                }
                BootError::VmmEnded { vmm, exit, said }
            }
            Err(_) => error,
        }
    }

    /// Waits for the process' end, or until it has been stopped for so long that nobody means to let
    /// it go on; may be dropped and called again.
    pub async fn end_or_stop(&mut self) -> SandboxEnd {
        let pid = Pid::from_raw(i32::try_from(self.pid).unwrap_or(0));
        tokio::select! {
            exit = self.wait() => SandboxEnd::Exited(exit),
            signal = stopped_for_good(pid) => SandboxEnd::Stopped { signal, seconds: STOPPED.as_secs() },
        }
    }

    /// Kills the process and its group and waits until it is gone. May be called again.
    pub async fn kill(&mut self) {
        if self.exit.is_none() {
            if let Ok(pid) = i32::try_from(self.pid) {
                let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = self.child.start_kill();
            self.wait().await;
        }
        self.cgroup = None;
    }

    /// Ends the sandbox in its driver's way, and waits until its process is gone. May be called again.
    pub async fn end(&mut self) {
        match self.ending {
            Ending::Kill => {}
            Ending::Ask(patience) => {
                self.terminate();
                let _ = tokio::time::timeout(patience, self.wait()).await;
            }
        }
        self.kill().await;
    }

    /// Asks the process to end by SIGTERM; [`Self::wait`] returns when it has.
    fn terminate(&self) {
        if self.exit.is_none()
            && let Ok(pid) = i32::try_from(self.pid)
        {
            let _ = nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }

    /// The console's last lines, harmless to a terminal.
    #[must_use]
    pub fn console_tail(&self, lines: usize) -> Vec<String> {
        self.console.borrow().tail(lines)
    }
}

/// What became of a sandbox's process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SandboxEnd {
    /// It ended.
    Exited(ProcessExit),
    /// It is stopped.
    Stopped {
        /// By which signal.
        signal: i32,
        /// For how long already.
        seconds: u64,
    },
}

/// By its wait status: the kernel reports to a parent a child that stops, as one that ends.
async fn stopped_for_good(pid: Pid) -> i32 {
    let Ok(mut children) = signal(SignalKind::child()) else { return std::future::pending().await };
    loop {
        if let Some(signal) = stop_signal(pid) {
            // A host that sleeps stops everything for a while, and wakes us first perhaps.
            tokio::time::sleep(STOPPED).await;
            if stop_signal(pid).is_some() {
                return signal;
            }
        }
        if children.recv().await.is_none() {
            return std::future::pending().await;
        }
    }
}

/// The signal that a child is stopped by now; its status stays for who waits for its end.
fn stop_signal(pid: Pid) -> Option<i32> {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
    let flags = WaitPidFlag::WSTOPPED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    match waitid(Id::Pid(pid), flags) {
        Ok(WaitStatus::Stopped(_, signal)) => Some(signal as i32),
        _ => None,
    }
}

/// An end of a socket pair, for tokio.
pub(crate) fn stream(fd: OwnedFd) -> std::io::Result<UnixStream> {
    let stream = std::os::unix::net::UnixStream::from(fd);
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use anteroom_confine::{Confinement, Limits};

    use super::*;
    use crate::SandboxName;
    use crate::spawn_confinement::Vmm;

    #[tokio::test]
    async fn a_process_killed_by_the_oom_killer_is_distinguished_from_one_killed_by_a_process() {
        let confinement = Confinement::of_this_machine(None);
        if !confinement.host.cgroups.is_available() {
            return;
        }
        let limits = Limits { memory_bytes: 32 << 20, pids: 8, cpus: 1 };
        let folder = tempfile::tempdir().unwrap();
        let file = ConsoleFile { path: folder.path().join("console"), limit: 1000 };
        let run = |script: &str| {
            let mut command = Command::new("/usr/bin/perl");
            command.args(["-e", script]);
            let program = Path::new("/usr/bin/perl");
            let name = SandboxName::of_test();
            let vmm = Vmm { program, files: vec![], uses_kvm: false, sockets: None, limits };
            let confined = SpawnConfinement::vmm(&name, &confinement, vmm).unwrap();
            let console = std::os::unix::net::UnixStream::pair().unwrap().0.into();
            let (driver, accelerator) = (DriverKind::Host, Accelerator::None);
            let console_file = &file;
            RunningSandbox::start(Launch {
                driver,
                accelerator,
                command,
                confined,
                console,
                console_file,
            })
            .unwrap()
        };
        let killed = ProcessExit::Signalled { signal: Signal::SIGKILL as i32 };
        tokio::task::LocalSet::new()
            .run_until(async {
                let mut greedy = run("$x = 'x' x 200_000_000; sleep 1000");
                assert_eq!(greedy.wait().await, killed);
                assert_eq!(greedy.out_of_memory(), Some(OutOfMemory { limit_mib: 32, killed: 1 }));
                let mut modest = run("sleep 1000");
                modest.kill().await;
                assert_eq!((modest.wait().await, modest.out_of_memory()), (killed, None));
            })
            .await;
    }
}
