//! What a process is at that does not answer.

use std::collections::VecDeque;
use std::time::Duration;

use anteroom_guest_protocol::{MAX_CHILDREN, MAX_EVIDENCE_TEXT, Stall};
use nix::unistd::Pid;

use super::output::clean_line;
use crate::redact::redact;

/// Most processes of a tree that are looked at: a browser has dozens.
const MAX_LOOKED_AT: usize = 100;

/// Looks at it in /proc (proc(5)).
pub fn look(pid: Pid, asked: String, silent: Duration, was_ready: bool) -> Stall {
    let read =
        |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default();
    let system_call = read("syscall").split(' ').next().and_then(|number| number.parse().ok());
    let wchan = read("wchan");
    Stall {
        silent_ms: u64::try_from(silent.as_millis()).unwrap_or(u64::MAX),
        asked,
        was_ready,
        state: state(pid).unwrap_or('?').to_string(),
        system_call,
        waits_in: (!wchan.is_empty() && wchan != "0").then_some(wchan),
        children: children(pid),
    }
}

/// Command lines of what a process started, directly or not, and that started nothing further: what
/// it waits for, if it waits for any.
fn children(pid: Pid) -> Vec<String> {
    let mut lines = Vec::new();
    let mut left = VecDeque::from([pid.as_raw()]);
    let mut looked_at = 0;
    while let Some(pid) = left.pop_front() {
        looked_at += 1;
        if looked_at > MAX_LOOKED_AT || lines.len() == MAX_CHILDREN {
            break;
        }
        let read = |file: &str| std::fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        let started = String::from_utf8_lossy(&read(&format!("task/{pid}/children"))).into_owned();
        let started: Vec<i32> =
            started.split_whitespace().filter_map(|pid| pid.parse().ok()).collect();
        // The first one looked at is the process itself.
        if started.is_empty() && looked_at > 1 {
            let command = read("cmdline")
                .iter()
                .map(|b| if matches!(*b, 0 | b'\n') { b' ' } else { *b })
                .collect::<Vec<_>>();
            let line = redact(&clean_line(&command));
            lines.push(line.chars().take(MAX_EVIDENCE_TEXT).collect());
        }
        left.extend(started);
    }
    lines
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
