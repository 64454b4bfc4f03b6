//! What a process is at that does not answer.

use std::time::Duration;

use anteroom_guest_protocol::Hung;
use nix::unistd::Pid;

/// Looks at it in /proc (proc(5)).
pub fn look(pid: Pid, asked: String, silent: Duration, was_ready: bool) -> Hung {
    let read =
        |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let system_call = read("syscall").split(' ').next().and_then(|number| number.parse().ok());
    let wchan = read("wchan");
    Hung {
        silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
        asked,
        was_ready,
        state: state(pid).unwrap_or('?').to_string(),
        system_call,
        waits_in: (!wchan.is_empty() && wchan != "0").then_some(wchan),
    }
}

/// Whether a signal stopped it and nobody let it go on.
pub fn is_stopped(pid: Pid) -> bool {
    state(pid) == Some('T')
}

/// The state follows the name in parentheses, which may hold anything.
fn state(pid: Pid) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
