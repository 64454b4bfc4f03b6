//! The agent on this machine: no VM, no isolation. For tests and benchmarks at native speed.

use std::io::{self, Read};
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anteroom_confine::{Account, SessionUser};
use anteroom_fail_point::fail_point;
use anteroom_guest_protocol::{HOST_DISPLAY_FILE, SANDBOX_ENV};
use anteroom_session::{Accelerator, DriverKind};
use nix::fcntl::OFlag;

use crate::descriptors::pass;
use crate::driver::Booting;
use crate::process::{Launch, RunningSandbox, stream};
use crate::spawn_confinement::SpawnConfinement;
use crate::{BootError, Driver, Ending, SandboxSpec};

/// The link's descriptor as the agent sees it.
const LINK: RawFd = 10;

/// How long an agent on the host may take to end what it started there.
const END_ITSELF: Duration = Duration::from_secs(5);

/// The driver: the agent's process. What holds it is only a user, and where there are namespaces an
/// account of that user's.
#[derive(Clone, Debug)]
pub struct Host {
    /// The agent binary.
    pub agent: PathBuf,
    /// Folder for all it writes; made here, removed by whoever boots.
    pub runtime_dir: PathBuf,
}

impl Host {
    fn start(&self, sandbox: &SandboxSpec) -> Result<RunningSandbox, BootError> {
        let SandboxSpec { name, confinement, console: console_file } = sandbox;
        make_runtime_dir(&self.runtime_dir, confinement.user)?;
        fail_point("host.runtime_dir")
            .map_err(BootError::system("creating the sandbox's folder"))?;
        let account = confinement
            .enclosed()
            .map(|user| Account::write(&self.runtime_dir, &self.runtime_dir.join("home"), user))
            .transpose()
            .map_err(BootError::system("writing the sandbox's account"))?;
        let (link, agent_link) =
            UnixStream::pair().map_err(BootError::system("making the guest link"))?;
        let (console, agent_console) =
            UnixStream::pair().map_err(BootError::system("making the console"))?;
        let second = agent_console.try_clone().map_err(BootError::system("making the console"))?;
        let mut command = Command::new(&self.agent);
        command
            .args(["--host-driver", "--link-fd", &LINK.to_string()])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", &self.runtime_dir)
            .env("ANTEROOM_RUNTIME_DIR", &self.runtime_dir)
            .env(SANDBOX_ENV, name.as_str())
            .stdin(Stdio::null())
            .stdout(OwnedFd::from(agent_console))
            .stderr(OwnedFd::from(second));
        pass(&mut command, [(agent_link.into(), LINK)])
            .map_err(BootError::system("passing the link to the agent"))?;
        let running = RunningSandbox::start(Launch {
            driver: DriverKind::Host,
            accelerator: Accelerator::None,
            command,
            confined: SpawnConfinement::agent(confinement.user, account),
            console: console.into(),
            console_file,
        })?;
        let link = stream(link.into()).map_err(BootError::system("opening the guest link"))?;
        Ok(running.linked_by(link.into()).ended_by(Ending::Ask(END_ITSELF)))
    }
}

impl Driver for Host {
    fn kind(&self) -> DriverKind {
        DriverKind::Host
    }

    fn boot<'a>(&'a self, sandbox: &'a SandboxSpec) -> Booting<'a> {
        Box::pin(async { self.start(sandbox) })
    }
}

/// What is left of a sandbox on this host could not be removed.
#[derive(Debug, thiserror::Error)]
#[error("removing {} failed", path.display())]
pub struct RemoveError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// Removes a sandbox's folder, and the socket and lock of an X server that was killed before it could
/// do so itself. One that is gone is fine; what somebody else has put there, which kept the sandbox
/// from being made, stays.
///
/// # Errors
/// When something of it cannot be removed.
pub fn remove_runtime_dir(dir: &Path, user: Option<SessionUser>) -> Result<(), RemoveError> {
    gone(dir, fail_point("teardown.remove"))?;
    if !is_folder_of(dir, user) {
        return Ok(());
    }
    let display = read_display(&dir.join(HOST_DISPLAY_FILE));
    let display_removed =
        display.map_or(Ok(()), |number| remove_display(Path::new("/tmp"), number, user));
    // Whatever became of the socket: the folder may hold a credential in clear.
    let tree_removed = gone(dir, remove_tree(dir));
    display_removed.and(tree_removed)
}

