//! `cargo xtask bench explain`: faults injected in real VMs, core dumps made here, and how Anteroom
//! explains each.
//!
//! An explanation is right if it has the cause and the phrases of the table, unknown if it says so itself,
//! and wrong otherwise. A false alarm is a component that the image verifier fails in an image with nothing
//! wrong. Reports are timed from the agent's line that the process is gone: the
//! host stamps log lines and timeline by one clock.

mod alarms;
mod calm;
mod cgroups;
mod death;
mod dumps;
mod injected;
mod reports;
mod runtimes;
mod sandboxes;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::server::Server;
use death::Death;
use xtask::{interrupt, shell};

/// How long a round of deaths may take.
const ROUND: Duration = Duration::from_secs(240);

/// What came of one death.
struct Outcome {
    name: String,
    verdict: Verdict,
    sentence: String,
    report_ms: Option<u64>,
}

/// How an explanation did.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Right,
    Unknown,
    Wrong,
}

/// What dies, and where.
#[derive(clap::Args)]
pub struct Options {
    /// Only those whose name holds this.
    #[arg(long)]
    only: Option<String>,
    /// The driver of the VMs: `qemu`, or `firecracker` on a machine with KVM.
    #[arg(long, default_value = "qemu")]
    driver: String,
    /// The VMs' processors.
    #[arg(long, default_value = "2")]
    vcpus: String,
}

/// Runs all rounds and prints the table.
pub fn run(anteroom: &Path, options: &Options) -> Result<()> {
    let only = options.only.as_deref();
    let programs = tempfile::Builder::new().prefix("xtask-injected-").tempdir()?;
    let rounds = [
        ("demo", "x86-64-v2", injected::modern(programs.path())?),
        ("demo", "x86-64-v1", injected::oldest(programs.path())?),
        (runtimes::IMAGE, "x86-64-v2", runtimes::modern(programs.path())?),
        (runtimes::IMAGE, "x86-64-v1", runtimes::oldest()),
    ];
    let mut outcomes = Vec::new();
    for (image, profile, mut deaths) in rounds {
        deaths.retain(|death| only.is_none_or(|only| death.name.contains(only)));
        if !deaths.is_empty() {
            if image == runtimes::IMAGE {
                alarms::build_image(anteroom, programs.path())?;
            }
            eprintln!("{} deaths in a VM of {image} with {profile}", deaths.len());
            outcomes.extend(round(anteroom, image, profile, &deaths, options)?);
        }
        interrupt::check()?;
    }
    outcomes.extend(dumps::run(anteroom, programs.path(), only)?);
    outcomes.extend(sandboxes::run(anteroom, options)?);
    let context = match only {
        Some("calm") => Some((0, calm::agent_percent(anteroom)?)),
        Some(_) => None,
        None => Some((alarms::count(anteroom)?, calm::agent_percent(anteroom)?)),
    };
    print(&outcomes, context);
    Ok(())
}

/// Only whole sandboxes.
pub fn of_sandboxes(anteroom: &Path, options: &Options) -> Result<()> {
    print(&sandboxes::run(anteroom, options)?, None);
    Ok(())
}

/// One VM in which all of these die.
fn round(
    anteroom: &Path,
    image: &str,
    profile: &str,
    deaths: &[Death],
    how: &Options,
) -> Result<Vec<Outcome>> {
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let services = folder.path().join("services.toml");
    std::fs::write(&services, death::services(deaths))?;
    let services = services.to_string_lossy().into_owned();
    let options = [
        "--cpu",
        profile,
        "--allow-unverified-images",
        "--services",
        &services,
        "--memory",
        "3072",
        "--vcpus",
        &how.vcpus,
    ];
    let provider = format!("{}\n{}", provider_file(image)?, injected::files(deaths));
    let mut server = Server::start_with(anteroom, folder.path(), &provider, &how.driver, &options)?;
    let session = server.start_session_without_recipient()?;
    let reported = |view: &Value, name: &str| explanation_of(view, name).is_some();
    let all_reported = |view: &Value| deaths.iter().all(|death| reported(view, death.name));
    let view = server.wait_until(&session.id, ROUND, "reported all deaths", |view| {
        all_reported(view) || view["state"] == "ended"
    });
    // What is there so far says more than that it took too long.
    let view = view.or_else(|_| server.status(&session.id))?;
    let logs = folder.path().join("state/logs").join(&session.id).join("services.log");
    let log = std::fs::read_to_string(logs).unwrap_or_default();
    server.cancel(&session.id)?;
    server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
    server.stop()?;
    if view["state"] == "ended" {
        eprintln!("the session ended before all had died: {}", view["reason"]["message"]);
    }
    Ok(deaths.iter().map(|death| judge(death, &view, &log)).collect())
}

