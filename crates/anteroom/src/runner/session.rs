//! The runner's session: boot, prepare, attend, end.

mod attend;
mod carry_out;
mod early;
mod prepare;

use std::time::Duration;

use anteroom_crash::{Explainer, agent_failed};
use anteroom_fail_point::fail_point;
use anteroom_guest_link::LinkError;
use anteroom_guest_protocol::{GuestCpu, GuestMessage, LogStream};
use anteroom_session::{DriverKind, EndReason, Observation};
use anteroom_sign_in::End;
use anteroom_vm::RunningVm;
use anyhow::{Context, Result};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::confine::confine;
use super::controller_link::{self, ControllerSender};
use super::guest::{self, violation};
use super::service_log::ServiceLog;
use super::{Sockets, sandbox};
use crate::clock::now;
use crate::runner_protocol::{RunnerCommand, RunnerConfig};
use early::EarlyCommands;

/// How long the guest may take to power off once it may, before it is killed.
const POWER_OFF: Duration = Duration::from_secs(5);

/// Runs the session that the controller describes; returns when nothing of it is left.
pub async fn run(sockets: Sockets) -> Result<()> {
    let Sockets { control, media, channels } = sockets;
    let (config, mut commands, sender, writing) = controller_link::open(control).await?;
    fail_point("runner.configured").context("reading what the session is to be failed")?;
    match sandbox::boot(&config.sandbox).await {
        Ok(mut sandbox) => {
            let ended = serve(
                &config,
                &mut sandbox.vm,
                Viewers { media, channels },
                &mut commands,
                &sender,
            )
            .await;
            end_sandbox(&config, &mut sandbox.vm).await;
            sender.last_figures().await;
            match ended {
                End::Failed(reason) => sender.failed(reason).await,
                End::Done => sender.observed(Observation::GuestPoweredOff).await,
                End::Ordered => {}
            }
        }
        Err(reason) => sender.failed(reason).await,
    }
    fail_point("teardown.sandbox_ended").context("ending the room failed")?;
    drop(sender);
    writing.finished().await;
    Ok(())
}

/// A VM is killed; an agent on the host first gets the time to end what it started there.
async fn end_sandbox(config: &RunnerConfig, vm: &mut RunningVm) {
    match config.sandbox.driver.kind() {
        DriverKind::Host => {
            vm.terminate();
            let _ = tokio::time::timeout(POWER_OFF, vm.wait()).await;
        }
        DriverKind::Qemu => {}
    }
    vm.kill().await;
}

/// Sockets of the viewers' media.
struct Viewers {
    media: std::os::unix::net::UnixDatagram,
    channels: std::os::unix::net::UnixStream,
}

