//! What an isolated environment is made of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};

use super::names::{HOST, USER, renamed, renamed_group, uuid, with_another_host};
use crate::guest::{END_USER, GUEST_UID, Guest, GuestKind, RUNTIME};
use crate::random::drawn;

/// The agent's first argument as the program that makes an environment; the second is an [`Environment`]
/// in JSON.
pub const ARGUMENT: &str = "--in-environment";

/// How far the ids of user and group are from what they were.
const OTHER_USER: u32 = 4000;

/// What names the machine.
const MACHINE_IDS: [&str; 2] = ["/etc/machine-id", "/var/lib/dbus/machine-id"];

/// Where a guest's programs keep things, besides the home; and where those of any machine do.
const GUEST_FOLDERS: [&str; 5] = ["/home", "/tmp", "/var/tmp", "/run/user", "/run/lock"];
const SHARED_MEMORY: &str = "/dev/shm";

/// Variables with the end user's time zone and language.
const OF_THE_END_USER: [&str; 2] = ["TZ", "LANGUAGE"];

/// Where a command runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Environment {
    /// Where the credential's files are.
    pub files: PathBuf,
    /// Where the home with these files is there.
    pub home: PathBuf,
    /// The host's name there, if it is another machine.
    pub host: Option<String>,
    /// Folders that are empty there.
    pub emptied: Vec<PathBuf>,
    /// Files that are replaced there, each with its replacement.
    pub replaced: Vec<(PathBuf, PathBuf)>,
    /// A file with the boot id there.
    pub boot_id: Option<PathBuf>,
    /// By which user id the command runs there; the home is theirs.
    pub user: u32,
    /// By which group id.
    pub group: u32,
    /// Program and arguments.
    pub command: Vec<String>,
}

impl Environment {
    /// This machine, without a network and without its other processes.
    pub fn this_machine(files: &Path, command: &[String], guest: &Guest) -> Self {
        Self {
            files: files.to_path_buf(),
            home: files.to_path_buf(),
            host: None,
            emptied: Vec::new(),
            replaced: Vec::new(),
            boot_id: None,
            user: user_of(guest),
            group: group_of(guest),
            command: command.to_vec(),
        }
    }

    /// Another machine, for a command on files in a folder; writes what is needed for it into
    /// `beside`.
    pub fn another_machine(
        files: &Path,
        beside: &Path,
        command: &[String],
        guest: &Guest,
    ) -> Result<Self> {
        let is_vm = guest.kind == GuestKind::Vm;
        let home = if is_vm { Path::new("/home").join(USER) } else { files.to_path_buf() };
        let (uid, gid) = (user_of(guest), group_of(guest));
        let (user, group) = (uid.wrapping_add(OTHER_USER), gid.wrapping_add(OTHER_USER));
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let host = nix::unistd::gethostname().unwrap_or_default();
        let hosts = with_another_host(&read("/etc/hosts"), &host.to_string_lossy());
        let users = renamed(&read("/etc/passwd"), (uid, gid), (user, group), &home);
        let groups = renamed_group(&read("/etc/group"), gid, group);
        let id = u128::from_ne_bytes(drawn()?);
        let boot = uuid(u128::from_ne_bytes(drawn()?));
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
        let mut emptied = if is_vm {
            GUEST_FOLDERS.map(PathBuf::from).to_vec()
        } else {
            vec![guest.home.clone()]
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
    pub fn command(&self, guest: &Guest) -> Result<Command> {
        let mut command = guest.root_command(&guest.agent().to_string_lossy());
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

/// As whom the end user's programs run.
fn user_of(guest: &Guest) -> u32 {
    match guest.kind {
        GuestKind::Vm => GUEST_UID,
        GuestKind::Host => Uid::effective().as_raw(),
    }
}

/// The group that they have.
fn group_of(guest: &Guest) -> u32 {
    match guest.kind {
        GuestKind::Vm => GUEST_UID,
        GuestKind::Host => Gid::effective().as_raw(),
    }
}
