//! Services that the image's recipe declares: kept as it says, each on its own.

use std::time::Duration;

use anteroom_crash::Death as Seen;
use anteroom_guest_protocol::{
    Evidence, ProcessExit, ServiceEvent, ServiceSpec, ServiceUser, Then, Watchdog,
};
use anyhow::{Error, Result, anyhow};
use nix::sys::signal::Signal;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::Shared;
use super::services::{give_up, startable, started};
use crate::desktop::display::server::DisplayAddress;
use crate::desktop::probe::{self, Prober};
use crate::supervise::{self, Death, Limits, Process, Unready};

/// Pause before a first new start, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// A watched service is asked this many times in the time that it may be silent, so that its
/// silence is known to within a part of it at little cost; no less often than every ten seconds.
const LOOKS_IN_SILENCE: u32 = 6;
const WATCH_AT_LEAST_EVERY: Duration = Duration::from_secs(10);

/// Keeps a service until it is given up; that of a needed one fails the room.
pub async fn keep(
    shared: Shared,
    spec: ServiceSpec,
    display: DisplayAddress,
    failed: mpsc::Sender<Error>,
) {
    let error = lives(&shared, &spec, &display).await;
    if spec.needed {
        let _ = failed.send(error).await;
    } else {
        shared.reporter.note(&format!("{} is given up: {error:#}", spec.name));
    }
}

/// Life after life; why there is no further one.
async fn lives(shared: &Shared, spec: &ServiceSpec, display: &DisplayAddress) -> Error {
    let mut deaths = 0;
    loop {
        deaths += 1;
        let mut process = match start(shared, spec, display).await {
            Ok(process) => process,
            Err(error) => return error,
        };
        let death = match life(shared, spec, display, &mut process).await {
            Ok(death) => death,
            Err(error) => return error,
        };
        let then = then(spec, deaths, &death, &process.last_lines());
        let exit = death.exit;
        let event = process.exit_event(death, deaths, then);
        shared.reporter.service(&spec.name, event).await;
        match then {
            Then::Restart { after_ms } => {
                tokio::time::sleep(Duration::from_millis(after_ms)).await;
            }
            Then::Useless {} | Then::TooOften {} | Then::Nothing {} => {
                return anyhow!("{} {}", spec.name, supervise::describe(exit));
            }
        }
    }
}

/// Starts it, limited as it says.
async fn start(shared: &Shared, spec: &ServiceSpec, display: &DisplayAddress) -> Result<Process> {
    let Some((program, arguments)) = spec.command.split_first() else {
        give_up(shared, &spec.name, "its command is empty").await;
        return Err(anyhow!("the service {} has an empty command", spec.name));
    };
    let mut command = match spec.user {
        ServiceUser::EndUser => shared.sandbox.command(program),
        ServiceUser::Root => shared.sandbox.root_command(program),
    };
    command.args(arguments).env("DISPLAY", display.name()).envs(&spec.env);
    startable(shared, &spec.name, &command).await?;
    // Where the kernel has no control groups for us the service runs all the same, and it is said.
    if let Err(error) = Limits::of(spec).and_then(|limits| limits.apply(&mut command)) {
        shared.reporter.note(&format!("{} runs without its limits: {error:#}", spec.name));
    }
    let begun = supervise::start(&spec.name, command, &shared.reaper, &shared.reporter);
    match begun {
        Ok(process) => {
            process.give_way();
            started(shared, &spec.name, &process).await;
            Ok(process)
        }
        Err(error) => {
            give_up(shared, &spec.name, &format!("{error:#}")).await;
            Err(error)
        }
    }
}