/// By its owner, which nobody but root can give to another: in a folder where everybody may write, a
/// name alone shows nothing.
fn is_folder_of(dir: &Path, user: Option<SessionUser>) -> bool {
    std::fs::symlink_metadata(dir).is_ok_and(|found| found.is_dir() && is_ours(&found, user))
}

/// Whether it belongs to the session's user or to this one.
pub(crate) fn is_ours(found: &std::fs::Metadata, user: Option<SessionUser>) -> bool {
    let own = nix::unistd::geteuid().as_raw();
    found.uid() == own || user.is_some_and(|user| found.uid() == user.id())
}

/// The folder is the sandbox's own: what lies there may be anything, a pipe that nobody writes to or a
/// link to a device that never ends among it.
fn read_display(path: &Path) -> Option<u32> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    let file = std::fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(path).ok()?;
    file.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut text = String::new();
    file.take(16).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// By `rm`, which keeps its place in a list: std's own calls itself for each level, and a tree that
/// is some ten thousand deep overflows the stack of whoever removes it.
pub(crate) fn remove_tree(dir: &Path) -> io::Result<()> {
    // Not what a link leads to.
    match std::fs::symlink_metadata(dir) {
        Ok(_) => remove_trees(&[dir.to_owned()]),
        Err(_) => Ok(()),
    }
}

/// See [`remove_tree`].
pub(crate) fn remove_trees(paths: &[PathBuf]) -> io::Result<()> {
    let run = |rm: &str| {
        Command::new(rm)
            .args(["-rf", "--one-file-system", "--"])
            .args(paths)
            .stdin(Stdio::null())
            .output()
    };
    let rm = match run("rm") {
        // A PATH of somebody's own choice.
        Err(error) if error.kind() == io::ErrorKind::NotFound => run("/bin/rm")?,
        ran => ran?,
    };
    let said = String::from_utf8_lossy(&rm.stderr);
    if rm.status.success() {
        Ok(())
    } else {
        Err(io::Error::other(said.lines().next().unwrap_or("rm failed").to_owned()))
    }
}

/// How long an X server that was killed may still be seen listening.
const DYING: std::time::Duration = std::time::Duration::from_millis(50);
const DYING_TRIES: u32 = 20;

/// A socket that somebody listens on, or that another user made, belongs to another server, which took
/// the number since; one in a folder that is a link is not X's. Nothing here speaks with whoever listens.
fn remove_display(
    folder: &Path,
    number: u32,
    user: Option<SessionUser>,
) -> Result<(), RemoveError> {
    let sockets = folder.join(".X11-unix");
    let socket = sockets.join(format!("X{number}"));
    let is_folder = std::fs::symlink_metadata(&sockets).is_ok_and(|found| found.is_dir());
    if !is_folder || !is_its(&socket, user, |found| found.file_type().is_socket()) {
        return Ok(());
    }
    // Our own may only be dying yet.
    let mut tries = 0;
    while is_listened_on(&socket) {
        tries += 1;
        if tries > DYING_TRIES {
            return Ok(());
        }
        std::thread::sleep(DYING);
    }
    gone(&socket, std::fs::remove_file(&socket))?;
    // With a number of its own choice Xvnc makes no lock; other versions may.
    let lock = folder.join(format!(".X{number}-lock"));
    if !is_its(&lock, user, std::fs::Metadata::is_file) {
        return Ok(());
    }
    gone(&lock, std::fs::remove_file(&lock))
}

/// Whether it is of this kind and the session's user's; without such a user, this one's.
fn is_its(
    path: &Path,
    user: Option<SessionUser>,
    is_kind: impl FnOnce(&std::fs::Metadata) -> bool,
) -> bool {
    let owner = user.map_or_else(|| nix::unistd::geteuid().as_raw(), SessionUser::id);
    std::fs::symlink_metadata(path).is_ok_and(|found| found.uid() == owner && is_kind(&found))
}

/// As the kernel lists it (`__SO_ACCEPTCON` in the flags).
fn is_listened_on(socket: &Path) -> bool {
    let list = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    let path = socket.display().to_string();
    list.lines().any(|line| {
        let mut fields = line.split_whitespace();
        fields.nth(3) == Some("00010000") && fields.nth(3) == Some(&path)
    })
}

