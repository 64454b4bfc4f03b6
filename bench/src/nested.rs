//! `cargo xtask nested`: a machine with KVM, on a machine without.
//!
//! QEMU emulates an AMD processor with SVM and nested paging, which Debian's kernel drives: inside,
//! `/dev/kvm` is the real KVM, at an emulator's speed. A command runs there on this machine's own files;
//! what it writes stays in memory, except under `/out`.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anteroom_image::{initramfs_with_agent, initramfs_with_program, modules_initramfs};
use anyhow::{Context, Result, bail};
use xtask::shell::{self, Running};
use xtask::{interrupt, machine};

/// What the machine's own kernel drives.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "9pnet_virtio",
    "9p",
    // Of erofs, which does not say so.
    "crc32c_generic",
    "erofs",
    "overlay",
    "kvm_amd",
    "vhost_vsock",
];

/// With `max` or an AMD model Debian's kernel hangs while it calibrates its clock.
const CPU: &str = "Haswell-noTSX,vendor=AuthenticAMD,+svm,+npt";

/// A processor that stands still for 40 s ends the machine, which would stand still for all its time: it was
/// seen while the kernel made huge pages, which it therefore does not.
const STUCK: &str = "softlockup_panic=1 watchdog_thresh=20 transparent_hugepage=never";

/// Begins QEMU's warnings of what the CPU model has and the emulator has not, which are expected.
const MISSING_IN_THE_EMULATOR: &str = "TCG doesn't support requested feature";

/// Of the machine: what runs in it keeps its files in memory too.
const MEMORY_MIB: u64 = 8192;

/// So much of the kernel's messages is part of a failure: a stack for each processor.
const LAST_LINES: usize = 80;

/// What its kernel says when it can no longer go on.
const PANIC: &str = "Kernel panic - not syncing";

/// How often a machine is started that panics, or does not get to the end: of eight runs of four sign-ins with
/// KVM four had a panic, and one of these had two, and then a machine that was given up after 13 min.
const STARTS: u32 = 5;

/// Where the command writes what is to be kept of it, with [`Options::out`].
pub const OUT: &str = "/out";

/// How often it is looked whether the machine is done.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Runs a command on a machine with KVM, which QEMU emulates.
#[derive(clap::Args)]
pub struct Options {
    /// Memory of the machine, in MiB.
    #[arg(long, default_value_t = MEMORY_MIB, value_parser = clap::value_parser!(u64).range(1024..))]
    pub memory: u64,
    /// The command is given up after that many seconds.
    #[arg(long, default_value_t = 600)]
    pub seconds: u64,
    /// Where files come to that the command writes to /out.
    #[arg(long, value_name = "FOLDER")]
    pub out: Option<PathBuf>,
    /// A folder that the machine has on a disk; everything else is read through a slower share.
    #[arg(long, value_name = "FOLDER")]
    pub disk: Vec<PathBuf>,
    /// The command and its arguments, run as root in the current folder.
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<OsString>,
}

impl Options {
    /// A command that has its programs on this machine's own files, and these folders on disks.
    pub fn of(command: Vec<OsString>, disk: Vec<PathBuf>) -> Self {
        Self { memory: MEMORY_MIB, seconds: 480, out: None, disk, command }
    }
}

/// Runs the command; an error when it fails. Where the machine itself failed, or did not get to the end, as
/// happens now and then on an emulated processor, it is started again.
pub fn succeed(options: &Options) -> Result<()> {
    let mut start = 1;
    let status = loop {
        match command(options) {
            Err(error) if start < STARTS && error.is::<MachineFailed>() => {
                start += 1;
                eprintln!("{error:#}\nThe machine is started again ({start} of {STARTS}).");
            }
            ended => break ended?,
        }
    };
    match status {
        0 => Ok(()),
        status => bail!("the command on the nested machine exited with {status}"),
    }
}

/// Runs the command; the exit status is the command's.
pub fn run(options: &Options) -> Result<()> {
    match command(options)? {
        0 => Ok(()),
        status => std::process::exit(status.into()),
    }
}

