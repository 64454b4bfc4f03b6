//! The system calls that a session's runner makes once it is set up, by seccomp.
//!
//! Any other is answered with ENOSYS, as an older kernel does: libraries then take the older way, and
//! what an intruder is after is not there: no program is started, no process traced, nothing mounted.

use std::collections::BTreeMap;

use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule,
};

/// The filter could not be made or set.
#[derive(Debug, thiserror::Error)]
pub enum SystemCallError {
    /// It is not well formed, or this architecture is unknown.
    #[error("making the filter of system calls failed")]
    Make(#[from] seccompiler::BackendError),
    /// The kernel refused.
    #[error("setting the filter of system calls failed")]
    Set(#[from] seccompiler::Error),
}

/// Filters the calls of this process, all its threads included, from now on. Of other processes it
/// signals `child` alone, which leads a group.
///
/// # Errors
/// When the filter cannot be set.
pub fn system_calls(child: u32) -> Result<(), SystemCallError> {
    seccompiler::apply_filter_all_threads(&program(std::process::id(), child)?)?;
    Ok(())
}

fn program(own: u32, child: u32) -> Result<BpfProgram, SystemCallError> {
    let is = |pid: u32| [Argument::Is(0, pid.into())];
    // Where the runner is of the operator's user the kernel would let it signal all that is theirs.
    let (child, group, own) = (is(child), is(child.wrapping_neg()), is(own));
    let signals: [(i64, &[&[Argument]]); 2] =
        [(libc::SYS_kill, &[&child, &group]), (libc::SYS_tgkill, &[&own])];
    let mut rules = rules_of(FREE, HELD)?;
    rules.extend(rules_of(&[], &signals)?);
    let absent = SeccompAction::Errno(libc::ENOSYS as u32);
    let architecture = std::env::consts::ARCH.try_into()?;
    Ok(SeccompFilter::new(rules, absent, SeccompAction::Allow, architecture)?.try_into()?)
}

/// For these calls in whatever form, and these in some.
pub(crate) fn rules_of(
    whole: &[i64],
    by_form: &[(i64, &[&[Argument]])],
) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let whole = whole.iter().map(|number| Ok((*number, Vec::new())));
    let by_form = by_form.iter().map(|(number, forms)| {
        let rules: Result<Vec<_>, _> = forms.iter().map(|form| rule(form)).collect();
        rules.map(|rules| (*number, rules))
    });
    whole.chain(by_form).collect()
}

/// What an argument must be, by its place.
pub(crate) enum Argument {
    Is(u8, u64),
    IsNot(u8, u64),
    HasBits(u8, u64),
    /// These bits of it are those.
    Bits(u8, u64, u64),
    /// The whole of it, as of a pointer.
    IsNull(u8),
}

fn rule(form: &[Argument]) -> Result<SeccompRule, seccompiler::BackendError> {
    use SeccompCmpArgLen::{Dword, Qword};
    let condition = |argument: &Argument| match argument {
        Argument::Is(at, value) => SeccompCondition::new(*at, Dword, SeccompCmpOp::Eq, *value),
        Argument::IsNot(at, value) => SeccompCondition::new(*at, Dword, SeccompCmpOp::Ne, *value),
        Argument::HasBits(at, bits) => {
            SeccompCondition::new(*at, Dword, SeccompCmpOp::MaskedEq(*bits), *bits)
        }
        Argument::Bits(at, bits, value) => {
            SeccompCondition::new(*at, Dword, SeccompCmpOp::MaskedEq(*bits), *value)
        }
        Argument::IsNull(at) => SeccompCondition::new(*at, Qword, SeccompCmpOp::Eq, 0),
    };
    SeccompRule::new(form.iter().map(condition).collect::<Result<_, _>>()?)
}

/// A socket of this family and protocol.
macro_rules! socket {
    ($family:expr, $protocol:expr) => {
        &[Argument::Is(0, $family as u64), Argument::Is(2, $protocol as u64)]
    };
}

/// An option of a socket, by its level and name.
macro_rules! option {
    ($level:expr, $name:expr) => {
        &[Argument::Is(1, $level as u64), Argument::Is(2, $name as u64)]
    };
}

/// The part of a socket's type without its flags (socket(2)).
const SOCKET_TYPE: u64 = 0xf;

/// Calls in these forms alone.
const HELD: &[(i64, &[&[Argument]])] = &[
    // A thread, never a process.
    (libc::SYS_clone, &[&[Argument::HasBits(0, libc::CLONE_THREAD as u64)]]),
    (
        libc::SYS_socket,
        &[
            socket!(libc::AF_INET, 0),
            socket!(libc::AF_INET, libc::IPPROTO_TCP),
            socket!(libc::AF_INET, libc::IPPROTO_UDP),
            socket!(libc::AF_INET6, 0),
            socket!(libc::AF_INET6, libc::IPPROTO_TCP),
            socket!(libc::AF_INET6, libc::IPPROTO_UDP),
            // Which addresses this machine has.
            socket!(libc::AF_NETLINK, libc::NETLINK_ROUTE),
        ],
    ),
    // A stream stays with its other end. A pair of datagram sockets could be connected anew, to any
    // socket that has a path: the machine's log, a service manager.
    (
        libc::SYS_socketpair,
        &[&[
            Argument::Is(0, libc::AF_UNIX as u64),
            Argument::Bits(1, SOCKET_TYPE, libc::SOCK_STREAM as u64),
        ]],
    ),
    // Not F_SETOWN and F_SETSIG, which signal any process of the same user.
    (
        libc::SYS_fcntl,
        &[
            &[Argument::Is(1, libc::F_DUPFD as u64)],
            &[Argument::Is(1, libc::F_DUPFD_CLOEXEC as u64)],
            &[Argument::Is(1, libc::F_GETFD as u64)],
            &[Argument::Is(1, libc::F_SETFD as u64)],
            &[Argument::Is(1, libc::F_GETFL as u64)],
            &[Argument::Is(1, libc::F_SETFL as u64)],
        ],
    ),
    (
        libc::SYS_setsockopt,
        &[
            option!(libc::IPPROTO_TCP, libc::TCP_NODELAY),
            option!(libc::SOL_SOCKET, libc::SO_KEEPALIVE),
            option!(libc::SOL_SOCKET, libc::SO_LINGER),
            option!(libc::SOL_SOCKET, libc::SO_RCVBUF),
            option!(libc::SOL_SOCKET, libc::SO_SNDBUF),
            // The resolver's.
            option!(libc::IPPROTO_IP, libc::IP_RECVERR),
            option!(libc::IPPROTO_IPV6, libc::IPV6_RECVERR),
        ],
    ),
    (
        libc::SYS_ioctl,
        &[
            &[Argument::Is(1, libc::FIONREAD)],
            &[Argument::Is(1, libc::FIONBIO)],
            &[Argument::Is(1, libc::TCGETS)],
        ],
    ),
    (
        libc::SYS_prctl,
        &[
            &[Argument::Is(0, libc::PR_SET_NAME as u64)],
            // Names of the allocator's memory.
            &[Argument::Is(0, libc::PR_SET_VMA as u64)],
        ],
    ),
    // Asked for, never set.
    (libc::SYS_prlimit64, &[&[Argument::IsNull(2)]]),
];

/// Calls that are free.
const FREE: &[i64] = &[
    // Descriptors that are there.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_lseek,
    libc::SYS_ftruncate,
    libc::SYS_close,
    libc::SYS_dup,
    libc::SYS_dup3,
    libc::SYS_fstat,
    libc::SYS_pipe2,
    libc::SYS_eventfd2,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    // Files by path: Landlock says which.
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_readlinkat,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_getdents64,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_getcwd,
    // Waiting.
    libc::SYS_ppoll,
    libc::SYS_pselect6,
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_timerfd_create,
    libc::SYS_timerfd_settime,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    // Sockets.
    libc::SYS_connect,
    // The guest link, where the guest connects to it.
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_getsockopt,
    libc::SYS_sendto,
    libc::SYS_recvfrom,
    libc::SYS_sendmsg,
    libc::SYS_recvmsg,
    libc::SYS_sendmmsg,
    libc::SYS_recvmmsg,
    libc::SYS_shutdown,
    // Memory.
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_membarrier,
    // Threads and signals.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_gettid,
    libc::SYS_getpid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
    libc::SYS_getrusage,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Its VM.
    libc::SYS_wait4,
    libc::SYS_waitid,
    // What there is of everything.
    libc::SYS_getrandom,
    libc::SYS_uname,
    libc::SYS_sysinfo,
    // Where x86-64 has older forms that libraries still use.
    #[cfg(target_arch = "x86_64")]
    libc::SYS_open,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_stat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_lstat,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_access,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_readlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_select,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_epoll_wait,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_dup2,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::process::CommandExt;

    use nix::errno::Errno;
    use nix::sys::signal::{Signal, kill, killpg};
    use nix::unistd::Pid;

    use super::*;

    /// An ignored test of this crate, which says when the filter holds.
    pub(crate) fn passes_in_a_process_of_its_own(test: &str) {
        let mut command = std::process::Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", test, "--ignored", "--nocapture"]);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            said.contains("the filter holds"),
            "{said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// In a process of its own: a filter stays for ever.
    #[test]
    #[ignore = "started by the next test"]
    fn filtered() {
        let mut other = std::process::Command::new("cat");
        let other = other.stdin(std::process::Stdio::piped()).spawn().unwrap();
        let child = std::process::Command::new("sleep").arg("100").process_group(0).spawn();
        let mut child = child.unwrap();
        system_calls(child.id()).unwrap();
        signals_its_child_alone(&mut child, other);
        reaches_no_socket_with_a_path();
        let started = std::process::Command::new("/bin/true").status();
        assert_eq!(started.unwrap_err().raw_os_error(), Some(libc::ENOSYS));
        let unshared = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER);
        assert_eq!(unshared.unwrap_err(), nix::errno::Errno::ENOSYS);
        assert!(std::fs::remove_dir("/nowhere").unwrap_err().raw_os_error() == Some(libc::ENOSYS));
        // What a runner does.
        std::thread::spawn(|| std::fs::read("/etc/hostname").ok()).join().unwrap();
        let looked = std::net::ToSocketAddrs::to_socket_addrs("localhost:1");
        assert!(looked.unwrap().count() > 0);
        nix::ifaddrs::getifaddrs().unwrap();
        let pair = std::os::unix::net::UnixStream::pair().unwrap();
        drop(pair);
        println!("the filter holds");
    }

    fn signals_its_child_alone(child: &mut std::process::Child, mut other: std::process::Child) {
        let pid = |child: &std::process::Child| Pid::from_raw(child.id().try_into().unwrap());
        let parent = nix::unistd::getppid();
        for of in [parent, pid(&other), Pid::from_raw(0), Pid::from_raw(-1)] {
            assert_eq!(kill(of, None), Err(Errno::ENOSYS), "{of}");
        }
        // SAFETY: system calls on numbers and on a descriptor that is open.
        #[expect(unsafe_code, reason = "nix has neither form")]
        let refused = unsafe {
            let thread = libc::syscall(libc::SYS_tgkill, parent.as_raw(), parent.as_raw(), 0);
            [thread, libc::fcntl(0, libc::F_SETOWN, parent.as_raw()).into()]
        };
        assert_eq!(refused, [-1, -1]);
        assert_eq!(Errno::last(), Errno::ENOSYS);
        kill(pid(child), Signal::SIGTERM).unwrap();
        killpg(pid(child), Signal::SIGKILL).unwrap();
        child.wait().unwrap();
        nix::sys::signal::raise(Signal::SIGCONT).unwrap();
        // It ends by its standard input: it is not ours to signal any more.
        drop(other.stdin.take());
        other.wait().unwrap();
    }

    fn reaches_no_socket_with_a_path() {
        assert!(std::os::unix::net::UnixDatagram::pair().is_err());
        assert!(std::os::unix::net::UnixDatagram::unbound().is_err());
    }

    #[test]
    fn only_what_a_runner_does_is_let_through() {
        passes_in_a_process_of_its_own("syscalls::tests::filtered");
    }
}
