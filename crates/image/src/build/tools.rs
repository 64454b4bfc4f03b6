//! Programs of others: found, run into a log, stopped.

use std::fs::{self, File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::{BuildError, Job, system};
use crate::recipe::Recipe;

/// Program and Debian's package.
const NEEDED: [(&str, &str); 3] =
    [("mmdebstrap", "mmdebstrap"), ("mkfs.erofs", "erofs-utils"), ("dpkg-deb", "dpkg")];

/// What a build without root needs beside them: a range of user ids to unpack into.
const NEEDED_WITHOUT_ROOT: [(&str, &str); 2] = [("newuidmap", "uidmap"), ("unshare", "util-linux")];

/// How long a program that was asked to end may take to clean up.
const CLEANING_UP: Duration = Duration::from_secs(20);

/// Packages whose programs are not installed.
#[must_use]
pub fn missing_tools() -> Vec<&'static str> {
    let without_root: &[_] =
        if nix::unistd::geteuid().is_root() { &[] } else { &NEEDED_WITHOUT_ROOT };
    NEEDED
        .iter()
        .chain(without_root)
        .filter(|(program, _)| !found(program))
        .map(|(_, package)| *package)
        .collect()
}

/// Packages that a build of this recipe needs and that are not installed.
pub(super) fn missing_for(recipe: &Recipe) -> Vec<&'static str> {
    let mut missing = missing_tools();
    let mut need = |wanted: bool, there: bool, package| {
        if wanted && !there {
            missing.push(package);
        }
    };
    need(!recipe.npm.is_empty(), found("npm"), "npm");
    let pip = || Command::new("python3").args(["-m", "pip", "--version"]).output();
    need(!recipe.pypi.is_empty(), pip().is_ok_and(|it| it.status.success()), "python3-pip");
    missing
}

fn found(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
}

impl Job<'_> {
    /// Runs a program to its end, its output to the build's log; `on_output` is called now and then
    /// with the log so far. A cancelled build ends the program's whole group.
    pub(super) fn run_program(
        &self,
        mut command: Command,
        on_output: impl Fn(&str),
    ) -> Result<(), BuildError> {
        let program = command.get_program().to_string_lossy().into_owned();
        let log = || -> std::io::Result<File> {
            OpenOptions::new().create(true).append(true).open(self.log)
        };
        let opening = || system(format!("opening {}", self.log.display()));
        command
            .stdin(Stdio::null())
            .stdout(log().map_err(opening())?)
            .stderr(log().map_err(opening())?)
            .process_group(0);
        let mut child = command.spawn().map_err(system(format!("starting {program}")))?;
        let group = Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        loop {
            if let Some(status) =
                child.try_wait().map_err(system(format!("waiting for {program}")))?
            {
                if status.success() {
                    return Ok(());
                }
                let text = fs::read_to_string(self.log).unwrap_or_default();
                let lines: Vec<&str> = text.lines().collect();
                let last_lines = lines[lines.len().saturating_sub(12)..].join("\n");
                let log = self.log.to_path_buf();
                return Err(BuildError::Program {
                    program,
                    status: status.to_string(),
                    log,
                    last_lines,
                });
            }
            if self.cancel.load(Ordering::SeqCst) {
                // SIGTERM first: mmdebstrap removes its mounts and folders on it.
                let _ = killpg(group, Signal::SIGTERM);
                let reported = Instant::now();
                while matches!(child.try_wait(), Ok(None)) && reported.elapsed() < CLEANING_UP {
                    std::thread::sleep(Duration::from_millis(50));
                }
                let _ = killpg(group, Signal::SIGKILL);
                let _ = child.wait();
                return Err(BuildError::Interrupted);
            }
            on_output(&fs::read_to_string(self.log).unwrap_or_default());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
