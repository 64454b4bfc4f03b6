//! What supervision takes while nothing dies: processor time of the agent, which is all that supervises,
//! read in the guest.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::provider_file;
use crate::server::Server;

/// What the scheduler counts in (`/proc/PID/task/*/schedstat`, first field).
const NANOSECONDS: f64 = 1e9;

/// Services that are there and well: two of them watched. The last one reads how much
/// the agent (process 1) has used, twice, a minute apart, when the desktop has come to rest.
const SERVICES: &str = r#"
[[services]]
name = "steady"
command = ["sleep", "1000"]
[[services]]
name = "steadier"
command = ["sleep", "1000"]
[[services]]
name = "watched"
command = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "8093"]
ready = { port = 8093 }
watchdog = { probe = { port = 8093 }, seconds = 30 }
[[services]]
name = "watched-too"
command = ["python3", "-m", "http.server", "--bind", "127.0.0.1", "8092"]
ready = { port = 8092 }
watchdog = { probe = { port = 8092 }, seconds = 30 }
[[services]]
name = "meter"
user = "root"
command = ["sh", "-c", """
sleep 75
look() { echo "at $(cut -d' ' -f1 /proc/uptime) used $(cat /proc/1/task/*/schedstat | awk '{ns += $1} END {printf "%.0f", ns}')"; }
look; sleep 60; look; sleep 1000
"""]
"#;

/// The agent's share of one core, in percent.
pub fn agent_percent(anteroom: &Path) -> Result<f64> {
    eprintln!("a sandbox in which nothing dies, for two minutes");
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let services = folder.path().join("services.toml");
    std::fs::write(&services, SERVICES)?;
    let services = services.to_string_lossy().into_owned();
    let provider = provider_file("demo")?;
    let options = ["--services", &services];
    let mut server = Server::start_with(anteroom, folder.path(), &provider, "qemu", &options)?;
    let session = server.start_session_without_recipient()?;
    let log = folder.path().join("state/logs").join(&session.id).join("services.log");
    let patience = Duration::from_secs(240);
    let looks = || looks(&std::fs::read_to_string(&log).unwrap_or_default());
    server.wait_until(&session.id, patience, "reported what the agent used", |view: &Value| {
        looks().len() == 2 || view["state"] == "ended"
    })?;
    let seen = looks();
    server.cancel(&session.id)?;
    server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
    server.stop()?;
    let [(from, used_before), (to, used)] = seen[..] else {
        anyhow::bail!("the sandbox ended before the agent's use was reported");
    };
    let share = (used - used_before) / NANOSECONDS / (to - from) * 100.0;
    Ok((share * 1000.0).round() / 1000.0)
}

/// Uptime in seconds and used nanoseconds of each look.
fn looks(log: &str) -> Vec<(f64, f64)> {
    let look = |line: &str| {
        let (at, used) = line.split_once(" at ")?.1.split_once(" used ")?;
        Some((at.parse().ok()?, used.trim().parse().ok()?))
    };
    log.lines().filter(|line| line.contains(" meter ")).filter_map(look).collect()
}
