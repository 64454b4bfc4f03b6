//! Deaths of whole sandboxes: kernel, stall, VMM, agent. Each takes a session of its own.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{Options, Outcome, Verdict, cgroups, provider_file};
use crate::leftovers;
use crate::server::Server;
use anteroom_testkit::processes;
use xtask::interrupt;

/// How a sandbox is ended.
enum By {
    /// A service of the guest's root does it, once the desktop is ready.
    Guest(&'static str),
    /// A signal to a process on this host.
    Signal { to: Process, signal: &'static str },
    /// Its cgroup's limit of memory, which is lowered below what it has taken. Needs cgroup v2.
    Memory,
    /// The kernel, which gives it no cgroup. Needs cgroup v2.
    NoCgroup,
}

/// A process of a session.
#[derive(Clone, Copy)]
enum Process {
    Vmm,
    Runner,
    /// On this host, by the `host` driver.
    Agent,
}

impl Process {
    /// Whether a command line is its.
    fn has(self, command: &str) -> bool {
        match self {
            Self::Vmm => command.contains("qemu-system") || command.contains("firecracker --api"),
            Self::Runner => command.trim_end().ends_with(" session"),
            Self::Agent => command.contains("--host-driver"),
        }
    }
}

struct Case {
    name: &'static str,
    by: By,
    code: &'static str,
    says: &'static [&'static str],
}

const CASES: [Case; 9] = [
    Case {
        name: "kernel-panic",
        by: By::Guest("sleep 2; echo about to panic; echo c > /proc/sysrq-trigger"),
        code: "sandbox_exited",
        says: &["the guest's kernel panicked", "sysrq triggered crash"],
    },
    Case {
        name: "guest-reset",
        by: By::Guest("sleep 2; echo b > /proc/sysrq-trigger"),
        code: "sandbox_exited",
        says: &["the guest restarted itself"],
    },
    Case {
        name: "guest-hang",
        // Nothing else runs any more: two endless programs of the highest real-time priority.
        by: By::Guest(
            "sleep 2; echo -1 > /proc/sys/kernel/sched_rt_runtime_us; for n in 1 2 3 4; do chrt -f 99 sh -c 'while :; do :; done' & done; wait",
        ),
        code: "agent_silent",
        says: &["did not respond within 14 s", "the VM itself was running"],
    },
    Case {
        name: "vmm-killed",
        by: By::Signal { to: Process::Vmm, signal: "KILL" },
        code: "sandbox_exited",
        says: &["was killed by signal 9 (SIGKILL)"],
    },
    Case {
        name: "vmm-stopped",
        by: By::Signal { to: Process::Vmm, signal: "STOP" },
        code: "sandbox_stopped",
        says: &["was stopped by signal 19 (SIGSTOP)"],
    },
    Case {
        name: "vmm-memory",
        by: By::Memory,
        code: "sandbox_exited",
        says: &["the host's kernel killed the VM's process because its cgroup reached its limit"],
    },
    Case {
        name: "no-cgroup",
        by: By::NoCgroup,
        code: "sandbox_not_started",
        says: &["making the cgroup", "/anteroom/", "Resource temporarily unavailable"],
    },
    Case {
        name: "runner-killed",
        by: By::Signal { to: Process::Runner, signal: "KILL" },
        code: "runner_died",
        says: &["signal 9 (SIGKILL)"],
    },
    Case {
        name: "agent-killed",
        by: By::Signal { to: Process::Agent, signal: "KILL" },
        code: "sandbox_exited",
        says: &["was killed by signal 9 (SIGKILL)"],
    },
];

/// How long a sandbox may take to be ready, and its end to be reported.
const SANDBOX: Duration = Duration::from_secs(180);

/// Ends a sandbox in each way.
pub fn run(anteroom: &Path, options: &Options) -> Result<Vec<Outcome>> {
    let only = options.only.as_deref();
    let mut outcomes = Vec::new();
    for case in CASES.iter().filter(|case| only.is_none_or(|only| case.name.contains(only))) {
        if matches!(case.by, By::Memory | By::NoCgroup) && !cgroups::are_usable() {
            eprintln!("Skipped: {}, which needs cgroup v2 and root", case.name);
            continue;
        }
        eprintln!("the death of a sandbox: {}", case.name);
        // One that goes wrong in itself must not cost the others' lines.
        outcomes.push(one(anteroom, case, options).unwrap_or_else(|error| Outcome {
            name: case.name.to_owned(),
            verdict: Verdict::Wrong,
            sentence: format!("{error:#}"),
            report_ms: None,
        }));
        interrupt::check()?;
    }
    Ok(outcomes)
}

fn one(anteroom: &Path, case: &Case, how: &Options) -> Result<Outcome> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let services = folder.path().join("services.toml");
    let mut options = vec!["--allow-unverified-images", "--vcpus", &how.vcpus];
    if let By::Guest(script) = case.by {
        let command = serde_json::json!(["sh", "-c", script]);
        std::fs::write(
            &services,
            format!(
                "[[services]]\nname = \"injected\"\nuser = \"root\"\nneeded = false\ncommand = {command}\n"
            ),
        )?;
        options
            .extend(["--services", services.to_str().context("the folder's name is not UTF-8")?]);
    }
    let driver = match case.by {
        By::Signal { to: Process::Agent, .. } => "host",
        _ => &how.driver,
    };
    let mut server =
        Server::start_with(anteroom, folder.path(), &provider_file("demo")?, driver, &options)?;
    // After the controller has tried what this machine offers.
    let refusal = match case.by {
        By::NoCgroup => Some(cgroups::Refusal::begin()?),
        _ => None,
    };
    let session = server.start_session_without_recipient()?;
    if refusal.is_none() {
        let ready = |view: &Value| has(view, "service_ready") || view["state"] == "ended";
        let view = server.wait_until(&session.id, SANDBOX, "become usable", ready)?;
        if view["state"] == "ended" && !matches!(case.by, By::Guest(_)) {
            bail!("the session ended before anything was done: {}", view["reason"]["message"]);
        }
    }
    let ended_at = end(case, &session.id)?;
    let view = server.wait_until_ended(&session.id, SANDBOX)?;
    drop(refusal);
    let report_ms = ended_at.and_then(|at| u64::try_from(at.elapsed().as_millis()).ok());
    server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
    server.stop()?;
    let left = leftovers::of_session(&session.id, folder.path(), &before)?;
    if !left.is_empty() {
        bail!("left over: {}", left.join("; "));
    }
    let sentence = view["reason"]["message"].as_str().unwrap_or_default().to_owned();
    let right =
        view["reason"]["code"] == case.code && case.says.iter().all(|part| sentence.contains(part));
    if !right {
        let console = folder.path().join("state/logs").join(&session.id).join("console.log");
        eprintln!("{}: {}", case.name, std::fs::read_to_string(console).unwrap_or_default());
    }
    let verdict = if right { Verdict::Right } else { Verdict::Wrong };
    // A stopped VMM is given the time to go on again: that is no report's delay.
    let report_ms = report_ms.filter(|_| case.code != "sandbox_stopped");
    Ok(Outcome { name: case.name.to_owned(), verdict, sentence, report_ms })
}

/// Does what ends it from this host, and when.
fn end(case: &Case, session: &str) -> Result<Option<Instant>> {
    match case.by {
        By::Guest(_) | By::NoCgroup => return Ok(None),
        By::Memory => cgroups::take_memory(session)?,
        By::Signal { to, signal } => {
            let found = processes::of_session(session)?;
            let (pid, _) = found
                .iter()
                .find(|(_, command)| to.has(command))
                .with_context(|| format!("{} cannot find its process", case.name))?;
            let status = Command::new("kill").args(["-s", signal, &pid.to_string()]).status()?;
            if !status.success() {
                bail!("sending SIG{signal} failed");
            }
        }
    }
    Ok(Some(Instant::now()))
}

fn has(view: &Value, kind: &str) -> bool {
    view["timeline"].as_array().is_some_and(|entries| entries.iter().any(|e| e["kind"] == kind))
}
