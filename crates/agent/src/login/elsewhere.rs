//! Where the tool is asked: a place without a network, and, elsewhere, one where nothing is as it was
//! but the credential's files: another host, user and machine id, other folders, and none of the keys
//! that the kernel keeps for a user (keyrings(7)). What works there does not hang on the machine that
//! made it.
//!
//! The agent starts itself with [`ARGUMENT`] as the program that makes the place (namespaces(7)) and
//! runs a command in it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use crate::pid1::bring_up_loopback;
use crate::room::{GUEST_UID, PERSON, RUNTIME, Room, RoomKind};

/// The agent's first argument as this program; the second is a [`Place`] in JSON.
pub const ARGUMENT: &str = "--elsewhere";

/// The program's status when there cannot be such a place; its last line says why.
pub const NO_SUCH_PLACE: i32 = 125;

/// Who one is there, and where.
const USER: &str = "someone";
const HOST: &str = "elsewhere";
/// How far their id is from what it was.
const OTHER_USER: u32 = 4000;

/// What names the machine.
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// Where a guest's programs keep things, besides the home.
const GUEST_FOLDERS: [&str; 4] = ["/home", "/tmp", "/var/tmp", "/run/user"];

/// A place.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Place {
    /// Where the credential's files are.
    files: PathBuf,
    /// Where they are there.
    home: PathBuf,
    /// The host's other name.
    host: Option<String>,
    /// Folders that are empty there.
    emptied: Vec<PathBuf>,
    /// Files that are others there.
    replaced: Vec<(PathBuf, PathBuf)>,
    /// By which user's id the command runs there; the home is theirs.
    user: u32,
    /// Program and arguments.
    command: Vec<String>,
}

impl Place {
    /// This machine, without a network and without its other processes.
    pub fn here(files: &Path, command: &[String], room: &Room) -> Self {
        Self {
            files: files.to_path_buf(),
            home: files.to_path_buf(),
            host: None,
            emptied: Vec::new(),
            replaced: Vec::new(),
            user: user_of(room),
            command: command.to_vec(),
        }
    }

    /// Another machine, for a command on files in a folder; writes what is needed for it into
    /// `beside`.
    pub fn elsewhere(files: &Path, beside: &Path, command: &[String], room: &Room) -> Result<Self> {
        let is_guest = room.kind == RoomKind::Guest;
        let home = if is_guest { Path::new("/home").join(USER) } else { files.to_path_buf() };
        let uid = user_of(room);
        let there = uid.wrapping_add(OTHER_USER);
        let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
        let id = format!("{:032x}\n", rand::random::<u128>());
        let write = |name: &str, text: &str| {
            let path = beside.join(name);
            fs::write(&path, text)
                .with_context(|| format!("writing {} failed", path.display()))
                .map(|()| path)
        };
        let (id, users) =
            (write("machine-id", &id)?, write("passwd", &renamed(&users, uid, there, &home))?);
        let ids = MACHINE_IDS.map(|path| (PathBuf::from(path), id.clone()));
        let emptied = if is_guest {
            GUEST_FOLDERS.map(PathBuf::from).to_vec()
        } else {
            vec![room.home.clone()]
        };
        Ok(Self {
            files: files.to_path_buf(),
            home,
            host: Some(HOST.to_owned()),
            emptied,
            replaced: ids.into_iter().chain([("/etc/passwd".into(), users)]).collect(),
            user: there,
            command: command.to_vec(),
        })
    }

    /// The command that runs in it.
    pub fn command(&self, room: &Room) -> Result<Command> {
        let mut command = room.root_command(&room.agent().to_string_lossy());
        command.arg(ARGUMENT).arg(serde_json::to_string(self)?);
        let user = if self.host.is_some() { USER } else { PERSON };
        command.env("HOME", &self.home).env("USER", user).env("LOGNAME", user);
        command.env("XDG_RUNTIME_DIR", self.home.join(RUNTIME));
        for of_the_desktop in ["XAUTHORITY", "TMPDIR"] {
            command.env_remove(of_the_desktop);
        }
        Ok(command)
    }
}

/// As whom the person's programs run.
fn user_of(room: &Room) -> u32 {
    match room.kind {
        RoomKind::Guest => GUEST_UID,
        RoomKind::Host => Uid::effective().as_raw(),
    }
}

