//! Why a conversation ended, by what its sandbox adds.

use std::time::Duration;

use anteroom_session::{DriverKind, EndReason, Explanation, ProcessExit, RunState};
use anteroom_vm::{Inspect, OutOfMemory, RunningSandbox, SandboxEnd};
use nix::libc::SIGKILL;
use tokio::time::timeout;

use crate::sandbox::boot_failed;

/// Console lines in an explanation.
const CONSOLE_TAIL: usize = 12;

/// Console lines that are looked through for a panic: its report is as long as its call trace.
const CONSOLE_SEARCHED: usize = 400;

/// How long a sandbox may take to be seen ended after its link has.
const ECHO: Duration = Duration::from_millis(500);

/// Lets a sandbox's guest run.
///
/// # Errors
/// Why its VMM does not, or why that has ended.
pub async fn start_guest(sandbox: &mut RunningSandbox) -> Result<(), EndReason> {
    let Err(error) = sandbox.start_guest().await else { return Ok(()) };
    match timeout(ECHO, sandbox.wait()).await {
        Ok(exit) => Err(exit_reason(sandbox, exit)),
        Err(_) => Err(boot_failed(&error)),
    }
}

/// Runs a conversation until it is over or its sandbox has ended. That end says most, so it is looked
/// at first.
///
/// # Errors
/// Why the sandbox ended.
pub async fn until_end<T>(
    sandbox: &mut RunningSandbox,
    conversation: impl Future<Output = T>,
) -> Result<T, EndReason> {
    tokio::select! {
        biased;
        end = sandbox.end_or_stop() => Err(end_reason(sandbox, end)),
        said = conversation => Ok(said),
    }
}

/// What a conversation ended by, and what was seen of its sandbox: lines for a log.
pub struct DiagnosedEnd {
    /// Why it ended.
    pub reason: EndReason,
    /// The evidence, line by line.
    pub lines: Vec<String>,
}

impl DiagnosedEnd {
    /// Looks at the sandbox whose conversation ended for `reason`.
    pub async fn of(sandbox: &mut RunningSandbox, reason: EndReason) -> Self {
        match reason {
            // The link's last error may only be the echo of a sandbox that is gone.
            EndReason::GuestLinkFailed { .. } => match timeout(ECHO, sandbox.wait()).await {
                Ok(exit) => Self { reason: exit_reason(sandbox, exit), lines: Vec::new() },
                Err(_) => Self { reason, lines: state(sandbox).await.1 },
            },
            EndReason::AgentSilent { waited_ms, .. } => {
                let (run_state, lines) = state(sandbox).await;
                let console_tail = sandbox.console_tail(CONSOLE_TAIL);
                Self {
                    reason: EndReason::AgentSilent { waited_ms, run_state, console_tail },
                    lines,
                }
            }
            reason => Self { reason, lines: Vec::new() },
        }
    }
}

/// Where a sandbox stands that does not answer, and whether it runs at all, where its VMM says so.
async fn state(sandbox: &RunningSandbox) -> (Option<RunState>, Vec<String>) {
    let Some(vmm) = sandbox.inspect() else { return (None, Vec::new()) };
    let Some(run_state) = vmm.run_state().await else { return (None, Vec::new()) };
    let mut lines = vec![format!("{} is {run_state}", sandbox.driver.sandbox())];
    lines.extend(vmm.failures().iter().map(|failure| format!("the VMM's counter {failure}")));
    lines.extend(vmm.registers().await.unwrap_or_default().lines().map(str::to_owned));
    (Some(run_state), lines)
}

fn end_reason(sandbox: &RunningSandbox, end: SandboxEnd) -> EndReason {
    match end {
        SandboxEnd::Exited(exit) => exit_reason(sandbox, exit),
        SandboxEnd::Stopped { signal, seconds } => {
            EndReason::SandboxStopped { signal, stopped_seconds: seconds }
        }
    }
}

/// By what the VMM itself said.
fn explained_by_vmm(sandbox: &RunningSandbox, exit: ProcessExit) -> Option<Explanation> {
    match sandbox.driver {
        DriverKind::Firecracker => {
            let vmm = sandbox.inspect()?;
            anteroom_crash::explain_firecracker(exit, &vmm.log(), &vmm.failures())
        }
        DriverKind::Qemu | DriverKind::Host => None,
    }
}

fn exit_reason(sandbox: &RunningSandbox, exit: ProcessExit) -> EndReason {
    let (shutdown, console_tail) =
        (sandbox.inspect().and_then(Inspect::shutdown_cause), sandbox.console_tail(CONSOLE_TAIL));
    let explanation = match (exit, sandbox.out_of_memory()) {
        (ProcessExit::Signalled { signal: SIGKILL }, Some(OutOfMemory { limit_mib, killed })) => {
            Some(anteroom_crash::explain_machine_out_of_memory(limit_mib, killed))
        }
        _ => {
            let console = sandbox.console_tail(CONSOLE_SEARCHED);
            anteroom_crash::explain_machine(shutdown.as_ref(), &console)
                .or_else(|| explained_by_vmm(sandbox, exit))
        }
    };
    let explanation = explanation.map(Box::new);
    EndReason::SandboxExited { exit, shutdown, console_tail, explanation }
}