pub(crate) fn gone(path: &Path, removed: io::Result<()>) -> Result<(), RemoveError> {
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(RemoveError { path: path.to_path_buf(), source: error })
        }
        _ => Ok(()),
    }
}

/// Private to whoever its process will run as, and new: what somebody else has put there, a folder or a
/// link to one, is neither taken nor given away.
pub(crate) fn make_runtime_dir(
    runtime_dir: &Path,
    user: Option<SessionUser>,
) -> Result<(), BootError> {
    use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
    let failed = |source| BootError::File { path: runtime_dir.to_owned(), source };
    std::fs::DirBuilder::new().mode(0o700).create(runtime_dir).map_err(failed)?;
    if let Some(user) = user {
        let folder = std::fs::OpenOptions::new()
            .read(true)
            .custom_flags((OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW).bits())
            .open(runtime_dir)
            .map_err(failed)?;
        std::os::unix::fs::fchown(folder, Some(user.id()), Some(user.id())).map_err(failed)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use anteroom_confine::Confinement;

    use super::*;
    use crate::{ConsoleFile, SandboxName};

    #[test]
    fn the_socket_of_a_killed_x_server_goes_and_a_living_one_s_stays() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(".X11-unix")).unwrap();
        let socket = folder.path().join(".X11-unix/X7");
        let server = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        remove_display(folder.path(), 7, None).unwrap();
        assert!(socket.exists());
        drop(server);
        remove_display(folder.path(), 7, None).unwrap();
        assert!(!socket.exists());
        remove_display(folder.path(), 7, None).unwrap();
    }

    #[test]
    fn a_folder_or_a_link_that_is_there_is_neither_taken_nor_given_away() {
        use std::os::unix::fs::MetadataExt;
        let folder = tempfile::tempdir().unwrap();
        let others = folder.path().join("others");
        std::fs::create_dir(&others).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&others, &link).unwrap();
        let before = std::fs::metadata(&others).unwrap();
        for runtime_dir in [others.clone(), link, folder.path().join("none/below")] {
            let host = Host { agent: "/bin/true".into(), runtime_dir: runtime_dir.clone() };
            let sandbox = SandboxSpec {
                name: SandboxName::of_test(),
                confinement: Confinement::of_this_machine(None),
                console: ConsoleFile { path: folder.path().join("console"), limit: 1 },
            };
            assert!(host.start(&sandbox).is_err(), "{}", runtime_dir.display());
        }
        let after = std::fs::metadata(&others).unwrap();
        assert_eq!((after.uid(), after.mode()), (before.uid(), before.mode()));
    }

    #[test]
    fn a_folder_that_is_gone_is_fine_and_one_that_stays_is_named() {
        assert!(remove_runtime_dir(Path::new("/nowhere/anteroom"), None).is_ok());
        // Nobody can remove this one.
        let error = remove_runtime_dir(Path::new("/proc/self/task"), None).unwrap_err();
        assert_eq!(error.to_string(), "removing /proc/self/task failed");
    }

    #[test]
    fn a_tree_deeper_than_the_stack_and_a_pipe_for_a_file_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("sandbox");
        std::fs::create_dir(&dir).unwrap();
        let deep = "import os, sys\nos.chdir(sys.argv[1])\nos.mkfifo('display')\n\
                    for _ in range(20000): os.mkdir('d'); os.chdir('d')";
        let made = Command::new("python3").args(["-c", deep]).arg(&dir).status().unwrap();
        assert!(made.success());
        remove_runtime_dir(&dir, None).unwrap();
        assert!(!dir.exists());
    }

    #[test]
    fn what_somebody_else_has_put_there_stays() {
        use std::os::unix::fs::{chown, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (kept, link) = (folder.path().join("kept"), folder.path().join("link"));
        std::fs::create_dir(&kept).unwrap();
        symlink(&kept, &link).unwrap();
        remove_runtime_dir(&link, None).unwrap();
        assert!(kept.exists() && std::fs::symlink_metadata(&link).is_ok());
        let user = SessionUser::try_from(*SessionUser::RANGE.start()).unwrap();
        // Only root makes files of others.
        if chown(&kept, Some(user.id() + 1), None).is_ok() {
            remove_runtime_dir(&kept, Some(user)).unwrap();
            assert!(kept.exists());
            chown(&kept, Some(user.id()), None).unwrap();
            remove_runtime_dir(&kept, Some(user)).unwrap();
            assert!(!kept.exists());
        }
    }
}
