//! QEMU's command line.

use std::os::fd::RawFd;

use anteroom_guest_protocol::VIRTIO_PORT_NAME;

use super::accelerator::{TCG_PROCESSOR, VmAccelerator};
use super::qmp::Command;
use crate::counter::counter_khz;
use crate::descriptors::{INITRAMFS, KERNEL, MEMORY, ROOT_IMAGE, path_of};
use crate::{SandboxName, VmSpec, VmStart};

/// Memory for translated code under emulation, in MiB. A browser's hot code fits; more only makes
/// the process grow.
pub const TRANSLATION_BUFFER_MIB: u32 = 512;

/// Descriptors as QEMU alone sees them.
pub const LINK: RawFd = 10;
pub const CONSOLE: RawFd = 11;
pub const MONITOR: RawFd = 15;

/// Reads a clone's state from [`STATE`](crate::descriptors::STATE).
pub const LOAD: Command = Command::load(r#"{"uri":"fd:17"}"#);

/// Everything behind the program's name; `cpu` as `-cpu` takes it, `None` for the usual one.
pub fn arguments(
    name: &SandboxName,
    vm: &VmSpec,
    accelerator: VmAccelerator,
    cpu: Option<&str>,
) -> Vec<String> {
    let (acceleration, usual) = match accelerator {
        VmAccelerator::Kvm => ("kvm".to_owned(), "host"),
        VmAccelerator::Tcg => {
            (format!("tcg,thread=multi,tb-size={TRANSLATION_BUFFER_MIB}"), TCG_PROCESSOR)
        }
    };
    let machine = "microvm,acpi=on,pit=on,pic=on,rtc=on,dump-guest-core=off";
    let mut arguments = [
        "-name",
        &format!("anteroom-{name}"),
        "-machine",
        // The guest's memory holds a credential in clear for a moment.
        &match vm.start {
            VmStart::PowerOn => machine.to_owned(),
            VmStart::ToBeSaved { .. } | VmStart::Clone { .. } => {
                format!("{machine},memory-backend=memory")
            }
        },
        "-accel",
        &acceleration,
        "-cpu",
        cpu.unwrap_or(usual),
        "-smp",
        &vm.vcpus.to_string(),
        "-m",
        &format!("{}M", vm.memory_mib),
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-no-reboot",
        // After start QEMU makes no process and changes no user.
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-add-fd",
        &format!("fd={ROOT_IMAGE},set=1"),
        "-drive",
        "if=none,id=root,file=/dev/fdset/1,format=raw,readonly=on,file.locking=off",
        "-device",
        "virtio-blk-device,drive=root",
        "-device",
        "virtio-rng-device",
        "-chardev",
        &format!("socket,id=console,fd={CONSOLE}"),
        "-serial",
        "chardev:console",
        "-chardev",
        &format!("socket,id=monitor,fd={MONITOR}"),
        "-mon",
        "chardev=monitor,mode=control",
        "-chardev",
        &format!("socket,id=link,fd={LINK}"),
        "-device",
        "virtio-serial-device",
        "-device",
        &format!("virtserialport,chardev=link,name={VIRTIO_PORT_NAME}"),
    ]
    .map(str::to_owned)
    .to_vec();
    arguments.extend(beginning(vm, accelerator));
    arguments
}

/// What the guest begins with: a kernel, memory that is a file, or a state that is read when the monitor
/// is asked for it.
fn beginning(vm: &VmSpec, accelerator: VmAccelerator) -> Vec<String> {
    // Its line takes 30 ms to make, and a clone reads none.
    let kernel = || {
        let (kernel, initramfs) = (path_of(KERNEL), path_of(INITRAMFS));
        let line = kernel_line(accelerator);
        ["-kernel", &kernel, "-initrd", &initramfs, "-append", &line].map(str::to_owned)
    };
    let memory = |shared: &str| {
        let size = vm.memory_mib;
        let path = path_of(MEMORY);
        let file = format!("id=memory,size={size}M,mem-path={path},share={shared},dump=off");
        ["-object".to_owned(), format!("memory-backend-file,{file}")]
    };
    match vm.start {
        VmStart::PowerOn => kernel().to_vec(),
        VmStart::ToBeSaved { .. } => [&kernel()[..], &memory("on")].concat(),
        VmStart::Clone { .. } => {
            [&memory("off")[..], &["-S", "-incoming", "defer"].map(str::to_owned)].concat()
        }
    }
}

/// Emulated guests hang while they calibrate the TSC on a busy host (3 boots of 5): they are given
/// its rate instead, and take their time from it.
fn kernel_line(accelerator: VmAccelerator) -> String {
    let common = "console=ttyS0 panic=-1 reboot=t quiet";
    if accelerator == VmAccelerator::Kvm {
        return common.to_owned();
    }
    // Mitigations guard against the guest's own programs; under emulation they only cost.
    let emulated = format!("{common} mitigations=off no_timer_check");
    match counter_khz() {
        Some(khz) => format!("{emulated} tsc_early_khz={khz} tsc=reliable"),
        None => emulated,
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::OwnedFd;
    use std::process::Command;
    use std::sync::Arc;

    use super::*;

    fn nothing() -> Arc<OwnedFd> {
        Arc::new(File::open("/dev/null").unwrap().into())
    }

    #[test]
    fn the_command_line_has_no_network_card_and_a_read_only_disk() {
        let vm = VmSpec {
            kernel: nothing(),
            initramfs: vec![],
            root_image: nothing(),
            memory_mib: 2048,
            vcpus: 2,
            start: VmStart::PowerOn,
        };
        let line = arguments(&SandboxName::of_test(), &vm, VmAccelerator::Tcg, None).join(" ");
        assert!(line.contains("readonly=on") && line.contains("-nodefaults"));
        assert!(!line.contains("net") || line.matches("net").count() == 0, "{line}");
        assert!(line.contains("spawn=deny"));
    }

    /// The rate that an emulated guest is given, in kHz.
    fn reported_khz() -> u64 {
        let line = kernel_line(VmAccelerator::Tcg);
        let reported = line.split(' ').find_map(|word| word.strip_prefix("tsc_early_khz="));
        reported.expect("the counter counts").parse().expect("a number")
    }

    /// Prints the rate that a guest would get; started by the next test where /proc/cpuinfo is another.
    #[test]
    fn report_the_rate() {
        println!("reported {} kHz", reported_khz());
    }

    #[test]
    fn what_cpuinfo_says_of_the_clock_rate_is_no_matter() {
        let folder = tempfile::tempdir().unwrap();
        let here = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        for false_mhz in ["800.000", "4200.000"] {
            let changed: Vec<String> = here
                .lines()
                .map(|line| match line.split_once(':') {
                    Some((key, _)) if key.starts_with("cpu MHz") => format!("{key}: {false_mhz}"),
                    _ => line.to_owned(),
                })
                .collect();
            let cpuinfo = folder.path().join("cpuinfo");
            std::fs::write(&cpuinfo, changed.join("\n")).unwrap();
            let mut own_mounts = Command::new("unshare");
            if !nix::unistd::geteuid().is_root() {
                own_mounts.args(["--user", "--map-root-user"]);
            }
            let script = r#"mount --bind "$0" /proc/cpuinfo && grep -m1 "cpu MHz" /proc/cpuinfo \
                && exec "$1" --exact qemu::command_line::tests::report_the_rate --nocapture"#;
            own_mounts.args(["--mount", "sh", "-c", script]).arg(&cpuinfo);
            let output = own_mounts.arg(std::env::current_exe().unwrap()).output().unwrap();
            let said = String::from_utf8(output.stdout).unwrap();
            assert!(said.contains(false_mhz), "{said}{}", String::from_utf8_lossy(&output.stderr));
            let reported = said.split("reported ").nth(1).unwrap().split(' ').next().unwrap();
            let (reported, here): (u64, u64) = (reported.parse().unwrap(), reported_khz());
            assert!(
                reported.abs_diff(here) < here / 100,
                "{reported} kHz, not {here}: {false_mhz}"
            );
        }
    }
}
