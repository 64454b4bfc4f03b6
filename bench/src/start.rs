//! `cargo xtask bench start`: from the start call to a picture, cold and from a template, against the floor
//! of a VM that is restored by hand.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anteroom_confine::Confinement;
use anteroom_guest_protocol::Preamble;
use anteroom_image::Image;
use anteroom_session::SessionId;
use anteroom_testkit::Started;
use anteroom_testkit::end_user::{Plan, Seen, Waiting};
use anteroom_vm::{ConsoleFile, Driver, Qemu, SandboxSpec, VmAccelerator, VmSpec, VmStart};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::cycles::{self, median};
use crate::demo::TTL_SECONDS;
use crate::identity::{Identity, new_identity};
use crate::leftovers;
use crate::provider::{OpenIdProvider, provider_file};
use crate::server::Server;
use crate::template::{KEY, Template, until_loaded};
use xtask::{build, interrupt, shell};

/// As `anteroom serve` and `image snapshot` have them.
const MEMORY_MIB: u32 = 2048;
const VCPUS: u8 = 2;

/// How often the floor is measured, and the cold start.
const FLOORS: usize = 10;

/// Sign-ins after which the controller's memory is first looked at.
const SETTLED_AFTER: usize = 20;

/// How often to measure what.
#[derive(clap::Args)]
pub struct Options {
    /// Sign-ins from the template, in a row.
    #[arg(long, default_value_t = 20)]
    cycles: usize,
    /// Cold starts, to compare with.
    #[arg(long, default_value_t = 3)]
    cold: usize,
    /// Sign-ins at once whose memory is looked at.
    #[arg(long, default_value_t = 8)]
    together: usize,
    /// How long their pages have been drawn then, in seconds.
    #[arg(long, default_value_t = 60)]
    rest: u64,
}

/// Measures; prints one JSON object as its last line.
pub fn bench(anteroom: &Path, options: &Options) -> Result<()> {
    build::golden_image(anteroom, true)?;
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let mut provider = OpenIdProvider::start(folder.path())?;
    let setting = Setting {
        anteroom,
        folder: folder.path(),
        provider_file: provider_file(&provider)?,
        identity: new_identity(folder.path())?,
        before: leftovers::Before::look(),
        template: Template::make(anteroom, folder.path(), &[], &provider.authority_pem)?,
    };
    let floor = median(&floors(&setting.template)?);
    let cold = setting.in_a_row(&["--cold"], options.cold)?;
    let warm = setting.in_a_row(&[], options.cycles)?;
    let private_mib = match options.together {
        0 => None,
        _ => Some(setting.together(options)?),
    };
    provider.stop()?;
    let whole = |row: &Row, pick: fn(&Took) -> u64| row.took.iter().map(pick).collect::<Vec<_>>();
    let (link, frame, page) = (
        whole(&warm, |took| took.link),
        whole(&warm, |took| took.first_frame),
        whole(&warm, |took| took.page),
    );
    println!(
        "{}",
        json!({
            "template_mib": setting.template.report["bytes"].as_u64().unwrap_or_default() >> 20,
            "template_ms": setting.template.report["tookMs"],
            "floor_ms": floor,
            "link_p50_ms": median(&link), "link_p99_ms": worst(&link),
            "first_frame_p50_ms": median(&frame), "first_frame_p99_ms": worst(&frame),
            "page_p50_ms": median(&page), "page_p99_ms": worst(&page),
            "cold_first_frame_ms": median(&whole(&cold, |took| took.first_frame)),
            "cold_page_ms": median(&whole(&cold, |took| took.page)),
            "sealed_p50_ms": median(&whole(&warm, |took| took.sealed)),
            "private_mib": private_mib,
            "rss_drift_mib": warm.rss_drift_mib,
            "cycles": options.cycles,
            "failures": warm.failures + cold.failures,
            "leftovers": warm.leftovers + cold.leftovers,
        })
    );
    Ok(())
}

