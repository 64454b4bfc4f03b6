//! Where the tool is asked: a place without a network, and, elsewhere, one where nothing is as it was
//! but the credential's files: another host, user, group, machine id and boot, other folders, no network
//! card, no language or time zone of the person, and none of the keys that the kernel keeps for a user
//! (keyrings(7)). What works there does not hang on the machine that
//! made it.
//!
//! The agent starts itself with [`ARGUMENT`] as the program that makes the place (namespaces(7)) and
//! runs a command in it.

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{ForkResult, Gid, Pid, Uid};
use serde::{Deserialize, Serialize};

use crate::pid1::bring_up_loopback;
use crate::sandbox::{END_USER, GUEST_UID, RUNTIME, Sandbox, SandboxKind};

/// The agent's first argument as this program; the second is a [`Place`] in JSON.
pub const ARGUMENT: &str = "--elsewhere";

/// The program's status when there cannot be such a place; its last line says why.
pub const NO_SUCH_PLACE: i32 = 125;

/// Who one is there, and where.
const USER: &str = "someone";
const HOST: &str = "elsewhere";
/// How far their ids are from what they were.
const OTHER_USER: u32 = 4000;

/// What names the machine.
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// What the kernel calls this boot.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// Where a guest's programs keep things, besides the home; and where those of any machine do.
const GUEST_FOLDERS: [&str; 5] = ["/home", "/tmp", "/var/tmp", "/run/user", "/run/lock"];
const SHARED_MEMORY: &str = "/dev/shm";

/// What tells of the person's language and time zone.
const OF_THE_END_USER: [&str; 2] = ["TZ", "LANGUAGE"];

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
    /// What the boot is called there.
    boot_id: Option<PathBuf>,
    /// By which ids the command runs there; the home is theirs.
    user: u32,
    group: u32,
    /// Program and arguments.
    command: Vec<String>,
}

impl Place {
    /// This machine, without a network and without its other processes.
    pub fn here(files: &Path, command: &[String], sandbox: &Sandbox) -> Self {
        Self {
            files: files.to_path_buf(),
            home: files.to_path_buf(),
            host: None,
            emptied: Vec::new(),
            replaced: Vec::new(),
            boot_id: None,
            user: user_of(sandbox),
            group: group_of(sandbox),
            command: command.to_vec(),
        }
    }

    /// Another machine, for a command on files in a folder; writes what is needed for it into
    /// `beside`.
    pub fn elsewhere(
        files: &Path,
        beside: &Path,
        command: &[String],
        sandbox: &Sandbox,
    ) -> Result<Self> {
        let is_guest = sandbox.kind == SandboxKind::Guest;
        let home = if is_guest { Path::new("/home").join(USER) } else { files.to_path_buf() };
        let (uid, gid) = (user_of(sandbox), group_of(sandbox));
        let (user, group) = (uid.wrapping_add(OTHER_USER), gid.wrapping_add(OTHER_USER));
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let host = nix::unistd::gethostname().unwrap_or_default();
        let hosts = with_another_host(&read("/etc/hosts"), &host.to_string_lossy());
        let users = renamed(&read("/etc/passwd"), (uid, gid), (user, group), &home);
        let groups = renamed_group(&read("/etc/group"), gid, group);
        let id = rand::random::<u128>();
        let boot = uuid(rand::random());
        let write = |name: &str, text: &str| {
            let path = beside.join(name);
            fs::write(&path, text)
                .with_context(|| format!("writing {} failed", path.display()))
                .map(|()| path)
        };
        let id = write("machine-id", &format!("{id:032x}\n"))?;
        let ids = MACHINE_IDS.map(|path| (PathBuf::from(path), id.clone()));
        let files_there = [
            ("/etc/passwd", write("passwd", &users)?),
            ("/etc/group", write("group", &groups)?),
            ("/etc/hosts", write("hosts", &hosts)?),
            ("/etc/hostname", write("hostname", &format!("{HOST}\n"))?),
        ];
        let files_there = files_there.map(|(path, other)| (PathBuf::from(path), other));
        let mut emptied = if is_guest {
            GUEST_FOLDERS.map(PathBuf::from).to_vec()
        } else {
            vec![sandbox.home.clone()]
        };
        emptied.push(SHARED_MEMORY.into());
        Ok(Self {
            files: files.to_path_buf(),
            home,
            host: Some(HOST.to_owned()),
            emptied,
            replaced: ids.into_iter().chain(files_there).collect(),
            boot_id: Some(write("boot-id", &format!("{boot}\n"))?),
            user,
            group,
            command: command.to_vec(),
        })
    }

