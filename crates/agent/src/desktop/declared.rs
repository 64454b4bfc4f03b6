//! Services that the image's recipe declares.

use std::time::Duration;

use anteroom_guest_protocol::{ServiceSpec as Declared, ServiceUser};
use anyhow::Context;
use futures::future::LocalBoxFuture;

use super::display::server::DisplayAddress;
use super::probe::{self, Prober};
use crate::guest::Guest;
use crate::supervise::{
    Failure, Launch, Limits, Priority, Readiness, RestartPolicy, ServiceSpec, Watchdog,
};

/// The service that a declaration means.
pub fn spec(declared: &Declared, guest: &Guest, display: &DisplayAddress) -> ServiceSpec {
    let prober = Prober { guest: guest.clone(), display: display.clone() };
    let title = format!("the service {}", declared.name);
    let limits = Limits { memory_mib: declared.memory_mib, max_processes: declared.max_processes };
    let (name, restarts, needed) = (declared.name.clone(), declared.restarts, declared.needed);
    let declared = declared.clone();
    ServiceSpec {
        restart: RestartPolicy::WithPauses { restarts },
        limits,
        priority: Priority::Low,
        needed,
        ..ServiceSpec::new(&name, &title, move || launch(&declared, &prober))
    }
}

fn launch(declared: &Declared, prober: &Prober) -> Result<Launch, Failure> {
    let (program, arguments) = declared.command.split_first().context("its command is empty")?;
    let mut command = match declared.user {
        ServiceUser::EndUser => prober.guest.command(program),
        ServiceUser::Root => prober.guest.root_command(program),
    };
    command.args(arguments).env("DISPLAY", prober.display.name()).envs(&declared.env);
    let readiness = declared.ready.as_ref().map(|ready| Readiness {
        asked: probe::describe(ready),
        deadline: Duration::from_secs(declared.ready_seconds.into()),
        probe: prober.answers(ready),
    });
    let watchdog = declared.watchdog.as_ref().map(|watchdog| {
        let (prober, asked) = (prober.clone(), watchdog.probe.clone());
        let answers = move || -> LocalBoxFuture<'static, _> { prober.answers(&asked) };
        Watchdog {
            asked: probe::describe(&watchdog.probe),
            longest_silence: Duration::from_secs(watchdog.seconds.into()),
            longest_look: probe::LONGEST_LOOK,
            answers: Box::new(answers),
        }
    });
    Ok(Launch { command, readiness, watchdog })
}