/// What all measurements share.
struct Setting<'a> {
    anteroom: &'a Path,
    folder: &'a Path,
    provider_file: String,
    identity: Identity,
    before: leftovers::Before,
    template: Template,
}

/// How long after the call, in milliseconds.
struct Took {
    link: u64,
    first_frame: u64,
    page: u64,
    sealed: u64,
}

/// Some sign-ins in a row.
struct Row {
    took: Vec<Took>,
    failures: usize,
    leftovers: usize,
    rss_drift_mib: Option<f64>,
}

impl Setting<'_> {
    fn in_a_row(&self, options: &[&str], count: usize) -> Result<Row> {
        let mut row = Row { took: Vec::new(), failures: 0, leftovers: 0, rss_drift_mib: None };
        let mut server = self.serve(options)?;
        if options.is_empty() {
            until_loaded(&server)?;
        }
        let mut settled = None;
        for number in 1..=count {
            interrupt::check()?;
            let end_user = Waiting::new(&plan())?;
            let session = server.start_session(&self.identity.recipient, TTL_SECONDS)?;
            let seen = end_user.play(&session);
            if seen.is_err() {
                server.cancel(&session.id)?;
            }
            let ended = server.wait_until_torn_down(&session.id, Duration::from_secs(90))?;
            match seen.and_then(|seen| took(&ended, &seen)) {
                Ok(took) => {
                    eprintln!(
                        "{number}: link {} ms, first frame {} ms, page {} ms, sealed {} ms",
                        took.link, took.first_frame, took.page, took.sealed
                    );
                    row.took.push(took);
                }
                Err(error) => {
                    row.failures += 1;
                    let kept = shell::root().join(format!("target/demo/failed-start-{number}"));
                    let logs = server.state_dir().join("logs").join(&session.id);
                    crate::demo::keep_logs(&logs, &kept)?;
                    eprintln!("{number}: {error:#}; {}", ended["reason"]["message"]);
                }
            }
            row.leftovers += leftovers::of_session(&session.id, self.folder, &self.before)?.len();
            if number == SETTLED_AFTER {
                settled = Some(cycles::resident_mib(server.pid())?);
            }
        }
        if let Some(settled) = settled.filter(|_| count > SETTLED_AFTER) {
            row.rss_drift_mib = Some(cycles::resident_mib(server.pid())? - settled);
        }
        server.stop()?;
        Ok(row)
    }

    fn serve(&self, options: &[&str]) -> Result<Server> {
        let folder = tempfile::Builder::new().prefix("serve-").tempdir_in(self.folder)?.keep();
        self.template.serve(self.anteroom, &folder, &self.provider_file, options)
    }

    /// Private memory of each VM of some sign-ins at once, when their pages have been drawn for a while: the
    /// most, in MiB.
    fn together(&self, options: &Options) -> Result<u64> {
        let count = options.together.to_string();
        let mut server = self.serve(&["--max-sessions", &count])?;
        until_loaded(&server)?;
        let sessions: Vec<Started> = (0..options.together)
            .map(|_| server.start_session(&self.identity.recipient, TTL_SECONDS))
            .collect::<Result<_>>()?;
        for session in &sessions {
            let drawn = |status: &Value| when(status, "sign_in_page_opened").is_some();
            server.wait_until(&session.id, Duration::from_secs(300), "shown its page", drawn)?;
        }
        std::thread::sleep(Duration::from_secs(options.rest));
        let mut most = 0;
        for session in &sessions {
            let mib = private_mib(&session.id)?;
            eprintln!("{}: {mib} MiB private of the template", session.id);
            most = most.max(mib);
        }
        for session in &sessions {
            server.cancel(&session.id)?;
            server.wait_until_torn_down(&session.id, Duration::from_secs(90))?;
        }
        server.stop()?;
        Ok(most)
    }
}

fn plan() -> Plan {
    Plan { patience_seconds: 180, ..Plan::default() }
}

