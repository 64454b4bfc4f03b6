//! The session's room, by whichever driver was chosen.

use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};

use anteroom_confine::Confinement;
use anteroom_egress::{Gate, Mapping, Policy, SystemResolver};
use anteroom_guest_protocol::ProcessExit as GuestExit;
use anteroom_image::{Image, initramfs_with_agent};
use anteroom_provider::{Egress, NameMapping};
use anteroom_session::{EndReason, ProcessExit};
use anteroom_vm::{
    Driver, Host, HostSpec, OutOfMemory, Qemu, RunningVm, VmAccelerator, VmEnd, VmSpec,
};
use anyhow::Context;
use nix::libc::SIGKILL;

use crate::embedded;
use crate::runner_protocol::{DriverConfig, SandboxConfig, SignInConfig};

/// The byte stream to the agent.
pub type Link = anteroom_vm::LinkStream;

/// The gate of a session.
pub type SessionGate = Gate<SystemResolver>;

/// Bytes of console that are kept.
const CONSOLE_LIMIT: u64 = 1024 * 1024;

/// Console lines in an explanation.
pub const CONSOLE_TAIL: usize = 12;

/// Console lines that are looked through for a panic: its report is as long as its call trace.
const CONSOLE_SEARCHED: usize = 400;

/// A room and what keeps its image from being removed.
pub struct Sandbox {
    /// The running VM.
    pub vm: RunningVm,
    /// Let go of by this process's end: a runner that could lock could lock others out.
    _hold: Option<ManuallyDrop<anteroom_image::ImageHold>>,
}

/// Checks the image and boots the room.
pub async fn boot(config: &SandboxConfig) -> Result<Sandbox, EndReason> {
    let not_started = |cause: String| EndReason::VmNotStarted { cause };
    let boot_failed =
        |error: anteroom_vm::BootError| not_started(anteroom_guest_link::chain(&error));
    match &config.driver {
        DriverConfig::Qemu { image_dir, cache_dir, accelerator, memory_mib, vcpus, cpu } => {
            let refused = |error: anteroom_image::ImageError| EndReason::ImageRefused {
                cause: anteroom_guest_link::chain(&error),
            };
            let (dir, cache) = (image_dir.clone(), cache_dir.clone());
            let image = open_image(dir, cache).await.map_err(not_started)?.map_err(refused)?;
            let hold = image.hold().map_err(refused)?;
            let processor = cpu.as_ref().map(|cpu| cpu.qemu.clone());
            let spec = vm_spec(
                &image,
                config.confinement.clone(),
                &config.log_dir,
                *memory_mib,
                *vcpus,
                *accelerator,
                processor,
            )
            .map_err(|error| not_started(format!("{error:#}")))?;
            let vm = Qemu.boot(&config.name, spec).map_err(boot_failed)?;
            Ok(Sandbox { vm, _hold: Some(ManuallyDrop::new(hold)) })
        }
        DriverConfig::Host { agent, runtime_dir } => {
            let spec = HostSpec {
                agent: agent.clone(),
                confinement: config.confinement.clone(),
                runtime_dir: runtime_dir.clone(),
                console_log: console_log(&config.log_dir),
                console_log_limit: CONSOLE_LIMIT,
            };
            let vm = Host.boot(&config.name, spec).map_err(boot_failed)?;
            Ok(Sandbox { vm, _hold: None })
        }
    }
}

/// A first look hashes for seconds, in which this process must still say that it lives. By a thread that
/// is gone afterwards: the runner is to be confined as a whole.
async fn open_image(
    dir: PathBuf,
    cache: PathBuf,
) -> Result<Result<Image, anteroom_image::ImageError>, String> {
    let failed = |error: &dyn std::fmt::Display| format!("checking the image failed: {error}");
    let (sender, opened) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new()
        .name("image".to_owned())
        .spawn(move || {
            let _ = sender.send(Image::open(&dir, &cache));
        })
        .map_err(|error| failed(&error))?;
    let image = opened.await.map_err(|_| failed(&"its thread ended"))?;
    thread.join().map_err(|_| failed(&"its thread panicked"))?;
    Ok(image)
}

