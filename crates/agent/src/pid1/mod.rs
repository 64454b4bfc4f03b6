//! The guest's first second: from the initramfs into the golden image, without an init system.
//!
//! Phases, in order: kernel file systems · modules · root disk with an overlay in memory · move
//! into it. A chrooted Chromium cannot make user namespaces, so the new root is *moved* into place
//! (`MS_MOVE` + chroot), as `switch_root` does.

mod link;
mod modules;
mod network;
mod port;
mod watched;

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};

pub use link::open as open_link;
pub use network::{bring_up as bring_up_network, bring_up_loopback};

/// Where the agent lives after the move: a tmpfs of the new root.
const AGENT_HOME: &str = "/run/anteroom";
const ROOT_DISK: &str = "/dev/vda";
const NEW_ROOT: &str = "/newroot";
/// Share of guest memory that writes may take; the rest is for programs.
const OVERLAY_SIZE: &str = "size=50%";

/// Runs all phases. Afterwards the process sees the golden image as its root.
pub fn enter_image() -> Result<()> {
    mount_kernel_file_systems()?;
    modules::load_all(Path::new("/anteroom/modules"))?;
    wait_for(Path::new(ROOT_DISK), Duration::from_secs(10))?;
    mount_root()?;
    keep_agent()?;
    move_into_new_root()?;
    settle()
}

/// Ends the guest. QEMU runs with `-no-reboot`, so a reset ends its process; a power-off would
/// leave other VMMs running.
pub fn power_off() -> ! {
    nix::unistd::sync();
    let _ = nix::sys::reboot::reboot(nix::sys::reboot::RebootMode::RB_AUTOBOOT);
    // Only reached when the kernel refused; PID 1 must not return.
    loop {
        std::thread::park();
    }
}

fn mount_kernel_file_systems() -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount_new("proc", "/proc", "proc", safe, "")?;
    mount_new("sysfs", "/sys", "sysfs", safe, "")?;
    mount_new("devtmpfs", "/dev", "devtmpfs", MsFlags::MS_NOSUID, "mode=0755")
}

fn mount_root() -> Result<()> {
    for folder in ["/lower", "/writes", NEW_ROOT] {
        fs::create_dir_all(folder)?;
    }
    let read_only = MsFlags::MS_RDONLY | MsFlags::MS_NODEV;
    if mount_new(ROOT_DISK, "/lower", "erofs", read_only, "").is_err() {
        mount_new(ROOT_DISK, "/lower", "ext4", read_only, "")?;
    }
    mount_new("writes", "/writes", "tmpfs", MsFlags::empty(), OVERLAY_SIZE)?;
    for folder in ["/writes/upper", "/writes/work"] {
        fs::create_dir(folder)?;
    }
    mount_new(
        "root",
        NEW_ROOT,
        "overlay",
        MsFlags::MS_NODEV,
        "lowerdir=/lower,upperdir=/writes/upper,workdir=/writes/work",
    )
}

/// Puts the running binary where it survives the move, and frees the initramfs' copy.
fn keep_agent() -> Result<()> {
    let run = format!("{NEW_ROOT}/run");
    mount_new("run", &run, "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=0755")?;
    let home = format!("{NEW_ROOT}{AGENT_HOME}");
    fs::create_dir_all(&home)?;
    fs::copy("/init", format!("{home}/agent")).context("copying the agent failed")?;
    fs::remove_file("/init").context("freeing the initramfs failed")
}

fn move_into_new_root() -> Result<()> {
    for folder in ["dev", "proc", "sys"] {
        let from = format!("/{folder}");
        let to = format!("{NEW_ROOT}/{folder}");
        fs::create_dir_all(&to)?;
        mount(Some(from.as_str()), to.as_str(), None::<&str>, MsFlags::MS_MOVE, None::<&str>)
            .with_context(|| format!("moving {from} failed"))?;
    }
    nix::unistd::chdir(NEW_ROOT)?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)
        .context("moving the root failed")?;
    nix::unistd::chroot(".").context("changing the root failed")?;
    nix::unistd::chdir("/").context("entering the root failed")
}

fn settle() -> Result<()> {
    let no_suid = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    for folder in ["/dev/shm", "/dev/pts", "/tmp"] {
        fs::create_dir_all(folder)?;
    }
    mount_new("shm", "/dev/shm", "tmpfs", no_suid, "mode=1777")?;
    mount_new("devpts", "/dev/pts", "devpts", MsFlags::MS_NOSUID, "mode=0620,ptmxmode=0666,gid=5")?;
    mount_new("tmp", "/tmp", "tmpfs", no_suid, "mode=1777")?;
    // devtmpfs makes none of these links; programs expect them.
    for (link, target) in [
        ("/dev/fd", "/proc/self/fd"),
        ("/dev/stdin", "/proc/self/fd/0"),
        ("/dev/stdout", "/proc/self/fd/1"),
        ("/dev/stderr", "/proc/self/fd/2"),
    ] {
        if !Path::new(link).exists() {
            std::os::unix::fs::symlink(target, link)?;
        }
    }
    let _ = fs::remove_file("/dev/ptmx");
    std::os::unix::fs::symlink("pts/ptmx", "/dev/ptmx")?;
    // X makes its socket here and refuses a folder that others could swap.
    fs::create_dir("/tmp/.X11-unix")?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions("/tmp/.X11-unix", fs::Permissions::from_mode(0o1777))?;
    // A kernel without them limits no service; the service says so when it asks.
    if mount_new("cgroup", "/sys/fs/cgroup", "cgroup2", no_suid, "").is_ok() {
        let _ = fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids");
    }
    nix::unistd::sethostname("anteroom").context("naming the guest failed")?;
    // Else each terminal session would get as much of the processors as all services together.
    let _ = fs::write("/proc/sys/kernel/sched_autogroup_enabled", "0");
    // A core holds what the program held: secrets. Nobody reads one before the agent listens.
    fs::write("/proc/sys/kernel/core_pattern", "|/bin/false")
        .context("turning core files off failed")
}

fn mount_new(source: &str, target: &str, kind: &str, flags: MsFlags, options: &str) -> Result<()> {
    fs::create_dir_all(target).with_context(|| format!("creating {target} failed"))?;
    let options = Some(options).filter(|o| !o.is_empty());
    mount(Some(source), target, Some(kind), flags, options)
        .with_context(|| format!("mounting {kind} on {target} failed"))
}

/// devtmpfs makes the node when the driver has found the disk; there is no event to wait for this
/// early, so look every few milliseconds.
fn wait_for(path: &Path, at_most: Duration) -> Result<()> {
    let started = Instant::now();
    while !path.exists() {
        if started.elapsed() > at_most {
            bail!("{} did not appear within {} s", path.display(), at_most.as_secs());
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}
