//! A file tree and namespaces of a process's own.
//!
//! In its tree are the system's programs and libraries, read-only, and the few devices that a VMM
//! needs; nothing else of the machine has a path there. It has no network but a loopback that is down,
//! sees no process but itself, and shares no System V memory.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, dev_t, mknod, umask};
use nix::unistd::{Gid, Uid, chdir, chown, mkdir, pivot_root, symlinkat};

use crate::SessionUser;
use crate::system::parts_of;

/// Devices that anybody may use.
const DEVICES: [&str; 4] = ["/dev/null", "/dev/zero", "/dev/random", "/dev/urandom"];

/// Where the tree is made. It hides what lies there, from this process alone.
const ROOT: &str = "/tmp";

/// A file tree and namespaces that a new process is to live in. Made before the fork; entered after it,
/// without an allocation.
#[derive(Debug)]
pub struct Enclosure {
    steps: Vec<Step>,
}

/// One step of making the tree; all places are below [`ROOT`].
#[derive(Debug)]
enum Step {
    Folder(CString),
    File(CString),
    Link { to: CString, at: CString },
    Bind { from: CString, at: CString },
    Device { at: CString, number: dev_t, mode: Mode, owner: Option<SessionUser> },
}

impl Enclosure {
    /// For a program at this path, which may use these devices of its own (`/dev/kvm`) as its user.
    ///
    /// # Errors
    /// When something of the machine cannot be looked at.
    pub fn for_program(program: &Path, devices: &[&Path], user: SessionUser) -> io::Result<Self> {
        let mut steps = Vec::new();
        for path in ["/etc", "/dev", "/proc"] {
            steps.push(Step::Folder(inside(Path::new(path))?));
        }
        for path in parts_of(program)? {
            share(&path, &mut steps)?;
        }
        let everyone =
            DEVICES.iter().map(|path| (Path::new(path), Mode::from_bits_truncate(0o666), None));
        let own = devices.iter().map(|path| (*path, Mode::from_bits_truncate(0o600), Some(user)));
        for (path, mode, owner) in everyone.chain(own) {
            let number = std::fs::metadata(path)?.rdev();
            steps.push(Step::Device { at: inside(path)?, number, mode, owner });
        }
        Ok(Self { steps })
    }

    /// Moves this process, which has just been forked into a PID namespace of its own
    /// ([`own_pid_namespace`](Self::own_pid_namespace)), into the tree. Needs root.
    ///
    /// # Errors
    /// When the kernel refuses a part: the process must not go on then.
    pub fn enter(&self) -> nix::Result<()> {
        let none = None::<&str>;
        unshare(
            CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS,
        )?;
        // Each step says its whole mode.
        umask(Mode::empty());
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(Some("tmpfs"), ROOT, Some("tmpfs"), flags, Some("mode=755,size=1m"))?;
        for step in &self.steps {
            step.take()?;
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), c"/tmp/proc", Some("proc"), flags, none)?;
        chdir(ROOT)?;
        // The old tree lies over the new one then, and is taken off (pivot_root(2)).
        pivot_root(".", ".")?;
        umount2(".", MntFlags::MNT_DETACH)?;
        chdir("/")?;
        let flags = MsFlags::MS_REMOUNT
            | MsFlags::MS_BIND
            | MsFlags::MS_RDONLY
            | MsFlags::MS_NOSUID
            | MsFlags::MS_NOEXEC;
        mount(none, "/", none, flags, none)?;
        umask(Mode::from_bits_truncate(0o077));
        Ok(())
    }

    /// Runs `spawn`, whose first child is the first process of a PID namespace of its own. Needs root.
    ///
    /// # Errors
    /// When the kernel gives no namespace, or does not take this thread back.
    pub fn own_pid_namespace<T>(spawn: impl FnOnce() -> T) -> io::Result<T> {
        let own = std::fs::File::open("/proc/self/ns/pid")?;
        unshare(CloneFlags::CLONE_NEWPID)?;
        let spawned = spawn();
        // With the other still set no thread could be started.
        setns(own, CloneFlags::CLONE_NEWPID)?;
        Ok(spawned)
    }
}

impl Step {
    fn take(&self) -> nix::Result<()> {
        let none = None::<&str>;
        match self {
            Self::Folder(at) => mkdir(at.as_c_str(), Mode::from_bits_truncate(0o755)),
            Self::File(at) => {
                mknod(at.as_c_str(), SFlag::S_IFREG, Mode::from_bits_truncate(0o644), 0)
            }
            Self::Link { to, at } => symlinkat(to.as_c_str(), nix::fcntl::AT_FDCWD, at.as_c_str()),
            Self::Bind { from, at } => {
                let flags = MsFlags::MS_BIND | MsFlags::MS_REC;
                mount(Some(from.as_c_str()), at.as_c_str(), none, flags, none)?;
                close_all(at)
            }
            Self::Device { at, number, mode, owner } => {
                mknod(at.as_c_str(), SFlag::S_IFCHR, *mode, *number)?;
                match owner {
                    None => Ok(()),
                    Some(user) => {
                        let (uid, gid) = (Uid::from_raw(user.id()), Gid::from_raw(user.id()));
                        chown(at.as_c_str(), Some(uid), Some(gid))
                    }
                }
            }
        }
    }
}

/// Makes a mount, and all that is mounted below it, read-only and without devices and set-user-id
/// programs (mount_setattr(2), Linux 5.12).
fn close_all(at: &CStr) -> nix::Result<()> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: both pointers are to values that live here, and the size is the second's.
    #[expect(unsafe_code, reason = "neither the C library nor nix has this call yet")]
    let answer = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            at.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    };
    nix::errno::Errno::result(answer).map(drop)
}

/// The steps that give the tree this path as it is outside.
fn share(path: &Path, steps: &mut Vec<Step>) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
    let at = inside(path)?;
    if metadata.is_symlink() {
        let to = CString::new(std::fs::read_link(path)?.as_os_str().as_bytes())?;
        steps.push(Step::Link { to, at });
        return Ok(());
    }
    if metadata.is_dir() {
        // Those above it, for a path that is not at the top.
        let above = path.ancestors().skip(1).filter(|folder| folder.parent().is_some());
        for folder in above.collect::<Vec<_>>().into_iter().rev() {
            let folder = inside(folder)?;
            let is_there = |step: &Step| matches!(step, Step::Folder(made) if *made == folder);
            if !steps.iter().any(is_there) {
                steps.push(Step::Folder(folder));
            }
        }
        steps.push(Step::Folder(at.clone()));
    } else {
        steps.push(Step::File(at.clone()));
    }
    steps.push(Step::Bind { from: CString::new(path.as_os_str().as_bytes())?, at });
    Ok(())
}

fn inside(path: &Path) -> io::Result<CString> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    Ok(CString::new(Path::new(ROOT).join(relative).as_os_str().as_bytes())?)
}
