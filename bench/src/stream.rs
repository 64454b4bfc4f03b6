//! The stream as an end user meets it: from a key to its picture, what scrolls and moves, and what each costs.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anteroom_testkit::Started;
use anteroom_testkit::processes::{self, Role};
use anyhow::{Context, Result, bail};
use serde_json::{Map, Value, json};
use xtask::shell;

use crate::processor_time::Reading;
use crate::provider::{HOST, OpenIdProvider, provider_file_opening};
use crate::server::Server;
use crate::{identity::new_identity, leftovers, scripted_viewer};

/// How the stream is measured.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// `host` or `qemu`.
    #[arg(long, default_value = "host")]
    pub driver: String,
    /// How often; each figure is the median.
    #[arg(long, default_value_t = 3)]
    pub runs: usize,
    /// How long each of rest, scrolling and animation is watched, in seconds; the page has text for 30.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=30))]
    pub seconds: u64,
    /// Keys in each run.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=1000))]
    pub keys: u64,
}

/// Longer than any run: 1,000 keys take some 4 minutes.
const TTL_SECONDS: u64 = 1800;

/// How long a sandbox may take to show its page: an emulated machine boots meanwhile.
const PAGE: Duration = Duration::from_secs(180);

/// Measures; the last line is one JSON object.
pub fn bench(anteroom: &Path, options: &Options) -> Result<Value> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let mut provider = OpenIdProvider::start(folder.path())?;
    let file = provider_file_opening(&provider, &format!("https://{HOST}/stream"))?;
    let serve = ["--max-session-seconds", &TTL_SECONDS.to_string()];
    let mut server = Server::start_with(anteroom, folder.path(), &file, &options.driver, &serve)?;
    let recipient = new_identity(folder.path())?.recipient;
    let (mut floor, mut runs) = (Figures::default(), Figures::default());
    let mut left = 0;
    for run in 1..=options.runs {
        let page = format!("https://127.0.0.1:{}/stream", provider.port);
        watch(options, &["--page-url", &page], &mut floor, None)?;
        let session = server.start_session(&recipient, TTL_SECONDS)?;
        server.wait_until(&session.id, PAGE, "shown its page", |status| {
            status["state"] == "awaiting_user" || status["state"] == "ended"
        })?;
        let processes = Processes::of(&session, &options.driver)?;
        watch(options, &["--viewer-url", &session.viewer_url], &mut runs, Some(&processes))?;
        server.cancel(&session.id)?;
        server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
        left += leftovers::of_session(&session.id, folder.path(), &before)?.len();
        eprintln!("run {run} of {}: {}", options.runs, runs.medians());
    }
    server.stop()?;
    provider.stop()?;
    Ok(json!({
        "driver": options.driver,
        "runs": options.runs,
        "floor": floor.medians(),
        "anteroom": runs.medians(),
        "leftovers": left,
    }))
}

/// Each figure by its name, once a run.
#[derive(Default)]
struct Figures(BTreeMap<String, Vec<f64>>);

impl Figures {
    fn add(&mut self, name: &str, value: f64) {
        self.0.entry(name.to_owned()).or_default().push(value);
    }

    /// The middle of each, and with more than one the least and the most.
    fn medians(&self) -> Value {
        let rounded = |value: f64| json!((value * 1000.0).round() / 1000.0);
        let each = self.0.iter().map(|(name, values)| {
            let mut sorted = values.clone();
            sorted.sort_by(f64::total_cmp);
            let median = rounded(sorted[sorted.len() / 2]);
            let value = match (sorted.first(), sorted.last()) {
                (Some(least), Some(most)) if sorted.len() > 1 => {
                    json!({ "median": median, "least": rounded(*least), "most": rounded(*most) })
                }
                _ => median,
            };
            (name.clone(), value)
        });
        Value::Object(each.collect::<Map<_, _>>())
    }
}

/// One run of the viewer, or of the page in the measuring browser itself.
fn watch(
    options: &Options,
    address: &[&str],
    figures: &mut Figures,
    processes: Option<&Processes>,
) -> Result<()> {
    let screenshot = shell::root().join("target/demo/stream.png").display().to_string();
    let (seconds, keys) = (options.seconds.to_string(), options.keys.to_string());
    let further = ["--seconds", &seconds, "--keys", &keys, "--screenshot", &screenshot];
    let mut begun = None;
    scripted_viewer::run("stream/viewer.mjs", &[address, &further].concat(), |event| {
        let what = event["what"].as_str().unwrap_or_default();
        match event["event"].as_str() {
            Some("joined") => {
                let took = event["took_ms"].as_f64();
                figures.add("first_frame_ms", took.context("no time to the first frame")?);
            }
            Some("begins") => begun = processes.map(Processes::read).transpose()?,
            Some("ends") => {
                let ended = processes.map(Processes::read).transpose()?;
                for (begun, ended) in begun.take().iter().zip(&ended) {
                    figures.add(&format!("{what}_cores"), begun.share_until(ended));
                }
            }
            Some("measured") => measured(event, what, figures)?,
            _ => {}
        }
        Ok(())
    })?;
    for (name, mib) in processes.map(Processes::proportional_mib).transpose()?.iter().flatten() {
        figures.add(&format!("{name}_mib"), *mib);
    }
    Ok(())
}

fn measured(event: &Value, what: &str, figures: &mut Figures) -> Result<()> {
    for rate in ["kb_per_s", "frames_per_s"] {
        if let Some(value) = event[rate].as_f64() {
            figures.add(&format!("{what}_{rate}"), value);
        }
    }
    let Some(delays) = event["delays"].as_array() else { return Ok(()) };
    let seen: Vec<f64> = delays.iter().filter_map(Value::as_f64).collect();
    let lost = delays.len() - seen.len();
    // One that was never seen took longer than any.
    let mut waited = [seen, vec![f64::INFINITY; lost]].concat();
    waited.sort_by(f64::total_cmp);
    for (name, of) in [("key_to_pixel_p50_ms", 50), ("key_to_pixel_p95_ms", 95)] {
        figures.add(name, *waited.get(waited.len() * of / 100).context("no key was pressed")?);
    }
    figures.add("keys_lost", lost as f64);
    Ok(())
}

/// What of a session takes, carries and codes the picture: of a VM all of the guest, otherwise without its browser.
struct Processes(Vec<(Role, u32)>);

impl Processes {
    fn of(session: &Started, driver: &str) -> Result<Self> {
        let expected = if driver == "host" { 3 } else { 2 };
        let found = processes::with_roles(&session.id)?;
        if found.len() != expected {
            bail!("the session's processes are {found:?}, not {expected}");
        }
        Ok(Self(found))
    }

    /// The processor time of all of them so far.
    fn read(&self) -> Result<Reading> {
        Reading::of(self.0.iter().map(|(_, pid)| *pid))
    }

    /// Each one's memory, what is shared divided among those that share it, in MiB.
    fn proportional_mib(&self) -> Result<Vec<(&'static str, f64)>> {
        let mib = |pid: u32| -> Result<f64> {
            let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
            let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
            let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).context("no Pss")?;
            Ok(kib.trim().parse::<f64>()? / 1024.0)
        };
        self.0.iter().map(|(role, pid)| Ok((role.name(), mib(*pid)?))).collect()
    }
}
