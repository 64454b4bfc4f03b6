//! `cargo xtask demo`: one sign-in from start to end, on embedded defaults.

mod certificates;
mod company;
mod cycles;
mod doors;
mod explain;
mod front;
mod health;
mod idle;
mod leftovers;
mod logins;
mod node_server;
mod person;
mod processes;
mod provider;
mod report;
mod server;
mod soak;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{build, interrupt, machine, raw_vm, shell};
pub use explain::run as bench_explain;
use front::Front;
pub use front::Proxy;
use provider::OpenIdProvider;
use server::Sealed;
pub use server::Server;
pub use soak::Options as SoakOptions;

/// One sign-in, in a real VM, from nothing to a sealed credential.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Plays the person with headless Chromium.
    #[arg(long)]
    auto: bool,
    /// Prints one JSON object as the last line.
    #[arg(long)]
    json: bool,
    /// `qemu` (a VM) or `host` (no isolation: the agent on this machine).
    #[arg(long, default_value = "qemu")]
    driver: String,
    /// Where the person's screenshots go (with --auto).
    #[arg(long)]
    screenshots: Option<PathBuf>,
    /// The person types a wrong password first (with --auto).
    #[arg(long)]
    wrong_password_first: bool,
    /// The person closes the tab once and comes back (with --auto).
    #[arg(long)]
    close_tab_once: bool,
    /// The person comes by a public name through a TLS proxy (with --auto).
    #[arg(long, value_enum, hide = true, requires = "auto")]
    behind: Option<Proxy>,
}

impl Options {
    /// A played person, and one JSON object as the result.
    fn auto(driver: &str) -> Self {
        Self {
            auto: true,
            json: true,
            driver: driver.into(),
            screenshots: None,
            wrong_password_first: false,
            close_tab_once: false,
            behind: None,
        }
    }

    fn plan(&self, front: Option<&Front>) -> person::Plan {
        person::Plan {
            wrong_password_first: self.wrong_password_first,
            close_tab_once: self.close_tab_once,
            reload_when_told: false,
            idle_seconds: 0,
            // The desktop already waits when somebody comes through the front.
            patience_seconds: if front.is_some() { 60 } else { 0 },
            screenshots: self.screenshots.clone(),
            directions: front.map(Front::directions),
        }
    }
}

/// How long a session may live in the demo, in seconds.
const TTL_SECONDS: u64 = 900;

/// Prepares the machine, builds, and runs one sign-in.
pub fn run(options: &Options) -> Result<()> {
    interrupt::take_over()?;
    machine::prepare()?;
    let anteroom = build::for_users()?;
    interrupt::check()?;
    let image_build_ms = build_image(&anteroom, true)?.took_ms;
    build::install_node_packages(&shell::root().join("demo"))?;
    interrupt::check()?;
    let outcome = sign_in(options, &anteroom, image_build_ms)?;
    if options.json {
        println!("{}", outcome.json());
    }
    if !outcome.ok() {
        bail!("the demo did not end as it should: {}", outcome.problem());
    }
    Ok(())
}

/// Runs the demo's OpenID provider until Ctrl-C, for a controller that somebody starts by hand.
pub fn serve_provider() -> Result<()> {
    interrupt::take_over()?;
    machine::prepare()?;
    build::install_node_packages(&shell::root().join("demo"))?;
    let folder = tempfile::Builder::new().prefix("xtask-provider-").tempdir()?;
    let mut provider = OpenIdProvider::start(folder.path())?;
    let providers = shell::root().join("target/demo/providers");
    std::fs::create_dir_all(&providers)?;
    std::fs::write(providers.join("demo.toml"), server::provider_file(&provider)?)?;
    eprintln!(
        "\nThe demo's OpenID provider runs as {} on port {}. Start the controller with\n\n    \
         target/release/anteroom serve --providers target/demo/providers\n\n\
         and sign in as {} with the password {}. Ctrl-C ends the provider.",
        provider::HOST,
        provider.port,
        provider::USER,
        provider::PASSWORD
    );
    while interrupt::check().is_ok() {
        std::thread::sleep(Duration::from_millis(200));
    }
    std::fs::remove_dir_all(&providers)?;
    provider.stop()?;
    Ok(())
}

