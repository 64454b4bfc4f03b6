//! What a real Firecracker cannot be made to do, by a fake one, whose answers are those of its API: each
//! has to become one sentence with the cause, and to leave nothing. Where the real one does it too, both
//! have to say the same.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anteroom_confine::Confinement;
use anteroom_session::ProcessExit;
use anteroom_vm::{
    BootError, ConsoleFile, Driver, Firecracker, PageSet, RunningSandbox, SandboxIdentity,
    SandboxName, SandboxSpec, VmSpec, VmStart, leftovers, remove_runtime_dir,
};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::libc::{SYS_epoll_pwait, SYS_epoll_wait};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::task::LocalSet;
use tokio::time::sleep;

const FAKE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/firecracker_fake/firecracker.pl");

const REAL: &str = "/usr/local/bin/firecracker";

#[tokio::test]
async fn a_load_that_fails_ends_it_and_the_answer_says_why() {
    for fault in ["load-fails", "load-fails-unlogged"] {
        let said = Case::clone_of(fault).refused().await;
        let expected = "Firecracker ended before it had set up the VM: it exited with code 1; its last \
                        lines: Load snapshot error: Failed to get snapshot state from file: bitcode error";
        assert!(said.iter().all(|said| said == expected), "{fault}: {said:?}");
    }
}

/// The contract that the fake is held to.
#[tokio::test]
async fn a_real_one_fails_to_load_as_the_fake_does() {
    if Firecracker::installed(Path::new(REAL)).is_err() {
        eprintln!("Firecracker is not here");
        return;
    }
    let real = Case { program: Program::Real, ..Case::clone_of("real") };
    for said in real.refused().await {
        let expected = "Firecracker ended before it had set up the VM: it exited with code 1; its last \
                        lines: Load snapshot error: Failed to restore from snapshot: ";
        assert!(said.starts_with(expected), "{said}");
        assert!(!said.contains(" | "), "{said}");
    }
}

#[tokio::test]
async fn one_that_ends_while_it_loads_is_reported_with_its_end() {
    for said in Case::clone_of("load-ends").refused().await {
        assert_eq!(said, "Firecracker ended before it had set up the VM: it exited with code 1");
    }
}

#[tokio::test]
async fn a_load_without_an_answer_ends_at_its_deadline() {
    for said in Case::clone_of("load-stalls").refused().await {
        assert_eq!(said, "Firecracker did not answer PUT /snapshot/load within 20 s");
    }
}

#[tokio::test]
async fn one_that_never_answers_ends_at_its_deadline() {
    for said in Case::boot_of("never-answers").refused().await {
        assert_eq!(said, "Firecracker did not answer GET /version within 20 s");
    }
}

#[tokio::test]
async fn a_socket_on_which_nobody_listens_is_waited_for_and_no_longer() {
    for said in Case::boot_of("never-listens").refused().await {
        assert!(said.starts_with("connecting to Firecracker's API at /"), "{said}");
        assert!(said.ends_with("/api failed for 10 s"), "{said}");
    }
}

#[tokio::test]
async fn one_that_ends_before_it_answers_is_reported_with_its_end() {
    for said in Case::boot_of("ends-early").refused().await {
        let expected = "Firecracker ended before it had set up the VM: it exited with code 153";
        assert_eq!(said, expected);
    }
}

#[tokio::test]
async fn a_socket_that_is_there_before_the_api_answers_is_waited_for() {
    // Its threads are not filtered: it is a fake.
    for said in Case::boot_of("listens-late").not_started().await {
        assert!(said.starts_with("the thread "), "{said}");
        assert!(said.contains("of Firecracker does not filter its system calls"), "{said}");
    }
}

#[tokio::test]
async fn a_start_that_is_refused_or_never_answered_is_an_error_by_its_deadline() {
    for said in Case::boot_of("start-fails").not_started().await {
        assert_eq!(
            said,
            "Firecracker refused PUT /actions with status 400 Bad Request: \
             Start microvm error: Cannot allocate memory."
        );
    }
    for said in Case::boot_of("start-stalls").not_started().await {
        assert_eq!(said, "Firecracker did not answer PUT /actions within 20 s");
    }
}

#[tokio::test]
async fn one_that_panics_while_it_starts_its_guest_has_an_end_a_log_and_counters() {
    let case = Case::boot_of("start-ends");
    case.each(async |place| {
        let mut sandbox = case.boot(&place).await.unwrap();
        sandbox.start_guest().await.unwrap_err();
        assert_eq!(sandbox.wait().await, ProcessExit::Signalled { signal: 11 });
        let vmm = sandbox.inspect().unwrap();
        assert_eq!(vmm.log(), ["ERROR Firecracker panicked at src/vmm/src/builder.rs:7:9:"]);
        let failures: Vec<_> = vmm.failures().iter().map(ToString::to_string).collect();
        assert_eq!(failures, ["vmm.panic_count: 1"]);
        place.end(sandbox).await
    })
    .await;
}

/// A guest that runs is not needed for it: this machine's KVM may be as slow as it likes.
#[tokio::test]
async fn what_a_real_one_counts_of_its_own_end_is_read() {
    if Firecracker::installed(Path::new(REAL)).is_err() || kvm_opens().is_err() {
        eprintln!("Firecracker or KVM is not here");
        return;
    }
    let Some(kernel) = a_kernel() else {
        eprintln!("there is no image, whose kernel could be booted");
        return;
    };
    let case = Case { program: Program::Real, is_clone: false, kernel };
    case.each(async |place| {
        let mut sandbox = case.boot(&place).await.unwrap();
        sandbox.start_guest().await.unwrap();
        let pid = Pid::from_raw(i32::try_from(sandbox.pid).unwrap());
        waits_for_events(pid).await;
        kill(pid, Signal::SIGBUS).unwrap();
        assert_eq!(sandbox.wait().await, ProcessExit::Exited { code: 149 });
        let vmm = sandbox.inspect().unwrap();
        let failures: Vec<_> = vmm.failures().iter().map(ToString::to_string).collect();
        assert_eq!(failures, ["signals.sigbus: 1"]);
        place.end(sandbox).await
    })
    .await;
}

