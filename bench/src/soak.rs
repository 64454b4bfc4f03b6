//! A long session that is watched: who dies, how long the picture stands still, what grows.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::provider::{HOST, OpenIdProvider, provider_file_opening};
use crate::server::Server;
use anteroom_testkit::Started;
use anteroom_testkit::processes::{self, Role};

use crate::{identity::new_identity, leftovers, scripted_viewer};
use xtask::{interrupt, shell};

/// How the long run goes.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// How long it is watched.
    #[arg(long, default_value_t = 30)]
    pub minutes: u64,
    /// `host` or `qemu`.
    #[arg(long, default_value = "host")]
    pub driver: String,
    /// In how many visits: the viewer leaves and comes back between them.
    #[arg(long, default_value_t = 4)]
    pub visits: u64,
    /// How long nobody is there after the desktop is ready, in seconds.
    #[arg(long, default_value_t = 90)]
    pub join_after_seconds: u64,
}

/// A picture that stands still for longer is a freeze.
const FREEZE_MS: u64 = 1000;

/// How long the processes take to have what they need for good.
const WARM: Duration = Duration::from_secs(120);

/// How long a sandbox may take to show its page: an emulated machine boots meanwhile.
const PAGE: Duration = Duration::from_secs(180);

/// Watches; the summary is one JSON object.
pub fn run(anteroom: &Path, options: &Options) -> Result<Value> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let mut provider = OpenIdProvider::start(folder.path())?;
    let ttl = options.minutes * 60 + options.join_after_seconds + 900;
    let (most, driver) = (ttl.to_string(), options.driver.as_str());
    let serve = ["--max-session-seconds", &most];
    let file = provider_file_opening(&provider, &format!("https://{HOST}/soak"))?;
    let mut server = Server::start_with(anteroom, folder.path(), &file, driver, &serve)?;
    let session = server.start_session(&new_identity(folder.path())?.recipient, ttl)?;
    server.wait_until(&session.id, PAGE, "shown its page", |status| {
        status["state"] == "awaiting_user" || status["state"] == "ended"
    })?;
    eprintln!("the page is open; nobody watches for {} s", options.join_after_seconds);
    interrupt::sleep(Duration::from_secs(options.join_after_seconds))?;

    let processes = Processes::of(&server, &session)?;
    let seen = watch(options, &session, &processes);
    let status = server.status(&session.id)?;
    let died = processes.died();
    server.cancel(&session.id)?;
    server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
    server.stop()?;
    let kept = shell::root().join("target/demo/soak-logs");
    crate::demo::keep_logs(&folder.path().join("state/logs").join(&session.id), &kept)?;
    let reported = provider.stop()?.soak;
    if reported.len() < 2 {
        bail!(
            "the page reported {} times, which is too seldom to say how it fared",
            reported.len()
        );
    }
    let left = leftovers::of_session(&session.id, folder.path(), &before)?;
    let Seen { visits, grown, gaps, shown, typed } = seen?;

    let exits = status["timeline"].as_array().into_iter().flatten();
    let exits = exits.filter(|entry| entry["kind"] == "service_exited").count();
    let ended = usize::from(status["state"] == "ended");
    let late = late_pictures(&reported);
    let frozen: Vec<&Gap> = gaps.iter().filter(|gap| gap.unexplained(&late) > FREEZE_MS).collect();
    for gap in &frozen {
        eprintln!("frozen: {gap:?}");
    }
    for name in &died {
        eprintln!("died: {name}");
    }
    let last = reported.last().cloned().unwrap_or_default();
    Ok(json!({
        "minutes": options.minutes,
        "deaths": died.len() + exits + ended,
        "freezes_over_1s": frozen.len(),
        "rss_drift_mib": (grown.values().sum::<f64>() * 100.0).round() / 100.0,
        "driver": options.driver,
        "visits": visits,
        "grown_mib": grown,
        "still_over_1s": gaps.iter().filter(|gap| gap.ms > FREEZE_MS).count(),
        "longest_still_ms": gaps.iter().map(|gap| gap.ms).max(),
        "longest_still_of_the_page_itself_ms": late.values().max(),
        "lag_ms": lag(&shown, &reported),
        "keys": { "typed": typed, "arrived": last["typed"] },
        "pictures": last["counter"],
        "leftovers": left.len(),
    }))
}

/// Between two pictures that the viewer showed.
#[derive(Debug)]
struct Gap {
    /// How long the first was shown, in milliseconds.
    ms: u64,
    /// The numbers of both.
    after: u64,
    until: u64,
}

impl Gap {
    /// How much longer than the page itself needed for one of the pictures between.
    fn unexplained(&self, late: &BTreeMap<u64, u64>) -> u64 {
        let own = late.range(self.after + 1..=self.until.max(self.after + 1)).map(|(_, ms)| *ms);
        self.ms.saturating_sub(own.max().unwrap_or(0))
    }
}

/// The pictures that the page drew late, by its own clock: number, and milliseconds since the one
/// before.
fn late_pictures(reported: &[Value]) -> BTreeMap<u64, u64> {
    numbered(reported, "late")
}