/// Why a machine does not run any more.
pub fn end_reason(vm: &RunningVm, end: VmEnd) -> EndReason {
    match end {
        VmEnd::Exited(exit) => exit_reason(vm, exit),
        VmEnd::Stopped { signal, seconds } => {
            EndReason::VmStopped { signal, stopped_seconds: seconds }
        }
    }
}

/// Why a machine is gone.
pub fn exit_reason(vm: &RunningVm, exit: ProcessExit) -> EndReason {
    let (shutdown, console_tail) = (vm.shutdown_cause(), vm.console_tail(CONSOLE_TAIL));
    let status = match exit {
        ProcessExit::Exited { code } => Some(GuestExit::Exited { code }),
        ProcessExit::Signalled { signal } => Some(GuestExit::Signalled { signal }),
        ProcessExit::Unknown => None,
    };
    let explanation = match (exit, vm.out_of_memory()) {
        (ProcessExit::Signalled { signal: SIGKILL }, Some(OutOfMemory { limit_mib, killed })) => {
            Some(anteroom_crash::explain_machine_out_of_memory(limit_mib, killed))
        }
        _ => anteroom_crash::explain_machine(
            status,
            shutdown.as_deref(),
            &vm.console_tail(CONSOLE_SEARCHED),
        ),
    };
    let explanation = explanation.map(Box::new);
    EndReason::VmExited { exit, shutdown, console_tail, explanation }
}

/// A machine that boots an image, with its console in a folder.
///
/// # Errors
/// When a part of it cannot be read.
pub fn vm_spec(
    image: &Image,
    confinement: Confinement,
    log_dir: &Path,
    memory_mib: u32,
    vcpus: u8,
    accelerator: VmAccelerator,
    cpu: Option<String>,
) -> anyhow::Result<VmSpec> {
    let modules = image.modules();
    let modules =
        std::fs::read(&modules).with_context(|| format!("reading {} failed", modules.display()))?;
    Ok(VmSpec {
        kernel: image.kernel(),
        initramfs: initramfs_with_agent(&modules, embedded::agent()?),
        root_image: image.root(),
        memory_mib,
        vcpus,
        console_log: console_log(log_dir),
        console_log_limit: CONSOLE_LIMIT,
        accelerator,
        cpu,
        confinement,
    })
}

fn console_log(log_dir: &Path) -> PathBuf {
    log_dir.join("console.log")
}

/// The room's processor, as a sentence calls it.
pub fn processor(driver: &DriverConfig) -> String {
    match driver {
        DriverConfig::Qemu { cpu: Some(cpu), .. } => {
            format!("this VM's CPU profile {}", cpu.profile)
        }
        DriverConfig::Qemu { accelerator: VmAccelerator::Tcg, .. } => {
            format!("this VM's CPU ({})", anteroom_vm::TCG_PROCESSOR)
        }
        DriverConfig::Qemu { .. } => "this VM's CPU".to_owned(),
        DriverConfig::Host { .. } => "this machine's CPU".to_owned(),
    }
}

/// The names that a provider file leads to addresses.
pub fn mappings(egress: &Egress) -> Vec<Mapping> {
    let one = |map: &NameMapping| Mapping { host: map.host.clone(), port: map.port, to: map.to };
    egress.map.iter().map(one).collect()
}

/// The egress gate that the provider file describes.
pub fn gate(config: &SignInConfig) -> Result<SessionGate, String> {
    let egress = &config.provider.egress;
    let policy = match config.learns {
        true => Policy::learning(&mappings(egress)),
        false => Policy::new(&egress.allow, &mappings(egress)),
    };
    let policy = policy.map_err(|error| error.to_string())?;
    // Those that the operator advertises are this machine's, also behind a router.
    let own = config.candidates.iter().map(|address| address.ip()).collect();
    Ok(Gate::new(policy, SystemResolver { own }))
}
