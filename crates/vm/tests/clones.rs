//! A VM is saved, and others go on where it stopped.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anteroom_confine::Confinement;
use anteroom_session::RunState;
use anteroom_vm::{
    AcceleratorChoice, BootError, CloneStart, ConsoleFile, Driver, Firecracker, KvmProbe,
    LinkStream, PageSet, Qemu, RunningSandbox, SandboxName, SandboxSpec, VmSpec, VmStart,
    changed_pages, probe_kvm, remove_runtime_dir,
};
use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::task::LocalSet;
use tokio::time::timeout;

/// How long anything may take; an emulated machine has been seen to boot in two seconds.
const PATIENCE: Duration = Duration::from_secs(120);

const MEMORY_MIB: u32 = 256;

const FIRECRACKER: &str = "/usr/local/bin/firecracker";

#[tokio::test]
async fn clones_of_qemu_go_on_where_their_template_stopped() {
    if Qemu::installed().is_err() {
        eprintln!("QEMU is not installed");
        return;
    }
    let accelerator = AcceleratorChoice::Auto.resolve().unwrap();
    let driver = |vm| Qemu { vm, accelerator, cpu: None };
    LocalSet::new().run_until(clones_go_on(driver)).await;
}

#[tokio::test]
async fn clones_of_firecracker_go_on_where_their_template_stopped() {
    let program = PathBuf::from(FIRECRACKER);
    if Firecracker::installed(&program).is_err() || matches!(probe_kvm(), KvmProbe::Unusable { .. })
    {
        eprintln!("Firecracker or KVM is not here");
        return;
    }
    let driver = |vm| Firecracker { vm, program: program.clone(), cpu_template: None };
    LocalSet::new().run_until(clones_go_on(driver)).await;
}

async fn clones_go_on<D: Driver>(driver: impl Fn(VmSpec) -> D) {
    let Some(image) = an_image() else {
        eprintln!("there is no image, whose kernel could be booted");
        return;
    };
    let folder = tempfile::tempdir().unwrap();
    let driver = |start| {
        driver(VmSpec {
            kernel: opened(&image.join("vmlinux")),
            initramfs: initramfs(&image, folder.path()),
            root_image: opened(&image.join("root.erofs")),
            memory_mib: MEMORY_MIB,
            vcpus: 1,
            start,
        })
    };
    let [memory, state] = [memory_file(u64::from(MEMORY_MIB) << 20), memory_file(0)];
    let start = VmStart::ToBeSaved { memory: memory.clone(), state: state.clone() };
    let mut template = Vm::boot(&driver(start), folder.path(), "template").await.unwrap();
    template.sandbox.start_guest().await.unwrap();
    assert_eq!(template.line().await, "ready");
    assert!(template.sandbox.clone_start().is_none(), "it loaded nothing");
    assert_eq!(template.answer("one").await, "1 one");
    save(&mut template.sandbox, &state).await;
    template.end().await;

    let clone_of =
        |ahead: PageSet| VmStart::Clone { memory: memory.clone(), state: state.clone(), ahead };
    let clone = || clone_of(PageSet::default());
    let unsealed = Vm::boot(&driver(clone()), folder.path(), "unsealed").await.err().unwrap();
    assert!(unsealed.to_string().contains("memory of a saved VM is not sealed"), "{unsealed}");
    [&memory, &state].into_iter().for_each(|file| seal(file));
    let saved = [&memory, &state].map(|file| content(file));

    let mut clones: Vec<Vm> = Vec::new();
    // The third begins with copies of what the first has changed by then.
    for name in ["clone-1", "clone-2", "clone-3"] {
        let ahead = match clones.as_slice() {
            [first, _] => changed_pages(first.sandbox.pid, &memory).unwrap(),
            _ => PageSet::default(),
        };
        let mut clone =
            Vm::boot(&driver(clone_of(ahead.clone())), folder.path(), name).await.unwrap();
        // Firecracker has given it another generation id; nobody else has changed its memory yet.
        let own = changed_pages(clone.sandbox.pid, &memory).unwrap().len();
        assert!((ahead.len()..ahead.len() + 8).contains(&own), "{own}, not {}", ahead.len());
        let held = clone.sandbox.inspect().unwrap().run_state().await;
        assert_eq!(held, Some(RunState::Paused), "before it is let run");
        let loaded = clone.began.elapsed();
        assert!(clone.sandbox.clone_start().is_none(), "its guest does not run yet");
        clone.sandbox.start_guest().await.unwrap();
        let CloneStart { vmm_start, resume, resumed_at } = clone.sandbox.clone_start().unwrap();
        assert!(vmm_start > Duration::ZERO && vmm_start < loaded, "{vmm_start:?} of {loaded:?}");
        let resumed = resumed_at - clone.began;
        assert!(resume > Duration::ZERO && loaded + resume <= resumed, "{resume:?} of {resumed:?}");
        let answer = clone.answer("two").await;
        eprintln!("{name} was loaded in {loaded:?} and answered after {:?}", clone.began.elapsed());
        assert_eq!(answer, "2 two");
        clones.push(clone);
    }
    assert!(changed_pages(clones[0].sandbox.pid, &memory).unwrap().len() > 50);
    // While all of them run.
    for clone in &mut clones {
        assert_eq!(clone.answer("three").await, "3 three");
        let refused = clone.sandbox.save().await.unwrap_err().to_string();
        assert!(refused.contains("was not started to be saved"), "{refused}");
    }
    for clone in &mut clones {
        clone.end().await;
    }
    assert!(saved == [&memory, &state].map(|file| content(file)), "a clone changed its template");

    let state = memory_file(4096);
    seal(&state);
    let damaged = VmStart::Clone { memory, state, ahead: PageSet::default() };
    let error = Vm::boot(&driver(damaged), folder.path(), "damaged").await.err().unwrap();
    assert!(matches!(error, BootError::VmmEnded { .. }), "{error}");
    assert!(error.to_string().contains("exited with code 1"), "{error}");
}