/// The CLI waits: nobody signs in here.
fn provider_file(image: &str) -> Result<String> {
    let shipped = std::fs::read_to_string(shell::root().join("providers/demo.toml"))?;
    let waits = shipped
        .replace(r#"["demo-login", "login"]"#, r#"["sleep", "3600"]"#)
        .replace("url_timeout_seconds = 120", "url_timeout_seconds = 600")
        .replace("image = \"demo\"", &format!("image = \"{image}\""));
    Ok(waits)
}

/// The timeline's entry about the end of a service.
fn explanation_of<'a>(view: &'a Value, name: &str) -> Option<&'a Value> {
    view["timeline"].as_array()?.iter().find(|entry| {
        let message = entry["message"].as_str().unwrap_or_default();
        !entry["explanation"].is_null() && message.starts_with(&format!("the service {name} "))
    })
}

fn judge(death: &Death, view: &Value, log: &str) -> Outcome {
    let name = death.name.to_owned();
    let Some(entry) = explanation_of(view, death.name) else {
        let sentence = "its end was not reported".to_owned();
        return Outcome { name, verdict: Verdict::Wrong, sentence, report_ms: None };
    };
    let sentence = entry["message"].as_str().unwrap_or_default().to_owned();
    let explanation = &entry["explanation"];
    let says = death.says.iter().all(|part| sentence.contains(part));
    let evident = explanation["evidence"].as_array().is_some_and(|lines| !lines.is_empty());
    // Some ends leave no evidence: "unknown" is right there.
    let verdict = if explanation["cause"] == death.cause && says {
        let starts_failed = explanation["cause"].as_str().is_some_and(|cause| {
            ["missing_program", "missing_interpreter", "not_executable"].contains(&cause)
        });
        if evident || starts_failed { Verdict::Right } else { Verdict::Wrong }
    } else if explanation["confidence"] == "unknown" {
        Verdict::Unknown
    } else {
        Verdict::Wrong
    };
    Outcome { report_ms: report_ms(death.name, entry, log), name, verdict, sentence }
}

/// From the agent's line that the process is gone to the timeline's entry; both are stamped on the
/// host. What never was a process has none.
fn report_ms(name: &str, entry: &Value, log: &str) -> Option<u64> {
    let seen = format!(" {name} (process ");
    let line = log
        .lines()
        .find(|line| line.split_whitespace().nth(1) == Some("agent") && line.contains(&seen))?;
    let observed = humantime::parse_rfc3339(line.split(' ').next()?).ok()?;
    let observed = observed.duration_since(std::time::UNIX_EPOCH).ok()?.as_millis();
    Some(entry["at"].as_u64()?.saturating_sub(u64::try_from(observed).ok()?))
}

/// `around`: false alarms of the verifier, and what supervision takes of a core in percent.
fn print(outcomes: &[Outcome], context: Option<(usize, f64)>) {
    let count = |verdict| outcomes.iter().filter(|outcome| outcome.verdict == verdict).count();
    for outcome in outcomes {
        let verdict = match outcome.verdict {
            Verdict::Right => "right",
            Verdict::Unknown => "unknown",
            Verdict::Wrong => "WRONG",
        };
        println!("{verdict:8} {:16} {}", outcome.name, outcome.sentence);
    }
    let mut reports: Vec<u64> = outcomes.iter().filter_map(|outcome| outcome.report_ms).collect();
    reports.sort_unstable();
    let p95 = reports.get((reports.len() * 95).div_ceil(100).saturating_sub(1));
    println!(
        "{}",
        json!({
            "injected": outcomes.len(),
            "right": count(Verdict::Right),
            "unknown": count(Verdict::Unknown),
            "wrong": count(Verdict::Wrong),
            "false_alarms": context.map(|(alarms, _)| alarms),
            "supervision_percent": context.map(|(_, percent)| percent),
            "p95_report_ms": p95,
            "reports_timed": reports.len(),
        })
    );
}
