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

/// Where the tree is made: the first that nothing of the tree comes from. It hides what lies there, from
/// this process alone.
const ROOTS: [&str; 2] = ["/tmp", "/run"];

/// A file tree and namespaces that a new process is to live in. Made before the fork; entered after it,
/// without an allocation.
#[derive(Debug)]
pub struct Enclosure {
    root: CString,
    proc: CString,
    steps: Vec<Step>,
}

/// One step of making the tree; all places are below its root.
#[derive(Debug)]
enum Step {
    Folder(CString),
    File(CString),
    Link { to: CString, at: CString },
    Bind { from: CString, at: CString },
    Device { at: CString, number: dev_t, mode: Mode, owner: Option<SessionUser> },
    Private { at: CString, options: CString },
}

impl Enclosure {
    /// For a program at this path, which may use these devices of its own (`/dev/kvm`) as its user. The
    /// private folder is one in memory that is its user's alone, and goes with the tree; from outside it is
    /// below `/proc/PID/root`.
    ///
    /// # Errors
    /// When something of the machine cannot be looked at.
    pub fn for_program(
        program: &Path,
        devices: &[&Path],
        private_folder: Option<&Path>,
        user: SessionUser,
    ) -> io::Result<Self> {
        let parts = parts_of(program)?;
        let is_free = |root: &&str| !parts.iter().any(|part| part.starts_with(root));
        let root = ROOTS.into_iter().find(is_free).ok_or(io::ErrorKind::InvalidInput)?;
        let mut tree = Tree { root, steps: Vec::new() };
        for path in ["/etc", "/dev", "/proc"] {
            tree.folder(Path::new(path))?;
        }
        for path in parts {
            tree.share(&path)?;
        }
        let everyone =
            DEVICES.iter().map(|path| (Path::new(path), Mode::from_bits_truncate(0o666), None));
        let own = devices.iter().map(|path| (*path, Mode::from_bits_truncate(0o600), Some(user)));
        for (path, mode, owner) in everyone.chain(own) {
            let number = std::fs::metadata(path)?.rdev();
            let at = tree.inside(path)?;
            tree.steps.push(Step::Device { at, number, mode, owner });
        }
        if let Some(path) = private_folder {
            let options = format!("mode=700,size=64k,uid={0},gid={0}", user.id());
            let (at, options) = (tree.inside(path)?, CString::new(options)?);
            tree.steps.push(Step::Private { at, options });
        }
        let proc = tree.inside(Path::new("/proc"))?;
        Ok(Self { root: CString::new(root)?, proc, steps: tree.steps })
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
        let root = self.root.as_c_str();
        mount(Some("tmpfs"), root, Some("tmpfs"), flags, Some("mode=755,size=1m"))?;
        for step in &self.steps {
            step.take()?;
        }
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        mount(Some("proc"), self.proc.as_c_str(), Some("proc"), flags, none)?;
        chdir(root)?;
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
            Self::Private { at, options } => {
                mkdir(at.as_c_str(), Mode::from_bits_truncate(0o700))?;
                let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
                mount(Some("tmpfs"), at.as_c_str(), Some("tmpfs"), flags, Some(options.as_c_str()))
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

/// A tree whose steps are being found.
struct Tree {
    root: &'static str,
    steps: Vec<Step>,
}

impl Tree {
    fn inside(&self, path: &Path) -> io::Result<CString> {
        let relative = path.strip_prefix("/").unwrap_or(path);
        Ok(CString::new(Path::new(self.root).join(relative).as_os_str().as_bytes())?)
    }

    /// A folder, once.
    fn folder(&mut self, path: &Path) -> io::Result<()> {
        let folder = self.inside(path)?;
        let is_there = |step: &Step| matches!(step, Step::Folder(made) if *made == folder);
        if !self.steps.iter().any(is_there) {
            self.steps.push(Step::Folder(folder));
        }
        Ok(())
    }

    /// Gives the tree this path as it is outside.
    fn share(&mut self, path: &Path) -> io::Result<()> {
        let Ok(metadata) = std::fs::symlink_metadata(path) else { return Ok(()) };
        let at = self.inside(path)?;
        if metadata.is_symlink() {
            let to = CString::new(std::fs::read_link(path)?.as_os_str().as_bytes())?;
            self.steps.push(Step::Link { to, at });
            return Ok(());
        }
        // For a path that is not at the top.
        let above = path.ancestors().skip(1).filter(|folder| folder.parent().is_some());
        for folder in above.collect::<Vec<_>>().into_iter().rev() {
            self.folder(folder)?;
        }
        if metadata.is_dir() {
            self.folder(path)?;
        } else {
            self.steps.push(Step::File(at.clone()));
        }
        self.steps.push(Step::Bind { from: CString::new(path.as_os_str().as_bytes())?, at });
        Ok(())
    }
}