/// A Firecracker, and what it is asked for.
struct Case {
    program: Program,
    is_clone: bool,
    kernel: PathBuf,
}

enum Program {
    Real,
    /// That does this wrong.
    Fake(&'static str),
}

impl Case {
    fn boot_of(fault: &'static str) -> Self {
        Self { program: Program::Fake(fault), is_clone: false, kernel: FAKE.into() }
    }

    fn clone_of(fault: &'static str) -> Self {
        Self { is_clone: true, ..Self::boot_of(fault) }
    }

    /// What its start is refused with, in each place: nothing is left of it.
    async fn refused(&self) -> Vec<String> {
        self.each(async |place| {
            let error = self.boot(&place).await.err().unwrap();
            place.check_nothing_is_left();
            error.to_string()
        })
        .await
    }

    /// It is set up, but its guest does not run.
    async fn not_started(&self) -> Vec<String> {
        self.each(async |place| {
            let mut sandbox = self.boot(&place).await.unwrap();
            let error = sandbox.start_guest().await.unwrap_err();
            place.end(sandbox).await;
            error.to_string()
        })
        .await
    }

    /// At the same time with all that this machine has to hold it, and with nothing of it but a cgroup.
    async fn each<T>(&self, steps: impl AsyncFn(Place) -> T) -> Vec<T> {
        if !Path::new("/dev/kvm").exists() {
            eprintln!("there is no /dev/kvm to be given");
            return Vec::new();
        }
        let here = Confinement::of_this_machine(None);
        let bare = Confinement { user: None, ..here.clone() };
        let [here, bare] = [here, bare].map(Place::new);
        let both = async { tokio::join!(steps(here), steps(bare)) };
        let (here, bare) = LocalSet::new().run_until(both).await;
        vec![here, bare]
    }

    async fn boot(&self, place: &Place) -> Result<RunningSandbox, BootError> {
        let folder = place.folder.path();
        let program = match self.program {
            Program::Real => PathBuf::from(REAL),
            Program::Fake(fault) => {
                let program = folder.join(fault);
                // With its mode.
                std::fs::copy(FAKE, &program).unwrap();
                program
            }
        };
        let vm = VmSpec {
            kernel: opened(&self.kernel),
            initramfs: Vec::new(),
            root_image: opened(Path::new(FAKE)),
            memory_mib: 128,
            vcpus: 1,
            start: match self.is_clone {
                true => VmStart::Clone {
                    memory: sealed(128 << 20),
                    state: sealed(4096),
                    ahead: PageSet::default(),
                },
                false => VmStart::PowerOn,
            },
        };
        let spec = SandboxSpec {
            name: place.name.clone(),
            confinement: place.confinement.clone(),
            console: ConsoleFile { path: folder.join("console"), limit: 1024 * 1024 },
        };
        Firecracker { vm, program, cpu_template: None }.boot(&spec).await
    }
}

/// What a Firecracker has to itself.
struct Place {
    confinement: Confinement,
    folder: tempfile::TempDir,
    name: SandboxName,
}

impl Place {
    fn new(confinement: Confinement) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let unique = folder.path().file_name().unwrap().to_string_lossy().to_lowercase();
        let unique: String = unique.chars().filter(char::is_ascii_alphanumeric).collect();
        let name = format!("test-{}-{unique}", std::process::id()).parse().unwrap();
        Self { confinement, folder, name }
    }

    /// As a node does it.
    async fn end(&self, mut sandbox: RunningSandbox) {
        sandbox.end().await;
        drop(sandbox);
        remove_runtime_dir(&self.name.runtime_dir(), self.confinement.user).unwrap();
        self.check_nothing_is_left();
    }

    fn check_nothing_is_left(&self) {
        let identity = SandboxIdentity { name: &self.name, user: self.confinement.user };
        let left = leftovers(identity, &[PathBuf::from("/tmp")], Path::new(""));
        assert!(left.is_empty(), "{left:?}");
    }
}

/// Firecracker's signal handler takes the locks of its log and its counters: a main thread that is
/// interrupted while it holds one waits for itself for ever.
async fn waits_for_events(pid: Pid) {
    loop {
        let call = std::fs::read_to_string(format!("/proc/{pid}/syscall")).unwrap();
        let number = call.split(' ').next().unwrap().parse();
        if number == Ok(SYS_epoll_wait) || number == Ok(SYS_epoll_pwait) {
            return;
        }
        sleep(Duration::from_millis(1)).await;
    }
}

fn kvm_opens() -> std::io::Result<File> {
    File::options().read(true).write(true).open("/dev/kvm")
}

/// Of any image.
fn opened(path: &Path) -> Arc<OwnedFd> {
    Arc::new(File::open(path).unwrap().into())
}

fn a_kernel() -> Option<PathBuf> {
    let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let folders = own.into_iter().chain([PathBuf::from("/var/lib")]);
    let images = folders.flat_map(|folder| entries(&folder.join("anteroom/images")));
    let mut kernels = images.flat_map(|image| entries(&image)).map(|image| image.join("vmlinux"));
    kernels.find(|kernel| kernel.is_file())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

fn sealed(size: u64) -> Arc<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create(c"anteroom-test", flags).unwrap());
    file.set_len(size).unwrap();
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
    Arc::new(file.into())
}