/// One sign-in with the person played, who types a wrong password first and closes the tab once;
/// fails unless all is as it should be.
pub fn check(anteroom: &Path, driver: &str) -> Result<()> {
    eprintln!("One sign-in with the {driver} driver …");
    let options =
        Options { wrong_password_first: true, close_tab_once: true, ..Options::auto(driver) };
    check_sign_in(&options, anteroom)
        .with_context(|| format!("the sign-in with the {driver} driver did not end as it should"))
}

/// noVNC on a session's desktop.
pub fn check_vnc(anteroom: &Path) -> Result<()> {
    eprintln!("noVNC on a desktop …");
    let folder = tempfile::Builder::new().prefix("xtask-demo-").tempdir()?;
    let provider = OpenIdProvider::start(folder.path())?;
    let mut server = Server::start(anteroom, folder.path(), &provider, "host", &[])?;
    let session = server.start_session_without_recipient()?;
    let status =
        server.wait_until(&session.id, Duration::from_secs(120), "come to the person", |view| {
            view["state"] == "awaiting_user" || view["state"] == "ended"
        })?;
    if status["state"] == "ended" {
        bail!("the session ended before its person's turn: {status}");
    }
    let mut novnc = Command::new("node");
    novnc.arg(shell::root().join("demo/person/novnc.mjs"));
    novnc.args(["--viewer-url", &session.viewer_url, "--session", &session.id]);
    let seen = novnc.output().context("starting noVNC failed")?;
    println!("{}", String::from_utf8_lossy(&seen.stdout).trim());
    server.cancel(&session.id)?;
    server.wait_until_demolished(&session.id, Duration::from_secs(60))?;
    server.stop()?;
    if !seen.status.success() {
        bail!("noVNC did not show the desktop");
    }
    Ok(())
}

/// One sign-in that leads over a company's own host, which the operator allows meanwhile.
pub fn check_company(anteroom: &Path) -> Result<()> {
    eprintln!("One sign-in over a company's own host …");
    let left = company::sign_in(anteroom, "host")?;
    anyhow::ensure!(left.is_empty(), "left over: {}", left.join("; "));
    Ok(())
}

/// One sign-in by a person elsewhere, who comes through a TLS proxy.
pub fn check_behind(anteroom: &Path, proxy: Proxy) -> Result<()> {
    eprintln!("One sign-in behind {proxy} …");
    let options = Options { behind: Some(proxy), close_tab_once: true, ..Options::auto("host") };
    check_sign_in(&options, anteroom)
        .with_context(|| format!("the sign-in behind {proxy} did not end as it should"))
}

fn check_sign_in(options: &Options, anteroom: &Path) -> Result<()> {
    let outcome = sign_in(options, anteroom, 0)?;
    println!("{}", outcome.json());
    if !outcome.ok() {
        bail!("{}", outcome.problem());
    }
    Ok(())
}

/// The demo and the raw VM in turns; medians in the last line.
pub fn bench(anteroom: &Path, runs: usize) -> Result<()> {
    let image = build_image(anteroom, true)?;
    let options = Options::auto("qemu");
    let mut results = Vec::new();
    for _ in 0..runs {
        interrupt::check()?;
        let mut result = sign_in(&options, anteroom, 0)?.json();
        result["raw_page_ms"] = raw_vm::time_to_page(&image.dir)?.into();
        println!("{result}");
        results.push(result);
    }
    println!("{}", report::medians(&results));
    Ok(())
}

