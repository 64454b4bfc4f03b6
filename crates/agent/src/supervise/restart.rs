//! What follows the death of a service.

use std::time::Duration;

use anteroom_crash::Death as Seen;
use anteroom_guest_protocol::{ProcessExit, Then};

use super::death::Death;

/// Pause before a first new start, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// When a service that died is started again.
#[derive(Clone, Copy, Debug)]
pub enum RestartPolicy {
    /// Never: what it held is lost with it.
    Never,
    /// At once, since the end user waits. A death before it was ready is final.
    AtOnce {
        /// How often after an exit with another code than 0, or a signal.
        failures: u32,
        /// The death that is final, however it came about.
        deaths: u32,
    },
    /// After pauses that grow, also when it died before it was ready; not where a new start is known not
    /// to help.
    WithPauses {
        /// How often.
        restarts: u32,
    },
}

impl RestartPolicy {
    /// Whether a death before the service was ready counts as any other.
    pub fn counts_early_deaths(self) -> bool {
        matches!(self, Self::WithPauses { .. })
    }
}

/// The deaths of a service so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Deaths {
    /// All of them.
    pub all: u32,
    failures: u32,
}

impl Deaths {
    /// Counts a death; what follows it.
    pub fn count(
        &mut self,
        policy: RestartPolicy,
        service: &str,
        death: &Death,
        last_lines: &[String],
    ) -> Then {
        self.all += 1;
        self.failures += u32::from(death.is_failure());
        match policy {
            RestartPolicy::Never => Then::Nothing {},
            RestartPolicy::AtOnce { failures, deaths } => {
                let is_last =
                    self.all >= deaths || (death.is_failure() && self.failures > failures);
                if is_last { Then::TooOften {} } else { Then::Restart { after_ms: 0 } }
            }
            RestartPolicy::WithPauses { .. } if is_permanent(service, death, last_lines) => {
                Then::Useless {}
            }
            RestartPolicy::WithPauses { restarts: 0 } => Then::Nothing {},
            RestartPolicy::WithPauses { restarts } if self.all > restarts => Then::TooOften {},
            RestartPolicy::WithPauses { .. } => Then::Restart { after_ms: pause_ms(self.all) },
        }
    }
}

/// Grows with each death, with jitter so that services that died together do not start together.
fn pause_ms(deaths: u32) -> u64 {
    let pause = FIRST_PAUSE.saturating_mul(1 << deaths.min(10)).min(LONGEST_PAUSE).as_millis();
    let pause = u64::try_from(pause).unwrap_or(u64::MAX);
    pause / 2 + rand::random_range(0..=pause / 2)
}

/// Whether the same file will meet the same end on the same machine.
fn is_permanent(service: &str, death: &Death, last_lines: &[String]) -> bool {
    let why = anteroom_crash::explain(&Seen {
        service,
        exit: Some(death.exit),
        lived_ms: Some(death.lived_ms),
        last_lines: Some(last_lines),
        evidence: &death.evidence,
        cpu: None,
    });
    // Which feature is missing is for the host to say; that the processor refuses it is seen here.
    let is_refused = death.exit == ProcessExit::Signalled { signal: libc::SIGILL }
        && death.evidence.fault.as_ref().is_some_and(|fault| fault.code > 0);
    let by_its_shell = matches!(death.exit, ProcessExit::Exited { code: 126 | 127 });
    is_refused || by_its_shell || why.cause.stays()
}

#[cfg(test)]
mod tests {
    use anteroom_guest_protocol::Evidence;

    use super::*;

    const CRASHED: ProcessExit = ProcessExit::Signalled { signal: libc::SIGSEGV };
    const CLOSED: ProcessExit = ProcessExit::Exited { code: 0 };

    fn death(exit: ProcessExit) -> Death {
        Death { exit, lived_ms: 1, evidence: Evidence::default() }
    }

    fn after(exit: ProcessExit, deaths: u32, lines: &[&str]) -> Then {
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        let mut before = Deaths { all: deaths - 1, failures: deaths - 1 };
        before.count(RestartPolicy::WithPauses { restarts: 3 }, "a", &death(exit), &lines)
    }

    fn at_once(policy: RestartPolicy, exits: &[ProcessExit]) -> Vec<bool> {
        let mut deaths = Deaths::default();
        let then = |exit: &ProcessExit| deaths.count(policy, "a", &death(*exit), &[]);
        exits.iter().map(then).map(|then| matches!(then, Then::Restart { after_ms: 0 })).collect()
    }

    #[test]
    fn what_cannot_get_better_is_not_tried_again_and_the_rest_three_times() {
        let failed = ProcessExit::Exited { code: 1 };
        assert_eq!(after(failed, 1, &["SyntaxError: Unexpected token '.'"]), Then::Useless {});
        assert_eq!(after(ProcessExit::Exited { code: 127 }, 1, &[]), Then::Useless {});
        assert!(matches!(after(failed, 3, &["no offer"]), Then::Restart { .. }));
        assert_eq!(after(failed, 4, &["no offer"]), Then::TooOften {});
    }

    #[test]
    fn pauses_grow_and_are_not_all_the_same() {
        let pause = |deaths| match after(ProcessExit::Exited { code: 1 }, deaths, &[]) {
            Then::Restart { after_ms } => after_ms,
            other => panic!("{other:?}"),
        };
        assert!((250..=500).contains(&pause(1)) && (1000..=2000).contains(&pause(3)));
        assert!((0..50).map(|_| pause(3)).collect::<std::collections::BTreeSet<_>>().len() > 5);
    }

    #[test]
    fn a_closed_window_is_no_crash_and_both_have_their_bound() {
        let browser = RestartPolicy::AtOnce { failures: 3, deaths: 20 };
        assert_eq!(at_once(browser, &[CRASHED; 4]), [true, true, true, false]);
        let mixed = [CRASHED, CLOSED, CRASHED, CLOSED, CRASHED, CLOSED, CRASHED];
        assert_eq!(at_once(browser, &mixed), [true, true, true, true, true, true, false]);
        let closed = at_once(browser, &[CLOSED; 20]);
        assert_eq!(closed.iter().position(|again| !again), Some(19));
        let window_manager = RestartPolicy::AtOnce { failures: 3, deaths: 4 };
        assert_eq!(at_once(window_manager, &[CLOSED; 4]), [true, true, true, false]);
    }

    #[test]
    fn what_is_never_restarted_has_nothing_after_it() {
        let mut deaths = Deaths::default();
        let never = deaths.count(RestartPolicy::Never, "x", &death(CRASHED), &[]);
        assert_eq!(never, Then::Nothing {});
        let none = RestartPolicy::WithPauses { restarts: 0 };
        assert_eq!(Deaths::default().count(none, "a", &death(CRASHED), &[]), Then::Nothing {});
    }
}