    /// The command that runs in it.
    pub fn command(&self, sandbox: &Sandbox) -> Result<Command> {
        let mut command = sandbox.root_command(&sandbox.agent().to_string_lossy());
        command.arg(ARGUMENT).arg(serde_json::to_string(self)?);
        let user = if self.host.is_some() { USER } else { END_USER };
        command.env("HOME", &self.home).env("USER", user).env("LOGNAME", user);
        command.env("XDG_RUNTIME_DIR", self.home.join(RUNTIME));
        if self.host.is_some() {
            OF_THE_END_USER.iter().for_each(|name| {
                command.env_remove(name);
            });
            command.env("LANG", "C.UTF-8");
        }
        for of_the_desktop in ["XAUTHORITY", "TMPDIR"] {
            command.env_remove(of_the_desktop);
        }
        Ok(command)
    }
}

/// As whom the person's programs run.
fn user_of(sandbox: &Sandbox) -> u32 {
    match sandbox.kind {
        SandboxKind::Guest => GUEST_UID,
        SandboxKind::Host => Uid::effective().as_raw(),
    }
}

/// The group that they have.
fn group_of(sandbox: &Sandbox) -> u32 {
    match sandbox.kind {
        SandboxKind::Guest => GUEST_UID,
        SandboxKind::Host => Gid::effective().as_raw(),
    }
}

/// The list of users with another name, ids and home for one; user and group.
fn renamed(users: &str, was: (u32, u32), is: (u32, u32), home: &Path) -> String {
    let (uid, gid) = (was.0.to_string(), was.1.to_string());
    let (user, group) = is;
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [_, password, id, its, _, _, shell] if id == uid => {
                let group = if its == gid { group.to_string() } else { its.to_owned() };
                format!("{USER}:{password}:{user}:{group}::{}:{shell}\n", home.display())
            }
            _ => format!("{line}\n"),
        }
    };
    users.lines().map(line).collect()
}

/// The list of groups with another name and id for one.
fn renamed_group(groups: &str, was: u32, is: u32) -> String {
    let was = was.to_string();
    let line = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        match fields[..] {
            [_, password, id, _] if id == was => format!("{USER}:{password}:{is}:\n"),
            _ => format!("{line}\n"),
        }
    };
    groups.lines().map(line).collect()
}

/// The list of hosts with another name for one.
fn with_another_host(hosts: &str, name: &str) -> String {
    let word = |word: &str| match word.split_once('.') {
        _ if word == name => HOST.to_owned(),
        Some((first, domain)) if first == name => format!("{HOST}.{domain}"),
        _ => word.to_owned(),
    };
    let line = |line: &str| line.split_whitespace().map(word).collect::<Vec<_>>().join(" ") + "\n";
    hosts.lines().map(line).collect()
}

/// In the kernel's own form.
fn uuid(random: u128) -> String {
    let id = format!("{random:032x}");
    [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-")
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
    as_its_first_process(&mut command, owner, place.boot_id);
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
        owner = Some(give(&place.files, place.user, place.group)?);
    } else {
        // Who we are, by the other id, with the rights to what follows.
        unshare(CloneFlags::CLONE_NEWUSER).context("making a user namespace failed")?;
        fs::write("/proc/self/setgroups", "deny")?;
        fs::write("/proc/self/uid_map", format!("{} {uid} 1", place.user))?;
        fs::write("/proc/self/gid_map", format!("{} {gid} 1", place.group))?;
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
    if place.host.is_some() {
        no_cards()?;
    }
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

/// Has /sys show this network and not the room's, whose cards have names and addresses of their own.
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
            Err(_) => return NO_SUCH_PLACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_user_has_another_name_id_and_home() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\nperson:x:1000:1000:P,,,:/home/person:/bin/sh\n";
        let there = renamed(users, (1000, 1000), (5000, 5000), Path::new("/home/someone"));
        assert_eq!(
            there,
            "root:x:0:0:root:/root:/bin/bash\nsomeone:x:5000:5000::/home/someone:/bin/sh\n"
        );
    }

    #[test]
    fn its_group_and_host_have_other_names_and_the_rest_stays() {
        let groups = "root:x:0:\nperson:x:1000:ada\naudio:x:29:person\n";
        let there = "root:x:0:\nsomeone:x:5000:\naudio:x:29:person\n";
        assert_eq!(renamed_group(groups, 1000, 5000), there);
        let hosts = "127.0.0.1\tlocalhost\n127.0.1.1\tmine.home.arpa mine\n";
        let there = "127.0.0.1 localhost\n127.0.1.1 elsewhere.home.arpa elsewhere\n";
        assert_eq!(with_another_host(hosts, "mine"), there);
        assert_eq!(uuid(1), "00000000-0000-0000-0000-000000000001");
    }
}