/// From its start to its death, by itself or by the watchdog.
async fn life(
    shared: &Shared,
    spec: &ServiceSpec,
    display: &DisplayAddress,
    process: &mut Process,
) -> Result<Death> {
    let prober = Prober { sandbox: &shared.sandbox, display };
    if let Some(ready) = &spec.ready {
        let deadline = Duration::from_secs(spec.ready_seconds.into());
        match process.until_ready(deadline, prober.answers(ready)).await {
            Ok(()) => {}
            Err(Unready::Died(death)) => return Ok(*death),
            Err(unready) => {
                let evidence = stall(process, probe::words(ready), deadline, false);
                process.signal(Signal::SIGKILL);
                let event = ServiceEvent::Failed {
                    cause: unready.to_string(),
                    last_lines: process.last_lines(),
                    evidence: Box::new(evidence),
                    exit: None,
                    lived_ms: 0,
                };
                shared.reporter.service(&spec.name, event).await;
                return Err(anyhow!("the service {}: {unready}", spec.name));
            }
        }
    }
    shared.reporter.service(&spec.name, ServiceEvent::Ready {}).await;
    let Some(watchdog) = &spec.watchdog else { return Ok(process.died().await) };
    let silent = tokio::select! {
        death = process.died() => return Ok(death),
        silent = silence(&prober, watchdog) => silent,
    };
    let evidence = stall(process, probe::words(&watchdog.probe), silent, true);
    process.signal(Signal::SIGKILL);
    let death = process.died().await;
    Ok(Death { evidence: Evidence { stall: evidence.stall, ..death.evidence }, ..death })
}

/// Returns when the service has not answered for as long as it may be silent, counted from its last
/// answer. One that answers when it is asked for a while is never silent, however long nobody could
/// ask: a machine that stood still is no fault of its services.
async fn silence(prober: &Prober<'_>, watchdog: &Watchdog) -> Duration {
    let most = Duration::from_secs(watchdog.seconds.into());
    let between = (most / LOOKS_IN_SILENCE).min(WATCH_AT_LEAST_EVERY);
    let mut answered = Instant::now();
    loop {
        tokio::time::sleep(between).await;
        let until = (answered + most).max(Instant::now() + (most - between).min(probe::LOOK));
        if tokio::time::timeout_at(until, prober.answers(&watchdog.probe)).await.is_err() {
            return answered.elapsed();
        }
        answered = Instant::now();
    }
}

/// What a process that does not answer is doing.
fn stall(process: &Process, asked: String, silent: Duration, was_ready: bool) -> Evidence {
    let stall = supervise::look_at_stall(process.pid, asked, silent, was_ready);
    Evidence { stall: Some(stall), ..Evidence::default() }
}

/// What follows a death: nothing where it cannot help, else a pause that grows, with jitter so that
/// services that died together do not start together.
fn then(spec: &ServiceSpec, deaths: u32, death: &Death, last_lines: &[String]) -> Then {
    if stays(spec, death, last_lines) {
        return Then::Useless {};
    }
    if deaths > spec.restarts {
        return if spec.restarts == 0 { Then::Nothing {} } else { Then::TooOften {} };
    }
    let pause = FIRST_PAUSE.saturating_mul(1 << deaths.min(10)).min(LONGEST_PAUSE).as_millis();
    let pause = u64::try_from(pause).unwrap_or(u64::MAX);
    Then::Restart { after_ms: pause / 2 + rand::random_range(0..=pause / 2) }
}

/// Whether the same file will meet the same end on the same machine.
fn stays(spec: &ServiceSpec, death: &Death, last_lines: &[String]) -> bool {
    let why = anteroom_crash::explain(&Seen {
        service: &spec.name,
        exit: Some(death.exit),
        lived_ms: Some(death.lived_ms),
        last_lines: Some(last_lines),
        evidence: &death.evidence,
        cpu: None,
    });
    // Which feature is missing is for the host to say; that the processor refuses it is seen here.
    let refused = death.exit == ProcessExit::Signalled { signal: libc::SIGILL }
        && death.evidence.fault.as_ref().is_some_and(|fault| fault.code > 0);
    let by_its_shell = matches!(death.exit, ProcessExit::Exited { code: 126 | 127 });
    refused || by_its_shell || why.cause.stays()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ServiceSpec {
        serde_json::from_str(r#"{"name":"a","command":["a"]}"#).unwrap()
    }

    fn after(exit: ProcessExit, deaths: u32, lines: &[&str]) -> Then {
        let death = Death { exit, lived_ms: 1, evidence: Evidence::default() };
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        then(&spec(), deaths, &death, &lines)
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
}