/// A sign-in with a pause of `seconds` in which nobody touches the desktop.
pub fn bench_idle(anteroom: &Path, seconds: u64) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let provider = OpenIdProvider::start(folder.path())?;
    let mut server = Server::start(anteroom, folder.path(), &provider, "qemu", &[])?;
    let identity = new_identity(folder.path())?;
    let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
    let logs = folder.path().join("state/logs").join(&session.id);
    let (mut begin, mut end, mut written) = (None, None, None);
    let plan = person::Plan { idle_seconds: seconds, ..person::Plan::default() };
    let seen = person::play(&plan, &session, |event| {
        let processes = || idle::Processes::of_session(&session.id);
        match event {
            "idle_begins" => begin = Some(processes().and_then(|found| found.read())),
            "idle_ends" => end = Some(processes().and_then(|found| found.read())),
            // The last moment at which the processes are there for sure.
            "typed" => written = Some(processes().and_then(|found| found.written(&logs))),
            _ => {}
        }
    })?;
    server.wait_until_demolished(&session.id, Duration::from_secs(60))?;
    server.stop()?;
    let (begin, end) = (begin.context("no pause")??, end.context("no pause")??);
    println!(
        "{}",
        serde_json::json!({
            "idle_seconds": seconds,
            "frames": seen.idle_frames,
            "runner_cores": (begin.share_until(&end) * 10_000.0).round() / 10_000.0,
            "disk_written_bytes": written.context("nobody typed")??,
        })
    );
    Ok(())
}

/// Sign-ins in a row by each driver; the last line says what became of them.
pub fn bench_cycles(anteroom: &Path, host: usize, qemu: usize) -> Result<()> {
    let on_host = cycles::run(anteroom, "host", host)?;
    let in_vms = cycles::run(anteroom, "qemu", qemu)?;
    for left in on_host.leftovers.iter().chain(&in_vms.leftovers) {
        eprintln!("left over: {left}");
    }
    let median = |values: &[u64]| {
        let mut values = values.to_vec();
        values.sort_unstable();
        values.get(values.len() / 2).copied()
    };
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

/// Real CLIs in real VMs.
pub fn bench_logins(anteroom: &Path, only: Option<&str>, host: usize, qemu: usize) -> Result<()> {
    logins::run(anteroom, only, host, qemu)
}

/// Sign-ins of real CLIs that something goes wrong with.
pub fn bench_troubles(anteroom: &Path, only: Option<&str>) -> Result<()> {
    logins::run_troubles(anteroom, only)
}

/// Attacks, and whether each was refused.
pub fn bench_doors(anteroom: &Path, only: Option<&str>) -> Result<()> {
    doors::run(anteroom, only)
}

/// Start calls while many ask for `/health`.
pub fn bench_health(
    anteroom: &Path,
    connections: usize,
    rounds: usize,
    starts: usize,
) -> Result<()> {
    println!("{}", health::bench(anteroom, connections, rounds, starts)?);
    Ok(())
}

/// Many start calls at once.
pub fn bench_burst(
    anteroom: &Path,
    driver: &str,
    calls: usize,
    rooms: usize,
    rounds: usize,
) -> Result<()> {
    println!("{}", cycles::burst(anteroom, driver, calls, rooms, rounds)?);
    Ok(())
}

/// One long session that is watched.
pub fn bench_soak(anteroom: &Path, options: &SoakOptions) -> Result<()> {
    println!("{}", soak::run(anteroom, options)?);
    Ok(())
}

/// Prepares the machine; the host binary is `given`, or built as users have it.
pub fn prepare_bench(given: Option<PathBuf>) -> Result<PathBuf> {
    interrupt::take_over()?;
    machine::prepare()?;
    let anteroom = given.map_or_else(build::for_users, Ok)?;
    build_image(&anteroom, true)?;
    build::install_node_packages(&shell::root().join("demo"))?;
    Ok(anteroom)
}

/// Boots with every core busy; the last line says how many hung and how long the others took.
pub fn bench_boots(anteroom: &Path, boots: usize) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let provider = OpenIdProvider::start(folder.path())?;
    let mut server = Server::start(anteroom, folder.path(), &provider, "qemu", &[])?;
    let identity = new_identity(folder.path())?;
    let busy = BusyCores::start();
    let mut took = Vec::new();
    for boot in 1..=boots {
        interrupt::check()?;
        let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
        // Longer than the runner waits: it has more to say about a hang.
        let reached = server.wait_until_agent(&session.id, Duration::from_secs(180));
        server.cancel(&session.id)?;
        server.wait_until_demolished(&session.id, Duration::from_secs(60))?;
        match &reached {
            Ok(millis) => eprintln!("boot {boot}: agent after {millis} ms"),
            Err(error) => {
                let kept = shell::root().join(format!("target/demo/hang-{boot}"));
                keep_logs(&folder.path().join("state/logs").join(&session.id), &kept)?;
                eprintln!("boot {boot}: {error:#}; its logs are in {}", kept.display());
            }
        }
        took.extend(reached);
    }
    drop(busy);
    server.stop()?;
    took.sort_unstable();
    let at = |index: usize| took.get(index).copied();
    println!(
        "{}",
        serde_json::json!({
            "boots": boots, "hangs": boots - took.len(), "busy_cores": BusyCores::count(),
            "agent_ms": { "median": at(took.len() / 2), "min": at(0), "max": took.last() },
        })
    );
    Ok(())
}

