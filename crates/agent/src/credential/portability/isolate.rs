//! The program that makes an environment (namespaces(7)) and runs a command in it.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{ForkResult, Gid, Pid, Uid};

use super::environment::Environment;
use crate::pid1::bring_up_loopback;

/// The program's status when there cannot be such an environment; its last line says why.
pub const CANNOT_ISOLATE: i32 = 125;

/// What the kernel calls this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Makes an environment around this process and runs its command there, as the program that the agent
/// starts.
pub fn run(environment: &str) -> ExitCode {
    let made = serde_json::from_str(environment)
        .context("the environment is not valid JSON")
        .and_then(|environment: Environment| enter(&environment).map(|owner| (environment, owner)));
    let (environment, owner) = match made {
        Ok(made) => made,
        Err(error) => {
            eprintln!("{error:#}");
            return code(CANNOT_ISOLATE);
        }
    };
    let [program, arguments @ ..] = environment.command.as_slice() else {
        return code(CANNOT_ISOLATE);
    };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&environment.home);
    as_its_first_process(&mut command, owner, environment.boot_id);
    match command.status() {
        Ok(status) => code(status.code().unwrap_or(128 + status.signal().unwrap_or(0))),
        Err(error) => {
            eprintln!("starting {program} failed: {error}");
            code(127)
        }
    }
}

fn code(status: i32) -> ExitCode {
    ExitCode::from(u8::try_from(status).unwrap_or(u8::MAX))
}

/// Makes the environment around this process; its next child is the first in it. Gives whom that is to become,
/// if not who this is.
fn enter(environment: &Environment) -> Result<Option<Owner>> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let mut owner = None;
    if uid.is_root() {
        owner = Some(give(&environment.files, environment.user, environment.group)?);
    } else {
        // Who we are, by the other id, with the rights to what follows.
        unshare(CloneFlags::CLONE_NEWUSER).context("making a user namespace failed")?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{} {uid} 1", environment.user))?;
        fs::write("/proc/self/gid_map", format!("{} {gid} 1", environment.group))?;
    }
    let own = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWPID;
    unshare(own).context("making namespaces failed")?;
    let nothing = None::<&str>;
    mount(nothing, "/", nothing, MsFlags::MS_REC | MsFlags::MS_PRIVATE, nothing)
        .context("making the mounts private failed")?;
    if let Some(host) = &environment.host {
        nix::unistd::sethostname(host).context("naming the host failed")?;
    }
    // Programs speak to parts of their own over it.
    bring_up_loopback()?;
    if environment.host.is_some() {
        no_cards()?;
    }
    let bind = |from: &Path, to: &Path| {
        mount(Some(from), to, nothing, MsFlags::MS_BIND, nothing)
            .with_context(|| format!("putting another {} in place failed", to.display()))
    };
    for (path, other) in &environment.replaced {
        if path.exists() {
            bind(other, path)?;
        }
    }
    let files = environment.files.as_path();
    // By its descriptor: the folder that it is in may be emptied.
    let held = fs::File::open(files).context("opening the credential's folder failed")?;
    for folder in environment.emptied.iter().filter(|folder| folder.is_dir()) {
        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), folder, Some("tmpfs"), safe, Some("mode=1777"))
            .with_context(|| format!("emptying {} failed", folder.display()))?;
    }
    if environment.home != files {
        fs::create_dir_all(&environment.home).context("making the home failed")?;
        use std::os::fd::AsRawFd;
        bind(Path::new(&format!("/proc/self/fd/{}", held.as_raw_fd())), &environment.home)?;
    }
    Ok(owner)
}

/// Whose a home is.
#[derive(Clone, Copy)]
struct Owner {
    uid: Uid,
    gid: Gid,
}

/// Has /sys show this network and not the sandbox's, whose cards have names and addresses of their own.
fn no_cards() -> Result<()> {
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if mount(Some("sysfs"), "/sys", Some("sysfs"), safe, None::<&str>).is_ok() {
        return Ok(());
    }
    // Where somebody hides a part of the old one a new one is forbidden.
    let cards = Path::new("/sys/class/net");
    if !cards.is_dir() {
        return Ok(());
    }
    mount(Some("tmpfs"), cards, Some("tmpfs"), safe, Some("mode=0755"))
        .context("hiding the network cards failed")
}

/// Gives a folder and all in it to a user and a group.
fn give(folder: &Path, user: u32, group: u32) -> Result<Owner> {
    let mut paths = vec![folder.to_path_buf()];
    while let Some(path) = paths.pop() {
        std::os::unix::fs::lchown(&path, Some(user), Some(group))
            .with_context(|| format!("giving {} to another user failed", path.display()))?;
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
        }
    }
    Ok(Owner { uid: Uid::from_raw(user), gid: Gid::from_raw(group) })
}

/// Has a command see its own processes alone, and run as this user, beside a first process: the kernel
/// keeps that one from signals, also from those that a program ends itself by.
fn as_its_first_process(command: &mut Command, user: Option<Owner>, boot_id: Option<PathBuf>) {
    // SAFETY: keyctl, mount, setgroups, setgid, setuid, prctl, fork, waitpid and _exit are async-signal-safe
    // system calls on values made before.
    #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
    unsafe {
        command.pre_exec(move || {
            let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            // Where somebody hides a part of /proc this is forbidden, and the old one stays.
            let _ = mount(Some("proc"), "/proc", Some("proc"), safe, None::<&str>);
            if let Some(other) = &boot_id {
                // Nor is it there where /proc is not.
                let _ = mount(Some(other), BOOT_ID, None::<&str>, MsFlags::MS_BIND, None::<&str>);
            }
            if let Some(Owner { uid, gid }) = user {
                nix::unistd::setgroups(&[])?;
                nix::unistd::setgid(gid)?;
                nix::unistd::setuid(uid)?;
            }
            // A session's keys go along with a change of user; where there are no keys, none do.
            let nameless = std::ptr::null::<libc::c_char>();
            libc::syscall(libc::SYS_keyctl, libc::KEYCTL_JOIN_SESSION_KEYRING, nameless);
            // The first process takes all others with it.
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
            match nix::unistd::fork()? {
                ForkResult::Child => Ok(()),
                ForkResult::Parent { child } => libc::_exit(wait_for(child)),
            }
        });
    }
}

/// Waits for one process, and meanwhile for those that nobody else waits for; its code, as a shell has it.
fn wait_for(child: Pid) -> i32 {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return code,
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => return 128 + signal as i32,
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(_) => return CANNOT_ISOLATE,
        }
    }
}
