//! One controller for each state folder, and none on a copy of a folder that another controller uses: either would
//! end the sessions of the other.

use std::fs::File;
use std::io;
use std::path::Path;

use anteroom_confine::ProcessStat;
use anteroom_private as private;
use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// In the state folder: which process uses it, or used it last. A copy of the folder has it too.
const FILE: &str = "controller.json";

/// A process, as no other is or was: ids of processes are used again, also after a restart of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ControllerProcess {
    /// Changes with each start of the machine.
    boot_id: String,
    pid: u32,
    /// When it was started, in ticks since the machine was.
    start_ticks: u64,
}

/// A state folder that is this controller's until this is dropped.
pub struct StateLock {
    _folder: Flock<File>,
}

impl StateLock {
    /// Takes the folder.
    ///
    /// # Errors
    /// When another controller has it, or one that it is a copy of; or when the folder cannot be read or written.
    pub fn take(dir: &Path) -> Result<Self> {
        let folder = lock(dir)?;
        let path = dir.join(FILE);
        // Until here whoever is written down can only be gone, unless this is a copy of what it uses.
        if let Some(user) = read(&path)?.filter(ControllerProcess::runs) {
            let (dir, pid) = (dir.display(), user.pid);
            bail!(
                "{dir} is a copy of the state folder of a controller that is running (process {pid}), whose sessions would be ended; stop that controller first, or choose another folder with --state-dir"
            );
        }
        let own = ControllerProcess::of(std::process::id())
            .context("reading when this process was started, of /proc, failed")?;
        private::write(&path, &serde_json::to_vec(&own)?)?;
        Ok(Self { _folder: folder })
    }
}

/// Two controllers on one state folder would end each other's sessions.
fn lock(dir: &Path) -> Result<Flock<File>> {
    // The folder itself, not a file in it: whoever removes files there removes no lock.
    let file = File::open(dir).with_context(|| format!("opening {} failed", dir.display()))?;
    // The database would only say that it cannot be opened.
    nix::unistd::access(dir, nix::unistd::AccessFlags::W_OK).with_context(|| {
        format!(
            "the state folder {} is not writable; choose another with --state-dir",
            dir.display()
        )
    })?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(lock),
        Err(_) => bail!(
            "another controller is using {}; stop it, or choose another folder with --state-dir",
            dir.display()
        ),
    }
}

/// Who is written down, if anybody is.
fn read(path: &Path) -> Result<Option<ControllerProcess>> {
    let text = match private::read_text(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        read => read.with_context(|| {
            format!(
                "reading which controller uses this state folder failed; if none does, remove {}",
                path.display()
            )
        })?,
    };
    // Not written by this version, or not whole: a controller that runs wrote it before it made anything.
    Ok(serde_json::from_str(&text).ok())
}

impl ControllerProcess {
    /// The process with this id now.
    fn of(pid: u32) -> io::Result<Self> {
        let boot_id = private::read_text(Path::new("/proc/sys/kernel/random/boot_id"))?;
        let stat = ProcessStat::of(pid)?;
        if stat.has_ended() {
            return Err(io::ErrorKind::NotFound.into());
        }
        let start_ticks = stat.start_ticks;
        Ok(Self { boot_id: boot_id.trim().to_owned(), pid, start_ticks })
    }

    fn runs(&self) -> bool {
        Self::of(self.pid).is_ok_and(|now| now == *self)
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{Id, WaitPidFlag, waitid};
    use nix::unistd::Pid;

    use super::*;

    fn written(dir: &Path) -> ControllerProcess {
        read(&dir.join(FILE)).unwrap().unwrap()
    }

    #[test]
    fn a_folder_is_taken_once_and_again_when_its_controller_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path();
        let lock = StateLock::take(dir).unwrap();
        assert_eq!(written(dir), ControllerProcess::of(std::process::id()).unwrap());
        let message = StateLock::take(dir).err().unwrap().to_string();
        assert!(message.starts_with("another controller is using "), "{message}");
        drop(lock);
        // Somebody copied it while its controller ran, or moves it when that is gone.
        let (copied, moved) = (folder.path().join("copied"), folder.path().join("moved"));
        for copy in [&copied, &moved] {
            std::fs::create_dir(copy).unwrap();
            std::fs::copy(dir.join(FILE), copy.join(FILE)).unwrap();
        }
        let message = StateLock::take(&copied).err().unwrap().to_string();
        assert!(message.contains("is a copy of the state folder of a controller"), "{message}");
        // Another process had its id, since the machine was started or before.
        let own = written(dir);
        let earlier = ControllerProcess { start_ticks: own.start_ticks - 1, ..own.clone() };
        let boot_id = "0".to_owned();
        for (dir, gone) in
            [(&moved, earlier), (&copied, ControllerProcess { boot_id, ..own.clone() })]
        {
            std::fs::write(dir.join(FILE), serde_json::to_vec(&gone).unwrap()).unwrap();
            drop(StateLock::take(dir).unwrap());
            assert_eq!(written(dir), own);
        }
        std::fs::write(dir.join(FILE), "{").unwrap();
        drop(StateLock::take(dir).unwrap());
        assert_eq!(written(dir), own);
    }

    #[test]
    fn a_process_that_has_ended_is_gone_before_it_is_collected() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id()).unwrap());
        waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).unwrap();
        assert!(ProcessStat::of(child.id()).unwrap().has_ended());
        assert!(ControllerProcess::of(child.id()).is_err());
        child.wait().unwrap();
    }
}