/// When the session's timeline has this first.
fn when(status: &Value, kind: &str) -> Option<u64> {
    let entries = status["timeline"].as_array()?;
    entries.iter().find(|entry| entry["kind"] == kind)?["at"].as_u64()
}

fn took(ended: &Value, seen: &Seen) -> Result<Took> {
    let began = ended["createdAt"].as_u64().context("the session has no time")?;
    let after = |what: &str, at: Option<u64>| {
        at.map(|at| at.saturating_sub(began)).with_context(|| format!("there was no {what}"))
    };
    if ended["reason"]["code"] != "completed" {
        bail!("the sign-in did not complete");
    }
    Ok(Took {
        link: after("link", when(ended, "agent_connected"))?,
        first_frame: after("frame", seen.first_frame)?,
        page: after("page", seen.ready)?,
        sealed: after("credential", when(ended, "credential_stored"))?,
    })
}

/// Pages of the template that a session's VM has changed, in MiB: private and dirty in its mapping.
fn private_mib(session: &str) -> Result<u64> {
    let processes = anteroom_testkit::processes::of_session(session)?;
    let vmm = processes.iter().find(|(_, command)| command.contains("qemu-system"));
    let (pid, _) = vmm.context("the session has no VMM")?;
    let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let mut in_template = false;
    let mut kib = 0;
    for line in smaps.lines() {
        if line.contains("anteroom-template-memory") {
            in_template = true;
        } else if in_template && let Some(rest) = line.strip_prefix("Private_Dirty:") {
            kib += rest.trim().trim_end_matches(" kB").parse::<u64>()?;
            in_template = false;
        }
    }
    Ok(kib >> 10)
}

/// Milliseconds from the start of QEMU to the first byte of a VM that is restored from the template, by the
/// same driver, with nothing of Anteroom around it.
fn floors(template: &Template) -> Result<Vec<u64>> {
    let key = anteroom_template::MachineKey::load_or_create(&template.state_dir.join(KEY))?;
    let made = anteroom_template::list(&template.image_dir);
    let made = made.iter().find(|one| one.id == template.id).context("there is no template")?;
    let loaded = anteroom_template::load(&template.image_dir, &key, &made.made_for)?;
    let (memory, state) = (Arc::new(loaded.memory), Arc::new(loaded.state));
    (0..FLOORS).map(|_| floor(&template.image_dir, &memory, &state)).collect()
}

fn floor(image_dir: &Path, memory: &Arc<OwnedFd>, state: &Arc<OwnedFd>) -> Result<u64> {
    let folder = tempfile::Builder::new().prefix("xtask-floor-").tempdir()?;
    let image = Image::open(image_dir, folder.path())?;
    let vm = VmSpec {
        kernel: image.kernel(),
        // A clone reads none.
        initramfs: Vec::new(),
        root_image: image.root(),
        memory_mib: MEMORY_MIB,
        vcpus: VCPUS,
        start: VmStart::Clone { memory: memory.clone(), state: state.clone() },
    };
    let sandbox = SandboxSpec {
        name: SessionId::generate().to_string().parse()?,
        confinement: Confinement::of_this_machine(None),
        console: ConsoleFile { path: folder.path().join("console.log"), limit: 1024 * 1024 },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let began = Instant::now();
        let qemu = Qemu { vm, accelerator: VmAccelerator::Tcg, cpu: None };
        let mut vm = qemu.boot(&sandbox).await?;
        vm.start_guest().await?;
        let mut link = vm.take_link();
        link.write_all(&Preamble::new([1; 16]).encode()).await?;
        let answered = tokio::time::timeout(Duration::from_secs(30), link.read_u8()).await;
        let took = u64::try_from(began.elapsed().as_millis())?;
        vm.kill().await;
        answered.context("the restored VM did not answer")??;
        Ok(took)
    })
}

/// The 99th percentile; of fewer than a hundred the worst.
fn worst(values: &[u64]) -> Option<u64> {
    let mut values = values.to_vec();
    values.sort_unstable();
    values.get((values.len() * 99 / 100).min(values.len().saturating_sub(1))).copied()
}
