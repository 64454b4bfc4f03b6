//! Many sign-ins by one controller: what it captures, what is left, what it grows; and many calls at
//! once.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::demo::TTL_SECONDS;
use crate::identity::{Identity, new_identity};
use crate::provider::OpenIdProvider;
use crate::server::Server;
use anteroom_testkit::end_user;
use anteroom_testkit::{Answer, Sealed};

use crate::leftovers;
use xtask::{interrupt, shell};

/// Sessions after which the controller's memory is first looked at: caches and pools are full then.
const WARM_AFTER: usize = 20;

/// What some sign-ins in a row came to.
pub struct Cycles {
    /// Completed, and the credential holds tokens that the provider issued.
    pub captured: usize,
    /// Found on the machine afterwards.
    pub leftovers: Vec<String>,
    /// The controller's resident memory at the end, less that after [`WARM_AFTER`], in MiB; absent
    /// where there were no more sessions than that.
    pub rss_drift_mib: Option<f64>,
    /// How long each took from the call to the sealed credential, in milliseconds.
    pub sealed_ms: Vec<u64>,
}

/// `count` sign-ins in a row with one controller.
pub fn run(anteroom: &Path, driver: &str, count: usize) -> Result<Cycles> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let mut provider = OpenIdProvider::start(folder.path())?;
    let mut server = Server::start(anteroom, folder.path(), &provider, driver, &[])?;
    let identity = new_identity(folder.path())?;
    let mut cycles =
        Cycles { captured: 0, leftovers: Vec::new(), rss_drift_mib: None, sealed_ms: Vec::new() };
    let (mut tokens, mut ids, mut warm) = (Vec::new(), Vec::new(), None);
    for number in 1..=count {
        interrupt::check()?;
        let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
        let kept = shell::root().join(format!("target/demo/failed-{driver}-{number}"));
        let plan = end_user::Plan {
            // An emulated machine on a busy host has been seen to take a minute for its page.
            patience_seconds: if driver == "host" { 30 } else { 180 },
            screenshots: Some(folder.path().join("pictures")),
            ..end_user::Plan::default()
        };
        let played = end_user::play_quietly(&plan, &session);
        if played.is_err() {
            keep_evidence(&server, &session.id, folder.path(), &kept)?;
            server.cancel(&session.id)?;
        }
        let ended = server.wait_until_torn_down(&session.id, Duration::from_secs(90))?;
        match (played, ended["reason"]["code"].as_str()) {
            (Ok(_), Some("completed")) => {
                let sealed = server.credential(&session.id)?;
                tokens.push(token_hash(anteroom, &identity, folder.path(), &sealed)?);
                cycles.sealed_ms.extend(sealed_after(&ended));
                eprintln!("{driver} {number}: completed");
            }
            (played, code) => {
                let end_user = played.err().map(|error| format!("; {error:#}")).unwrap_or_default();
                eprintln!(
                    "{driver} {number}: {} {}{end_user}",
                    code.unwrap_or("?"),
                    ended["reason"]["message"]
                );
            }
        }
        if number == WARM_AFTER {
            warm = Some(resident_mib(server.pid())?);
        }
        ids.push(session.id);
    }
    if let Some(warm) = warm.filter(|_| count > WARM_AFTER) {
        let drift = resident_mib(server.pid())? - warm;
        cycles.rss_drift_mib = Some((drift * 100.0).round() / 100.0);
    }
    server.stop()?;
    let issued = provider.stop()?.issued;
    let was_issued =
        |token: &String| issued.iter().any(|tokens| tokens["access_token_sha256"] == **token);
    cycles.captured = tokens.iter().filter(|token| was_issued(token)).count();
    for id in &ids {
        cycles.leftovers.extend(leftovers::of_session(id, folder.path(), &before)?);
    }
    Ok(cycles)
}

/// What can be seen of a session whose end user gave up: its state, its logs, the pictures of the
/// end user and of the desktop itself.
fn keep_evidence(server: &Server, id: &str, folder: &Path, kept: &Path) -> Result<()> {
    crate::demo::keep_logs(&folder.join("state/logs").join(id), kept)?;
    std::fs::write(kept.join("session.json"), server.status(id)?.to_string())?;
    if let Ok(png) = server.screenshot(id) {
        std::fs::write(kept.join("desktop.png"), png)?;
    }
    for picture in std::fs::read_dir(folder.join("pictures")).into_iter().flatten().flatten() {
        std::fs::copy(picture.path(), kept.join(picture.file_name()))?;
    }
    Ok(())
}

fn token_hash(
    anteroom: &Path,
    identity: &Identity,
    folder: &Path,
    sealed: &Sealed,
) -> Result<String> {
    let (_, credential) = identity.open(anteroom, folder, sealed)?;
    let token = credential["access_token"].as_str().context("the credential has no token")?;
    Ok(hex::encode(Sha256::digest(token)))
}

fn sealed_after(session: &Value) -> Option<u64> {
    let stored = session["timeline"]
        .as_array()?
        .iter()
        .find(|entry| entry["kind"] == "credential_stored")?["at"]
        .as_u64()?;
    Some(stored.saturating_sub(session["createdAt"].as_u64()?))
}

