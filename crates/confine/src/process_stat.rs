//! What the kernel counts of a process.

use std::{fs, io};

/// A process by its `/proc/PID/stat` (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessStat {
    /// The third field.
    state: char,
    /// The processor time that it took, in milliseconds.
    pub processor_ms: u64,
    /// When it was started, in ticks since the machine was.
    pub start_ticks: u64,
}

impl ProcessStat {
    /// Of the process with this id now.
    ///
    /// # Errors
    /// When there is none, or it is not to be looked at.
    pub fn of(pid: u32) -> io::Result<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        Self::parse(&text).ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// A signal has stopped it.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.state == 'T'
    }

    /// It has ended, and is not collected yet.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.state, 'Z' | 'X')
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field, in parentheses, is its name, which may hold anything.
        let mut fields = text.rsplit_once(") ")?.1.split_whitespace();
        let state = fields.next()?.chars().next()?;
        // The third is taken; the 14th and the 15th are in hundredths of a second.
        let mut nth = |skipped| fields.nth(skipped)?.parse::<u64>().ok();
        let (user, system) = (nth(10)?, nth(0)?);
        let start_ticks = nth(6)?;
        Some(Self {
            state,
            processor_ms: user.saturating_add(system).saturating_mul(10),
            start_ticks,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_are_found_whatever_the_process_is_called() {
        let fields = "T 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23";
        for name in ["sh", "a) b", ") Z 1 (", ""] {
            let found = ProcessStat::parse(&format!("1 ({name}) {fields}"));
            let expected = ProcessStat { state: 'T', processor_ms: 290, start_ticks: 22 };
            assert_eq!(found, Some(expected), "{name}");
        }
        let in_state =
            |state: &str| ProcessStat::parse(&format!("7 (a) S 1 (b) ) {state}{}", &fields[1..]));
        for (state, is_stopped, has_ended) in
            [("S", false, false), ("T", true, false), ("Z", false, true), ("X", false, true)]
        {
            let found = in_state(state).unwrap();
            assert_eq!((found.is_stopped(), found.has_ended()), (is_stopped, has_ended), "{state}");
            assert_eq!(found.start_ticks, 22);
        }
        for short in ["", "1 (sh)", "1 (sh) ", "1 (sh) S 4 5", "1 (sh) S 4 5 6 7 8 9 10 11 12 13 x"]
        {
            assert_eq!(ProcessStat::parse(short), None, "{short}");
        }
    }

    #[test]
    fn this_process_runs_and_one_that_is_not_there_is_an_error() {
        let own = ProcessStat::of(std::process::id()).unwrap();
        assert!(own.start_ticks > 0 && !own.is_stopped() && !own.has_ended(), "{own:?}");
        assert!(ProcessStat::of(u32::MAX).is_err());
    }
}