async fn serve(
    config: &RunnerConfig,
    vm: &mut RunningVm,
    viewers: Viewers,
    commands: &mut mpsc::Receiver<RunnerCommand>,
    sender: &ControllerSender,
) -> End {
    let log = match ServiceLog::create(&config.sandbox.log_dir) {
        Ok(log) => log,
        Err(error) => {
            let cause = format!(
                "creating {}/services.log failed: {error}",
                config.sandbox.log_dir.display()
            );
            return End::Failed(EndReason::VmNotStarted { cause });
        }
    };
    // Nothing was awaited since the VM was started: nothing of it has been read.
    let confined = match confine(&config.sandbox.confinement, vm) {
        Ok(confined) => confined,
        Err(error) => {
            return End::Failed(EndReason::VmNotStarted { cause: format!("{error:#}") });
        }
    };
    let driver = config.sandbox.driver.kind();
    let accelerator = vm.confirmed_accelerator().await;
    sender.observed(Observation::VmStarted { driver, accelerator, pid: vm.pid }).await;
    // A sandbox that is gone already is reported below, by what it ended.
    if let Some(confined) = confined {
        sender.observed(Observation::Confined(Box::new(confined))).await;
    }
    let link = vm.take_link();
    let explainer =
        Explainer::new(&sandbox::processor(&config.sandbox.driver), &GuestCpu::default());
    let mut session = Session { config, sender, log, link: None, explainer };
    // The VM's own end is the most telling of all ends, so it is looked at first.
    tokio::select! {
        biased;
        end = vm.end_or_stop() => End::Failed(sandbox::end_reason(vm, end)),
        ended = session.run(link, viewers, commands) => match ended {
            // What the link says last may only be the echo of a VM that is gone.
            End::Failed(reason @ EndReason::GuestLinkFailed { .. }) => {
                match tokio::time::timeout(Duration::from_millis(500), vm.wait()).await {
                    Ok(exit) => End::Failed(sandbox::exit_reason(vm, exit)),
                    Err(_) => {
                        session.write_vm_state(vm).await;
                        End::Failed(reason)
                    }
                }
            }
            End::Failed(EndReason::AgentSilent { waited_ms, .. }) => {
                let run_state = session.write_vm_state(vm).await;
                let console_tail = vm.console_tail(sandbox::CONSOLE_TAIL);
                End::Failed(EndReason::AgentSilent { waited_ms, run_state, console_tail })
            }
            End::Done => {
                let _ = tokio::time::timeout(POWER_OFF, vm.wait()).await;
                End::Done
            }
            other => other,
        },
    }
}

/// What the session's steps share.
struct Session<'a> {
    config: &'a RunnerConfig,
    sender: &'a ControllerSender,
    log: ServiceLog,
    /// The multiplexer: its error says more than the ends of its streams.
    link: Option<JoinHandle<Result<(), LinkError>>>,
    /// Of no processor until the guest has named its own.
    explainer: Explainer,
}

impl Session<'_> {
    async fn run(
        &mut self,
        link: sandbox::Link,
        viewers: Viewers,
        commands: &mut mpsc::Receiver<RunnerCommand>,
    ) -> End {
        let mut early = EarlyCommands::default();
        let prepared = tokio::select! {
            prepared = self.prepare(link) => prepared,
            () = early.collect_until_shutdown(commands) => return End::Ordered,
        };
        let end = match prepared {
            Ok(prepared) => self.attend(prepared, viewers, early, commands).await,
            Err(reason) => reason.into(),
        };
        match end {
            End::Failed(EndReason::GuestLinkFailed { cause }) => {
                End::Failed(self.link_failure(cause).await)
            }
            other => other,
        }
    }

    /// Why the link failed: the multiplexer's own error if it has one, else what was seen.
    async fn link_failure(&mut self, seen: String) -> EndReason {
        let finished = self.link.take().filter(JoinHandle::is_finished);
        match finished {
            Some(link) => match link.await {
                Ok(Err(error @ LinkError::Mux(_))) => guest::link_failed(error),
                _ => EndReason::GuestLinkFailed { cause: seen },
            },
            None => EndReason::GuestLinkFailed { cause: seen },
        }
    }

    /// Keeps where a machine stands that does not answer; says whether it runs at all.
    async fn write_vm_state(&mut self, vm: &RunningVm) -> Option<String> {
        let run_state = vm.run_state().await?;
        self.write_log("qemu", LogStream::Stdout, &format!("the machine is {run_state}"));
        for line in vm.registers().await {
            self.write_log("qemu", LogStream::Stdout, &line);
        }
        Some(run_state)
    }

    fn write_log(&mut self, service: &str, stream: LogStream, line: &str) {
        // A full disk must not end a sign-in; the log is evidence, not a part of it.
        let _ = self.log.line(now(), service, stream, line);
    }
}

/// A fail point between two steps.
fn step(name: &str) -> Result<(), EndReason> {
    fail_point(name).map_err(|error| violation(&error.to_string()))
}

fn kind(message: &GuestMessage) -> String {
    let json = serde_json::to_value(message).unwrap_or_default();
    json["type"].as_str().unwrap_or("something").to_owned()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