/// What the page says of some of its pictures by their numbers.
fn numbered(reported: &[Value], what: &str) -> BTreeMap<u64, u64> {
    let entries = reported.iter().filter_map(|report| report[what].as_array()).flatten();
    entries.filter_map(|entry| Some((entry[0].as_u64()?, entry[1].as_u64()?))).collect()
}

/// How far what was shown was behind what the page had drawn: median and most, in milliseconds. Both
/// clocks are this machine's, or set by it when the guest booted.
fn lag(shown: &[(u64, u64)], reported: &[Value]) -> Value {
    let drawn = numbered(reported, "drawn");
    let mut lags: Vec<u64> = shown
        .iter()
        .filter_map(|(number, at)| {
            let (before, begun) = drawn.range(..=number).next_back()?;
            let (after, ended) = drawn.range(number..).next()?;
            let drawn_at = match after - before {
                0 => *begun,
                steps => begun + (ended - begun) * (number - before) / steps,
            };
            Some(at.saturating_sub(drawn_at))
        })
        .collect();
    lags.sort_unstable();
    json!({ "median": lags.get(lags.len() / 2), "max": lags.last() })
}

struct Seen {
    visits: usize,
    /// What each process grew after it was warm, in MiB.
    grown: BTreeMap<&'static str, f64>,
    gaps: Vec<Gap>,
    /// Number of a picture, and when it was seen.
    shown: Vec<(u64, u64)>,
    typed: u64,
}

fn watch(options: &Options, session: &Started, processes: &Processes) -> Result<Seen> {
    let mut seen =
        Seen { visits: 0, grown: BTreeMap::new(), gaps: Vec::new(), shown: Vec::new(), typed: 0 };
    let (started, mut warm) = (Instant::now(), None);
    let (minutes, visits) = (options.minutes.to_string(), options.visits.to_string());
    let screenshot = shell::root().join("target/demo/soak.png").display().to_string();
    let arguments = [
        ["--viewer-url", session.viewer_url.as_str()],
        ["--minutes", &minutes],
        ["--visits", &visits],
        ["--screenshot", &screenshot],
    ];
    scripted_viewer::run("soak/viewer.mjs", arguments.as_flattened(), |event| {
        if warm.is_none() && started.elapsed() > WARM {
            warm = Some(processes.resident_mib()?);
        }
        for gap in event["gaps"].as_array().into_iter().flatten() {
            let number = |name: &str| gap[name].as_u64().unwrap_or_default();
            let gap = Gap { ms: number("ms"), after: number("after"), until: number("until") };
            eprintln!("the picture froze: {gap:?}");
            seen.gaps.push(gap);
        }
        if let (Some(number), Some(at)) = (event["shown"].as_u64(), event["at_ms"].as_u64()) {
            let silent = event["silent_ms"].as_u64().unwrap_or_default();
            seen.shown.push((number, at.saturating_sub(silent)));
        }
        match event["event"].as_str() {
            Some("joined") => {
                seen.visits += 1;
                eprintln!("visit {}: a picture after {} ms", event["visit"], event["took_ms"]);
            }
            Some("left") => {
                let (visit, pictures) = (&event["visit"], &event["pictures"]);
                let resident = processes.resident_mib()?;
                eprintln!("visit {visit} over: {pictures} pictures; resident {resident:.1?} MiB");
            }
            Some("done") => seen.typed = event["typed"].as_u64().unwrap_or_default(),
            _ => {}
        }
        Ok(())
    })?;
    let now = processes.resident_mib()?;
    let warm = warm.unwrap_or_else(|| now.clone());
    seen.grown = now
        .into_iter()
        .map(|(name, mib)| (name, ((mib - warm[name]) * 100.0).round() / 100.0))
        .collect();
    Ok(seen)
}

/// Our processes of the session: name, process id, and when it was started (a number is used again).
struct Processes(Vec<(&'static str, u32, String)>);

impl Processes {
    fn of(server: &Server, session: &Started) -> Result<Self> {
        let mut found = vec![("controller", server.pid(), started(server.pid())?)];
        for (role, pid) in processes::with_roles(&session.id)? {
            if role != Role::XServer {
                found.push((role.name(), pid, started(pid)?));
            }
        }
        if found.len() != 3 {
            bail!("the session's processes are {found:?}");
        }
        Ok(Self(found))
    }

    fn died(&self) -> Vec<&'static str> {
        let is_running = |pid: u32, since: &str| started(pid).is_ok_and(|now| now == since);
        self.0
            .iter()
            .filter(|(_, pid, since)| !is_running(*pid, since))
            .map(|(name, ..)| *name)
            .collect()
    }

    /// Of those that are our own code; a VMM's is the guest's memory.
    fn resident_mib(&self) -> Result<BTreeMap<&'static str, f64>> {
        let ours = self.0.iter().filter(|(name, ..)| *name != "vmm");
        ours.map(|(name, pid, _)| Ok((*name, crate::cycles::resident_mib(*pid)?))).collect()
    }
}

/// Field 22 of /proc/PID/stat (proc(5)).
fn started(pid: u32) -> Result<String> {
    let fields = processes::stat_after_name(pid)?;
    fields.into_iter().nth(19).context("no start time in /proc/PID/stat")
}