fn command(options: &Options) -> Result<u8> {
    machine::prepare()?;
    let work = tempfile::Builder::new().prefix("xtask-nested-").tempdir()?;
    let kernel = Kernel::of_debian()?;
    let file = |name: &str| work.path().join(name);
    let (initramfs, console, status) = (file("initramfs"), file("console"), file("status"));
    fs::write(&initramfs, machine_initramfs(&kernel, options)?)
        .context("writing its initramfs failed")?;
    let mut qemu = qemu(options, &kernel.image)?;
    qemu.arg("-initrd").arg(&initramfs);
    // What the command says, what the kernel says, and how the command ended.
    qemu.args(["-serial", "stdio"]);
    qemu.arg("-serial").arg(option("file:", &console));
    qemu.arg("-serial").arg(option("file:", &status));
    for (number, folder) in options.disk.iter().enumerate() {
        let disk = file(&format!("disk{number}"));
        make_disk(folder, &disk)?;
        qemu.arg("-drive").arg(option("if=virtio,format=raw,readonly=on,file=", &disk));
    }
    let complaints = fs::File::create(file("qemu")).context("making QEMU's log failed")?;
    qemu.stdin(Stdio::null()).stderr(complaints);
    let machine = Running(qemu.spawn().context("starting QEMU failed")?);
    let ended = wait(machine, Duration::from_secs(options.seconds));
    let said = |path: &Path| fs::read_to_string(path).unwrap_or_default();
    let (qemu, kernel) = (said(&file("qemu")), said(&console));
    ended
        .and_then(|()| match said(&status).trim().parse() {
            Ok(status) => Ok(status),
            Err(_) if kernel.contains(PANIC) => Err(MachineFailed::Panicked.into()),
            Err(_) => bail!("the machine ended before the command did"),
        })
        .with_context(|| {
            let complaints = qemu.lines().filter(|line| !line.contains(MISSING_IN_THE_EMULATOR));
            let lines: Vec<&str> = kernel.lines().collect();
            let last = lines[lines.len().saturating_sub(LAST_LINES)..].iter().copied();
            let all: Vec<&str> = complaints.chain(last).collect();
            format!("the nested machine failed; QEMU and its kernel said:\n{}", all.join("\n"))
        })
}

/// The machine did not get to the command's end.
#[derive(Debug)]
enum MachineFailed {
    /// Its own kernel gave up, which says nothing of the command.
    Panicked,
    /// Neither it nor the command ended.
    TooLate { seconds: u64 },
}

impl std::error::Error for MachineFailed {}

impl std::fmt::Display for MachineFailed {
    fn fmt(&self, text: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Panicked => text.write_str("the machine's kernel panicked"),
            Self::TooLate { seconds } => write!(
                text,
                "the command did not end within {seconds} s on the nested machine (`--seconds` gives it more)"
            ),
        }
    }
}

fn wait(mut machine: Running, limit: Duration) -> Result<()> {
    let started = Instant::now();
    while machine.0.try_wait().context("waiting for QEMU failed")?.is_none() {
        interrupt::check()?;
        if started.elapsed() > limit {
            return Err(MachineFailed::TooLate { seconds: limit.as_secs() }.into());
        }
        thread::sleep(LOOK_EVERY);
    }
    Ok(())
}

/// Debian's standard kernel, unpacked and not installed.
struct Kernel {
    image: PathBuf,
    modules: PathBuf,
}

impl Kernel {
    fn of_debian() -> Result<Self> {
        let depends =
            shell::output(Command::new("apt-cache").args(["depends", "linux-image-amd64"]))?;
        let package = depends
            .split_whitespace()
            .find(|word| word.starts_with("linux-image-") && *word != "linux-image-amd64")
            .context("apt knows no package linux-image-amd64; try `apt-get update`")?;
        let release = package.trim_start_matches("linux-image-");
        let image = machine::unpacked(package, &format!("boot/vmlinuz-{release}"))?;
        let root = image.ancestors().nth(2).context("the kernel is in a folder")?;
        let modules = root.join("lib/modules").join(release);
        Ok(Self { image, modules })
    }
}

