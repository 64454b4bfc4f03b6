//! Whether KVM really works here: guest code is run against a clock.
//!
//! `/dev/kvm` can exist, open and create VMs and still be useless: some nested hosts emulate every
//! guest instruction at a few million a second, and then stop at one that a kernel needs. Here a
//! throw-away VM runs a loop and those instructions in 64-bit mode, with a deadline.

mod guest;

use std::io;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use vmm_sys_util::signal::{Killable, SIGRTMIN, register_signal_handler};

use guest::Guest;

/// What the probe saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KvmProbe {
    /// Guest code ran at a processor's speed.
    Usable {
        /// Million instructions a second.
        mips: u64,
    },
    /// It did not, or there is no KVM.
    Unusable {
        /// Evidence, one sentence.
        why: KvmObstacle,
    },
}

/// Why KVM cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KvmObstacle {
    /// No device.
    #[error("this machine has no /dev/kvm")]
    Absent,
    /// The device is not for this user.
    #[error("this user may not open /dev/kvm; add them to the group kvm")]
    NoPermission,
    /// The device is for root alone, and QEMU is not to run as root.
    #[error("/dev/kvm is for root alone, and QEMU does not run as root; give it to the group kvm")]
    ForRootAlone,
    /// The guest is emulated, not executed.
    #[error(
        "/dev/kvm runs guest code at {mips} million instructions a second, as an emulator does"
    )]
    Slow {
        /// Million instructions a second.
        mips: u64,
    },
    /// An instruction that kernels use does not work.
    #[error("/dev/kvm stopped ({exit}) at the instruction {instruction}, which kernels need")]
    Instruction {
        /// Which.
        instruction: &'static str,
        /// How KVM left the guest.
        exit: String,
    },
    /// Guest code neither ended nor failed.
    #[error("/dev/kvm did not end a short guest program within {} ms", waited.as_millis())]
    Hung {
        /// How long it was given.
        waited: Duration,
    },
    /// The kernel refused a step.
    #[error("{operation} failed: {cause}")]
    Failed {
        /// Which step.
        operation: &'static str,
        /// The system's words.
        cause: String,
    },
}

/// How long the probe's guest may run. It needs under a millisecond on hardware.
const DEADLINE: Duration = Duration::from_millis(500);

/// How often and for how long a guest that hangs is told to stop.
const KICK: Duration = Duration::from_millis(10);
const KICKS: u32 = 50;

/// Slower than this is not hardware virtualisation: emulators have been seen at 3, hardware in the
/// thousands.
const LEAST_MIPS: u64 = 100;

/// The loop is timed this often; the best counts, since a busy host can take the processor away.
const TRIES: u32 = 3;

/// Runs a small program in a throw-away VM. Blocks for at most a second.
#[must_use]
pub fn probe_kvm() -> KvmProbe {
    match probe_within(DEADLINE, measure) {
        Ok(mips) => KvmProbe::Usable { mips },
        Err(why) => KvmProbe::Unusable { why },
    }
}

/// Runs `measure` on a thread of its own, which a signal gets out of `KVM_RUN` after `deadline`.
fn probe_within(
    deadline: Duration,
    measure: impl FnOnce() -> Result<u64, KvmObstacle> + Send + 'static,
) -> Result<u64, KvmObstacle> {
    let failed = |operation, cause: &dyn ToString| KvmObstacle::Failed {
        operation,
        cause: cause.to_string(),
    };
    let kick = SIGRTMIN() + 1;
    register_signal_handler(kick, do_nothing)
        .map_err(|error| failed("taking a signal to stop the probe", &error))?;
    let (sender, outcome) = channel();
    let thread = std::thread::Builder::new()
        .name("kvm-probe".to_owned())
        .spawn(move || sender.send(measure()))
        .map_err(|error| failed("starting the probe's thread", &error))?;
    match outcome.recv_timeout(deadline) {
        Ok(result) => return result,
        Err(RecvTimeoutError::Disconnected) => {
            return Err(failed("probing /dev/kvm", &"the probe's thread ended early"));
        }
        Err(RecvTimeoutError::Timeout) => {}
    }
    for _ in 0..KICKS {
        // Again and again: one that comes just before KVM_RUN interrupts nothing.
        let _ = thread.kill(kick);
        if !matches!(outcome.recv_timeout(KICK), Err(RecvTimeoutError::Timeout)) {
            break;
        }
    }
    Err(KvmObstacle::Hung { waited: deadline })
}

extern "C" fn do_nothing(
    _: nix::libc::c_int,
    _: *mut nix::libc::siginfo_t,
    _: *mut nix::libc::c_void,
) {
}

/// Guest instructions a second, in millions.
fn measure() -> Result<u64, KvmObstacle> {
    let mut guest = Guest::new().map_err(|(operation, error)| match error.errno() {
        nix::libc::ENOENT | nix::libc::ENODEV | nix::libc::ENXIO => KvmObstacle::Absent,
        nix::libc::EACCES | nix::libc::EPERM => KvmObstacle::NoPermission,
        code => {
            let cause = io::Error::from_raw_os_error(code).to_string();
            KvmObstacle::Failed { operation, cause }
        }
    })?;
    let mut mips = 0;
    for _ in 0..TRIES {
        let took = guest.run_loop()?;
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX).max(1);
        mips = mips.max(guest::LOOP_INSTRUCTIONS * 1000 / nanos);
        if mips >= LEAST_MIPS {
            break;
        }
    }
    if mips < LEAST_MIPS {
        return Err(KvmObstacle::Slow { mips });
    }
    guest.run_instructions()?;
    Ok(mips)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn the_probe_ends_and_says_what_it_saw() {
        match probe_kvm() {
            KvmProbe::Usable { mips } => assert!(mips >= LEAST_MIPS),
            KvmProbe::Unusable { why } => assert!(!why.to_string().is_empty()),
        }
    }

    #[test]
    fn a_guest_that_hangs_is_cut_off() {
        let interrupted = Arc::new(AtomicBool::new(false));
        let seen = interrupted.clone();
        let outcome = probe_within(Duration::from_millis(1), move || {
            // As KVM_RUN does, this returns early only by a signal.
            let error = nix::poll::poll(&mut [], nix::poll::PollTimeout::NONE).unwrap_err();
            seen.store(error == nix::errno::Errno::EINTR, Ordering::SeqCst);
            Ok(1)
        });
        assert_eq!(outcome, Err(KvmObstacle::Hung { waited: Duration::from_millis(1) }));
        assert!(interrupted.load(Ordering::SeqCst));
    }
}
