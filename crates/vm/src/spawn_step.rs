//! Which step failed of those between fork and exec, where a process can report no more than an error
//! number.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;
use nix::unistd::{pipe2, read, write};

use crate::BootError;

/// A step that holds a new process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Step {
    Session,
    Cgroup,
    Enclosure,
    Account,
    Limits,
    User,
    Privileges,
    Files,
    SystemCalls,
}

/// A new process's end.
pub struct StepReporter(OwnedFd);

/// The end of the process that starts it.
pub struct FailedStep(OwnedFd);

/// Both ends.
///
/// # Errors
/// When no pipe can be made.
pub fn failed_step() -> io::Result<(StepReporter, FailedStep)> {
    let (reads, writes) = pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    Ok((StepReporter(writes), FailedStep(reads)))
}

impl StepReporter {
    /// Reports the step unless it was done. Only makes a system call.
    ///
    /// # Errors
    /// That of the step.
    pub fn check<E: Into<io::Error>>(&self, step: Step, done: Result<(), E>) -> io::Result<()> {
        done.map_err(|error| {
            let _ = write(&self.0, &[step as u8]);
            error.into()
        })
    }
}

impl FailedStep {
    /// Why a process was not started.
    pub fn name(&self, error: io::Error) -> BootError {
        let mut step = [0];
        let operation = match read(&self.0, &mut step) {
            Ok(1) => STEPS.iter().find(|(of, _)| *of as u8 == step[0]).map(|(_, name)| *name),
            _ => None,
        };
        BootError::system(operation.unwrap_or("starting the sandbox's process"))(error)
    }
}

const STEPS: [(Step, &str); 9] = [
    (Step::Session, "giving the sandbox's process a kernel session of its own"),
    (Step::Cgroup, "moving the sandbox's process into its cgroup"),
    (
        Step::Enclosure,
        "giving the VM namespaces and a file tree of its own (the kernel's limits are in \
         /proc/sys/user)",
    ),
    (Step::Account, "giving the agent an account of its own"),
    (Step::Limits, "forbidding the sandbox's process core dumps"),
    (Step::User, "running the sandbox's process as the session's user"),
    (Step::Privileges, "taking privileges from the sandbox's process"),
    (Step::Files, "limiting which files the VMM may open"),
    (Step::SystemCalls, "filtering the VMM's system calls"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_step_that_failed_is_named_and_none_that_did_not() {
        let (reporter, failed) = failed_step().unwrap();
        reporter.check(Step::Session, Ok::<(), io::Error>(())).unwrap();
        let error = failed.name(io::ErrorKind::NotFound.into()).to_string();
        assert_eq!(error, "starting the sandbox's process failed");
        for (step, name) in STEPS {
            let errno = nix::errno::Errno::ENOSPC;
            let error = reporter.check(step, Err(errno)).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno as i32));
            assert_eq!(failed.name(error).to_string(), format!("{name} failed"));
        }
    }
}