/// A process' resident memory, from `VmRSS` of /proc/PID/status.
pub fn resident_mib(pid: u32) -> Result<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")).context("no VmRSS")?;
    Ok(kib.trim().parse::<f64>()? / 1024.0)
}

/// Makes `calls` start calls at once with capacity for `sandboxes`, `rounds` times, and times the
/// queries of a session's state until all that began have a desktop. A round has some 150 answers, of
/// which a p99 is the second worst: it is taken over all rounds, and each round's own is reported too.
pub fn burst(
    anteroom: &Path,
    driver: &str,
    calls: usize,
    sandboxes: usize,
    rounds: usize,
) -> Result<Value> {
    let (mut begun, mut reported, mut took, mut of_rounds) = (0, 0, Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mut round = burst_once(anteroom, driver, calls, sandboxes)?;
        begun += round.begun;
        reported += round.reported;
        of_rounds.push(percentile(&mut round.took, 0.99));
        took.append(&mut round.took);
    }
    Ok(json!({
        "driver": driver, "rounds": rounds, "calls": calls, "sandboxes": sandboxes, "begun": begun,
        "refused_with_retry_after": reported, "lost": rounds * calls - begun - reported,
        "get_session": {
            "asked": took.len(), "p50_ms": percentile(&mut took, 0.5),
            "p99_ms": percentile(&mut took, 0.99), "max_ms": percentile(&mut took, 1.0),
            "p99_ms_of_each_round": of_rounds,
        },
    }))
}

/// The value below which this part of all lies, in milliseconds.
fn percentile(took: &mut [Duration], part: f64) -> Option<f64> {
    took.sort_unstable();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index"
    )]
    let index = (took.len() as f64 * part) as usize;
    let found = took.get(index.min(took.len().saturating_sub(1)))?;
    Some((found.as_secs_f64() * 100_000.0).round() / 100.0)
}

/// What came of one round.
struct Round {
    begun: usize,
    reported: usize,
    took: Vec<Duration>,
}

fn burst_once(anteroom: &Path, driver: &str, calls: usize, sandboxes: usize) -> Result<Round> {
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let provider = OpenIdProvider::start(folder.path())?;
    let options = ["--max-sessions", &sandboxes.to_string()];
    let mut server = Server::start(anteroom, folder.path(), &provider, driver, &options)?;
    let identity = new_identity(folder.path())?;
    let server_now = &server;
    let body = serde_json::json!({
        "provider": "demo", "recipient": identity.recipient, "ttlSeconds": TTL_SECONDS,
    });
    let body = body.to_string();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let calls: Vec<_> =
            (0..calls).map(|_| scope.spawn(|| server_now.post("/api/auth/start", &body))).collect();
        calls.into_iter().map(|call| call.join().map_err(|_| ())).collect::<Vec<_>>()
    })
    .into_iter()
    .map(|joined| joined.unwrap_or_else(|()| bail!("a call panicked")))
    .collect::<Result<_>>()?;
    let begun: Vec<String> = answers
        .iter()
        .filter(|answer| answer.status == 201)
        .filter_map(|answer| answer.body["sessionId"].as_str().map(str::to_owned))
        .collect();
    let reported = answers
        .iter()
        .filter(|answer| answer.status == 503 && answer.body["code"] == "no_capacity")
        .count();
    let mut took = Vec::new();
    let started = Instant::now();
    loop {
        interrupt::check()?;
        let mut waiting = false;
        for id in &begun {
            let asked = Instant::now();
            let session = server.status(id)?;
            took.push(asked.elapsed());
            waiting |=
                matches!(session["state"].as_str(), Some("requested" | "booting" | "preparing"));
        }
        if !waiting || started.elapsed() > Duration::from_secs(180) {
            break;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    for id in &begun {
        server.cancel(id)?;
        server.wait_until_torn_down(id, Duration::from_secs(60))?;
    }
    server.stop()?;
    Ok(Round { begun: begun.len(), reported, took })
}

/// Sign-ins in a row by each driver; the last line says what became of them.
pub fn bench(anteroom: &Path, host: usize, qemu: usize) -> Result<()> {
    let on_host = run(anteroom, "host", host)?;
    let in_vms = run(anteroom, "qemu", qemu)?;
    for left in on_host.leftovers.iter().chain(&in_vms.leftovers) {
        eprintln!("left over: {left}");
    }
    println!(
        "{}",
        serde_json::json!({
            "host": host, "qemu": qemu,
            "captured": on_host.captured + in_vms.captured,
            "leftovers": on_host.leftovers.len() + in_vms.leftovers.len(),
            "rss_drift_mib": on_host.rss_drift_mib,
            "host_sealed_median_ms": median(&on_host.sealed_ms),
            "qemu_sealed_median_ms": median(&in_vms.sealed_ms),
        })
    );
    Ok(())
}

/// The one in the middle.
pub fn median(values: &[u64]) -> Option<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}
