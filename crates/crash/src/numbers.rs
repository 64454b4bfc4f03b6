//! Numbers and their names: signals, what raised them, and system calls.

use anteroom_guest_protocol::Stall;

/// `si_code` of sigaction(2).
pub(crate) const SI_USER: i32 = 0;
/// In place of a code, where a dump has none: what raised the signal is not known then, nor an address.
pub(crate) const NO_SI_CODE: i32 = i32::MIN;

/// Those that say that a process sent the signal: `SI_USER`, `SI_QUEUE`, `SI_TKILL`.
pub(crate) const BY_PROCESSES: [i32; 3] = [SI_USER, -1, -6];

/// Whether this signal ends a process that does nothing about it (signal(7)).
pub fn ends(signal: i32) -> bool {
    matches!(signal, 1..=16 | 24..=27 | 29..=31)
}

/// What a program usually did that a signal ended, after "when it", where no core dump says more.
pub fn typical(signal: i32) -> Option<&'static str> {
    Some(match signal {
        6 => "aborts",
        13 => "writes to a pipe or socket that nobody reads any more",
        14 => "sets an alarm and does not handle it",
        24 => "reaches its CPU time limit",
        25 => "writes more to a file than its file size limit allows",
        _ => return None,
    })
}

/// What a stalled process was doing, from /proc.
pub fn doing(stall: &Stall) -> String {
    match (stall.state.as_str(), stall.system_call) {
        ("T" | "t", _) => "it was stopped by a signal".to_owned(),
        ("R", _) => "its main thread was running".to_owned(),
        ("D", _) => {
            "its main thread was in an uninterruptible wait, usually for a device".to_owned()
        }
        (_, Some(61 | 247)) if !stall.children.is_empty() => {
            format!("it waited for its child `{}`", stall.children[0])
        }
        (_, Some(number)) => match system_call(number) {
            Some(call) => format!("its main thread was in {call}"),
            None => format!("its main thread was in system call {number}"),
        },
        (state, None) => format!("its main thread was in state {state}"),
    }
}

/// What a thread that hangs most often waits in (x86-64's numbers, asm/unistd_64.h).
pub fn system_call(number: i64) -> Option<&'static str> {
    Some(match number {
        0 => "read",
        1 => "write",
        2 => "open",
        7 => "poll",
        23 => "select",
        34 => "pause",
        35 => "nanosleep",
        41 => "socket",
        42 => "connect",
        43 => "accept",
        45 => "recvfrom",
        47 => "recvmsg",
        56 => "clone",
        57 => "fork",
        59 => "execve",
        61 => "wait4",
        62 => "kill",
        101 => "ptrace",
        130 => "rt_sigsuspend",
        165 => "mount",
        202 => "futex wait",
        230 => "clock_nanosleep",
        232 => "epoll_wait",
        247 => "waitid",
        257 => "openat",
        270 => "pselect6",
        271 => "ppoll",
        272 => "unshare",
        281 => "epoll_pwait",
        321 => "bpf",
        _ => return None,
    })
}