async fn save(template: &mut RunningSandbox, state: &OwnedFd) {
    let began = Instant::now();
    template.save().await.unwrap();
    let took = began.elapsed();
    let size = content(state).len();
    eprintln!("saved in {took:?}; the state of its devices has {size} bytes");
    assert!(size > 0);
    let again = template.save().await.unwrap_err().to_string();
    assert!(again.contains("was saved already"), "{again}");
}

/// A sandbox and its guest's lines.
struct Vm {
    name: SandboxName,
    sandbox: RunningSandbox,
    link: BufReader<LinkStream>,
    began: Instant,
}

impl Vm {
    async fn boot(driver: &impl Driver, folder: &Path, name: &str) -> Result<Self, BootError> {
        let console = ConsoleFile { path: folder.join(name), limit: 1024 * 1024 };
        let name: SandboxName = format!("test-{}-{name}", std::process::id()).parse().unwrap();
        let confinement = Confinement::of_this_machine(None);
        let spec = SandboxSpec { name: name.clone(), confinement, console };
        let began = Instant::now();
        let booted = driver.boot(&spec).await;
        if booted.is_err() {
            remove_runtime_dir(&name.runtime_dir(), None).unwrap();
        }
        let mut sandbox = booted?;
        let link = BufReader::new(sandbox.take_link());
        Ok(Self { name, sandbox, link, began })
    }

    async fn end(&mut self) {
        self.sandbox.end().await;
        // Firecracker's sockets, where it has no file tree of its own.
        remove_runtime_dir(&self.name.runtime_dir(), None).unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        let read = timeout(PATIENCE, self.link.read_line(&mut line)).await;
        if !matches!(read, Ok(Ok(1..))) {
            panic!(
                "there was no line but {read:?}; the console: {:#?}",
                self.sandbox.console_tail(20)
            );
        }
        line.trim_end().to_owned()
    }

    async fn answer(&mut self, text: &str) -> String {
        self.link.write_all(format!("{text}\n").as_bytes()).await.unwrap();
        self.line().await
    }
}

fn an_image() -> Option<PathBuf> {
    let own = std::env::var_os("HOME").map(|home| Path::new(&home).join(".local/share"));
    let folders = own.into_iter().chain([PathBuf::from("/var/lib")]);
    let images = folders.flat_map(|folder| entries(&folder.join("anteroom/images")));
    images.flat_map(|image| entries(&image)).find(|folder| folder.join("vmlinux").is_file())
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// The image's modules and the test's program.
fn initramfs(image: &Path, folder: &Path) -> Vec<u8> {
    let program = folder.join("init");
    if !program.exists() {
        let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clones/init.c");
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-static", "-o"]).arg(&program).arg(source);
        assert!(gcc.status().unwrap().success());
    }
    let mut bytes = std::fs::read(image.join("modules.cpio")).unwrap();
    let (folder, device, file) = (0o040_755, 0o020_600, 0o100_755);
    for name in ["dev", "proc", "sys"] {
        archive(&mut bytes, name, folder, &[], [0, 0]);
    }
    archive(&mut bytes, "dev/console", device, &[], [5, 1]);
    archive(&mut bytes, "init", file, &std::fs::read(program).unwrap(), [0, 0]);
    archive(&mut bytes, "TRAILER!!!", 0, &[], [0, 0]);
    bytes
}

/// An entry of a cpio archive in the "newc" format.
fn archive(bytes: &mut Vec<u8>, name: &str, mode: u32, content: &[u8], device: [u32; 2]) {
    let [size, length] = [content.len(), name.len() + 1].map(|size| u32::try_from(size).unwrap());
    let fields = [0, mode, 0, 0, 1, 0, size, 0, 0, device[0], device[1], length, 0];
    let fields: String = fields.iter().map(|field| format!("{field:08x}")).collect();
    for part in [format!("070701{fields}{name}\0").as_bytes(), content] {
        bytes.extend_from_slice(part);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
}

fn memory_file(size: u64) -> Arc<OwnedFd> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let file = File::from(memfd_create(c"anteroom-test", flags).unwrap());
    file.set_len(size).unwrap();
    Arc::new(file.into())
}

fn opened(path: &Path) -> Arc<OwnedFd> {
    Arc::new(File::open(path).unwrap().into())
}

fn seal(file: &OwnedFd) {
    let seals = SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW;
    fcntl(file, FcntlArg::F_ADD_SEALS(seals)).unwrap();
}

fn content(file: &OwnedFd) -> Vec<u8> {
    let mut bytes = Vec::new();
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}