/// A thread a core that does nothing but turn, until dropped.
struct BusyCores(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl BusyCores {
    fn count() -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    fn start() -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        for _ in 0..Self::count() {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for BusyCores {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}

/// The golden image.
pub struct GoldenImage {
    /// Milliseconds its build took; 0 when it was there.
    took_ms: u64,
    dir: PathBuf,
}

/// Builds the golden image unless it is there.
pub fn build_image(anteroom: &Path, show_progress: bool) -> Result<GoldenImage> {
    let started = Instant::now();
    let mut command = Command::new(anteroom);
    command.current_dir(shell::root()).args(["image", "build", "images/demo.toml", "--json"]);
    let output =
        if show_progress { command.stderr(std::process::Stdio::inherit()) } else { &mut command }
            .output()
            .context("starting `anteroom image build` failed")?;
    if !output.status.success() {
        // With progress shown, its complaint is on the terminal already.
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("the golden image was not built\n{}", said.trim());
    }
    let built: Value =
        serde_json::from_slice(&output.stdout).context("reading what was built failed")?;
    let cached = built["cached"].as_bool().unwrap_or(false);
    let took_ms = if cached { 0 } else { u64::try_from(started.elapsed().as_millis())? };
    let dir = built["dir"].as_str().context("the built image has no folder")?.into();
    Ok(GoldenImage { took_ms, dir })
}

fn sign_in(options: &Options, anteroom: &Path, image_build_ms: u64) -> Result<report::Outcome> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new()
        .prefix("xtask-demo-")
        .tempdir()
        .context("making a folder failed")?;
    let keep = shell::root().join("target/demo");
    let identity = new_identity(folder.path())?;
    let mut provider = OpenIdProvider::start(folder.path())?;
    let mut front = options.behind.map(Front::prepare).transpose()?;
    let told = front.as_ref().map_or(Ok(Vec::new()), Front::serve_options)?;
    let told: Vec<&str> = told.iter().map(String::as_str).collect();
    let mut server = Server::start(anteroom, folder.path(), &provider, &options.driver, &told)?;
    if let Some(front) = &mut front {
        front.open(&server)?;
    }
    let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
    if let Some(front) = &front {
        front.check(anteroom, &server, &session)?;
    }
    let seen = attend(options, front.as_ref(), &server, &session);
    let end = server.wait_until_demolished(&session.id, Duration::from_secs(60));
    let credential = end.as_ref().ok().and_then(|_| server.credential(&session.id).ok());
    // What is kept is of one session that came to its end: one that is interrupted changes nothing.
    let finished = end.is_ok();
    std::fs::create_dir_all(&keep)?;
    let identity = if finished { identity.move_to(&keep)? } else { identity };
    let opened = credential.map(|sealed| identity.open(anteroom, &keep, &sealed)).transpose()?;
    let status = server.status(&session.id)?;
    server.stop()?;
    if finished {
        keep_logs(&folder.path().join("state/logs").join(&session.id), &keep.join("logs"))?;
    }
    let saw = provider.stop()?;
    let seen = seen?;
    if let Some(front) = front {
        front.check_way(seen.way.as_ref().context("the person did not tell their way")?)?;
        front.stop()?;
    }
    let found = leftovers::of_session(&session.id, folder.path(), &before)?;
    let outcome = report::Outcome {
        status,
        seen,
        image_build_ms,
        credential: opened,
        provider: saw,
        leftovers: found,
        identity_file: identity.file.clone(),
    };
    end?;
    if !options.json || !options.auto {
        eprint!("{}", outcome.for_a_person());
    }
    Ok(outcome)
}

/// Keeps the last session's logs: the folder of the demo goes with it.
fn keep_logs(from: &Path, to: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).context("keeping a log failed")?;
    }
    Ok(())
}