/// Kernel modules, a shell, and what its first program is to do.
fn machine_initramfs(kernel: &Kernel, options: &Options) -> Result<Vec<u8>> {
    let busybox = fs::read(machine::unpacked("busybox-static", "bin/busybox")?)?;
    let init = fs::read(shell::root().join("bench/nested/init.sh"))?;
    let modules = modules_initramfs(&kernel.modules, &MODULES)?;
    let disks: Vec<String> = ('a'..='z')
        .zip(&options.disk)
        .map(|(letter, folder)| Ok(format!("{letter} {}\n", absolute(folder)?.display())))
        .collect::<Result<_>>()?;
    let mut files = vec![
        ("anteroom/busybox", busybox),
        ("anteroom/disks", disks.concat().into_bytes()),
        ("anteroom/command", script(&options.command)?),
    ];
    if options.out.is_some() {
        files.push(("anteroom/out", Vec::new()));
    }
    let initramfs = initramfs_with_agent(&modules, &init);
    Ok(files
        .iter()
        .fold(initramfs, |all, (path, content)| initramfs_with_program(all, path, content)))
}

fn qemu(options: &Options, kernel: &Path) -> Result<Command> {
    let khz = anteroom_vm::counter_khz().context("this processor's counter does not count")?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-M", "q35", "-accel", "tcg,thread=multi,tb-size=1024", "-cpu", CPU, "-smp", "2"])
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"])
        .arg("-m")
        .arg(options.memory.to_string())
        .arg("-kernel")
        .arg(kernel)
        .arg("-append")
        .arg(format!(
            "console=ttyS1 panic=-1 reboot=t quiet loglevel=5 mitigations=off tsc_early_khz={khz} \
             tsc=reliable no_timer_check {STUCK}"
        ))
        .args([
            "-virtfs",
            "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ]);
    if let Some(folder) = &options.out {
        fs::create_dir_all(folder)
            .with_context(|| format!("making {} failed", folder.display()))?;
        let share = "local,mount_tag=out,security_model=none,path=";
        qemu.arg("-virtfs").arg(option(share, &absolute(folder)?));
    }
    Ok(qemu)
}

/// A read-only file system with what is in a folder; an image's without its templates, which are made for
/// this machine, and may come and go meanwhile.
fn make_disk(folder: &Path, disk: &Path) -> Result<()> {
    let mut make = Command::new("mkfs.erofs");
    make.arg("--quiet").arg(format!("--exclude-path={}", anteroom_template::FOLDER));
    shell::output(make.arg(disk).arg(folder)).map(|_| ())
}

fn absolute(folder: &Path) -> Result<PathBuf> {
    folder.canonicalize().with_context(|| format!("finding {} failed", folder.display()))
}

/// A path as a part of one of QEMU's options, where a comma is written twice.
fn option(begin: &str, path: &Path) -> OsString {
    let path = path.as_os_str().as_bytes();
    let mut whole = begin.as_bytes().to_vec();
    for byte in path {
        whole.push(*byte);
        if *byte == b',' {
            whole.push(b',');
        }
    }
    OsStr::from_bytes(&whole).to_owned()
}

/// A shell script that runs the command in this folder and with this PATH.
fn script(command: &[OsString]) -> Result<Vec<u8>> {
    let folder = std::env::current_dir().context("finding the current folder failed")?;
    let mut exported = vec![OsString::from("export")];
    for (name, otherwise) in [("PATH", ""), ("HOME", "/root")] {
        let mut variable = OsString::from(format!("{name}="));
        variable.push(std::env::var_os(name).unwrap_or_else(|| otherwise.into()));
        exported.push(variable);
    }
    let lines = [line(&exported)?, line(&["cd".into(), folder.into()])?, line(command)?];
    Ok(lines.concat())
}

/// As a line of a POSIX shell.
fn line(arguments: &[OsString]) -> Result<Vec<u8>> {
    let mut line = shlex::bytes::try_join(arguments.iter().map(|argument| argument.as_bytes()))
        .context("the command cannot be passed to a shell")?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_reach_the_shell_as_they_are() {
        let arguments = ["printf", "%s|", "a b", "it's", "$HOME", "", "\\"].map(OsString::from);
        let line = line(&arguments).unwrap();
        let said = Command::new("sh").arg("-c").arg(OsStr::from_bytes(&line)).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap(), "a b|it's|$HOME||\\|");
    }

    #[test]
    fn a_comma_in_a_path_ends_no_option() {
        assert_eq!(option("file:", Path::new("/a,b")), "file:/a,,b");
    }
}