/// The list of users with another name, id and home for one.
fn renamed(users: &str, uid: u32, there: u32, home: &Path) -> String {
    let uid = uid.to_string();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [_, password, id, group, _, _, shell] if id == uid => {
                format!("{USER}:{password}:{there}:{group}::{}:{shell}\n", home.display())
            }
            _ => format!("{line}\n"),
        }
    };
    users.lines().map(line).collect()
}

/// The program's whole life.
pub fn run(place: &str) -> ExitCode {
    let made = serde_json::from_str(place)
        .context("the place is no JSON")
        .and_then(|place: Place| enter(&place).map(|owner| (place, owner)));
    let (place, owner) = match made {
        Ok(made) => made,
        Err(error) => {
            eprintln!("{error:#}");
            return code(NO_SUCH_PLACE);
        }
    };
    let [program, arguments @ ..] = place.command.as_slice() else { return code(NO_SUCH_PLACE) };
    let mut command = Command::new(program);
    command.args(arguments).current_dir(&place.home);
    as_its_first_process(&mut command, owner);
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

/// Makes the place around this process; its next child is the first in it. Gives whom that is to become,
/// if not who this is.
fn enter(place: &Place) -> Result<Option<Owner>> {
    let (uid, gid) = (Uid::effective(), Gid::effective());
    let mut owner = None;
    if uid.is_root() {
        owner = Some(give(&place.files, place.user)?);
    } else {
        // Who we are, by the other id, with the rights to what follows.
        unshare(CloneFlags::CLONE_NEWUSER).context("making a user namespace failed")?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{} {uid} 1", place.user))?;
        fs::write("/proc/self/gid_map", format!("{gid} {gid} 1"))?;
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
    if let Some(host) = &place.host {
        nix::unistd::sethostname(host).context("naming the host failed")?;
    }
    // Programs speak to parts of their own over it.
    bring_up_loopback()?;
    let bind = |from: &Path, to: &Path| {
        mount(Some(from), to, nothing, MsFlags::MS_BIND, nothing)
            .with_context(|| format!("putting another {} in place failed", to.display()))
    };
    for (path, other) in &place.replaced {
        if path.exists() {
            bind(other, path)?;
        }
    }
    let files = place.files.as_path();
    // By its descriptor: the folder that it is in may be emptied.
    let held = fs::File::open(files).context("opening the credential's folder failed")?;
    for folder in place.emptied.iter().filter(|folder| folder.is_dir()) {
        let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some("tmpfs"), folder, Some("tmpfs"), safe, Some("mode=1777"))
            .with_context(|| format!("emptying {} failed", folder.display()))?;
    }
    if place.home != files {
        fs::create_dir_all(&place.home).context("making the home failed")?;
        use std::os::fd::AsRawFd;
        bind(Path::new(&format!("/proc/self/fd/{}", held.as_raw_fd())), &place.home)?;
    }
    Ok(owner)
}

/// Whose a home is.
#[derive(Clone, Copy)]
struct Owner {
    uid: Uid,
    gid: Gid,
}

/// Gives a folder and all in it to a user; its group stays.
fn give(folder: &Path, user: u32) -> Result<Owner> {
    let gid = Gid::from_raw(fs::metadata(folder)?.gid());
    let mut paths = vec![folder.to_path_buf()];
    while let Some(path) = paths.pop() {
        std::os::unix::fs::lchown(&path, Some(user), None)
            .with_context(|| format!("giving {} to another user failed", path.display()))?;
        if fs::symlink_metadata(&path)?.is_dir() {
            for entry in fs::read_dir(&path)? {
                paths.push(entry?.path());
            }
        }
    }
    Ok(Owner { uid: Uid::from_raw(user), gid })
}

/// Has a command see its own processes alone, and run as this user.
fn as_its_first_process(command: &mut Command, user: Option<Owner>) {
    // SAFETY: keyctl, mount, setgroups, setgid, setuid and prctl are async-signal-safe system calls on
    // values made before.
    #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
    unsafe {
        command.pre_exec(move || {
            let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
            // Where somebody hides a part of /proc this is forbidden, and the old one stays.
            let _ = mount(Some("proc"), "/proc", Some("proc"), safe, None::<&str>);
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
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_another_name_id_and_home() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\nperson:x:1000:1000:P,,,:/home/person:/bin/sh\n";
        let there = renamed(users, 1000, 5000, Path::new("/home/someone"));
        assert_eq!(
            there,
            "root:x:0:0:root:/root:/bin/bash\nsomeone:x:5000:1000::/home/someone:/bin/sh\n"
        );
    }
}