/// Lets the person, real or played, sign in; what was seen on the way.
fn attend(
    options: &Options,
    front: Option<&Front>,
    server: &Server,
    session: &server::Started,
) -> Result<person::Seen> {
    if options.auto {
        return person::play(&options.plan(front), session, |_| ());
    }
    eprintln!(
        "\nOpen this address in a browser on this machine:\n\n    {}\n\n\
         Sign in there as {} with the password {}\n\
         (Ctrl-C ends the session and leaves nothing behind.)\n",
        session.viewer_url,
        provider::USER,
        provider::PASSWORD
    );
    server.wait_until_ended(&session.id, Duration::from_secs(TTL_SECONDS + 60))?;
    Ok(person::Seen::default())
}

/// An age identity of this demo's own: the caller's key, which the host never has.
struct Identity {
    file: PathBuf,
    recipient: String,
}

fn new_identity(keep: &Path) -> Result<Identity> {
    let file = keep.join("identity.txt");
    let _ = std::fs::remove_file(&file);
    shell::output(Command::new("age-keygen").arg("-o").arg(&file))?;
    let recipient =
        shell::output(Command::new("age-keygen").arg("-y").arg(&file))?.trim().to_owned();
    Ok(Identity { file, recipient })
}

impl Identity {
    /// Takes the place of an earlier session's, and of the credential that only that one opens.
    fn move_to(self, keep: &Path) -> Result<Self> {
        let file = keep.join("identity.txt");
        for path in [&file, &keep.join("credential.age")] {
            let _ = std::fs::remove_file(path);
        }
        std::fs::copy(&self.file, &file).context("keeping the demo's key failed")?;
        Ok(Self { file, ..self })
    }

    /// Keeps the sealed credential and restores it into a home; the path and the demo CLI's file.
    fn open(&self, anteroom: &Path, keep: &Path, sealed: &Sealed) -> Result<(PathBuf, Value)> {
        let path = self.restore(anteroom, keep, sealed)?;
        let home = keep.join("home");
        let text = std::fs::read_to_string(home.join(".demo-login/credentials.json"))
            .context("reading the restored credential failed")?;
        Ok((path, serde_json::from_str(&text).context("the opened credential is no JSON")?))
    }

    /// Keeps the sealed credential and restores it into the folder's `home`; its path.
    fn restore(&self, anteroom: &Path, keep: &Path, sealed: &Sealed) -> Result<PathBuf> {
        shell::output(&mut self.restoring(anteroom, keep, sealed)?)?;
        Ok(keep.join("credential.age"))
    }

    /// Keeps the sealed credential; the command that restores it into the folder's `home`.
    fn restoring(&self, anteroom: &Path, keep: &Path, sealed: &Sealed) -> Result<Command> {
        let path = keep.join("credential.age");
        let (envelope, key) =
            (keep.join("credential.age.envelope.json"), keep.join("controller.pem"));
        for (path, bytes) in
            [(&path, &sealed.bytes), (&envelope, &sealed.envelope), (&key, &sealed.key)]
        {
            std::fs::write(path, bytes).context("keeping the sealed credential failed")?;
        }
        let home = keep.join("home");
        let mut open = Command::new(anteroom);
        open.args(["credentials", "open", "--force", "--home"]).arg(&home);
        open.arg("--controller-key").arg(&key).arg("-i").arg(&self.file).arg(&path);
        Ok(open)
    }
}
