//! `cargo xtask demo`: one sign-in from start to end, on embedded defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use xtask::{build, interrupt, machine, shell};

use crate::front::{Front, Proxy};
use crate::identity::new_identity;
use crate::provider::OpenIdProvider;
use crate::server::Server;
use anteroom_testkit::end_user;

use crate::{leftovers, raw_vm, report};

/// One sign-in, in a real VM, from nothing to a sealed credential.
#[derive(clap::Args, Clone, Debug)]
pub struct Options {
    /// Plays the end user with headless Chromium.
    #[arg(long)]
    pub auto: bool,
    /// Prints one JSON object as the last line.
    #[arg(long)]
    pub json: bool,
    /// `qemu` or `firecracker` (a VM), or `host` (no isolation: the agent on this machine).
    #[arg(long, default_value = "qemu")]
    pub driver: String,
    /// Where the end user's screenshots go (with --auto).
    #[arg(long)]
    pub screenshots: Option<PathBuf>,
    /// The end user types a wrong password first (with --auto).
    #[arg(long)]
    pub wrong_password_first: bool,
    /// The end user closes the tab once and comes back (with --auto).
    #[arg(long)]
    pub close_tab_once: bool,
    /// The end user comes by a public name through a TLS proxy (with --auto).
    #[arg(long, value_enum, hide = true, requires = "auto")]
    pub behind: Option<Proxy>,
}

impl Options {
    /// A played end user, and one JSON object as the result.
    pub fn auto(driver: &str) -> Self {
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

    fn plan(&self, front: Option<&Front>) -> end_user::Plan {
        end_user::Plan {
            wrong_password_first: self.wrong_password_first,
            close_tab_once: self.close_tab_once,
            reload_when_asked: false,
            idle_seconds: 0,
            // The desktop already waits when somebody comes through the front.
            patience_seconds: if front.is_some() { 60 } else { 0 },
            screenshots: self.screenshots.clone(),
            directions: front.map(Front::directions),
        }
    }
}

/// How long a session may live in the demo, in seconds.
pub const TTL_SECONDS: u64 = 900;

/// Prepares the machine, builds, and runs one sign-in.
pub fn run(options: &Options) -> Result<()> {
    machine::prepare()?;
    let anteroom = build::for_users()?;
    interrupt::check()?;
    let image_build_ms = build::golden_image(&anteroom, true)?.took_ms;
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

/// The demo and the raw VM in turns; medians in the last line.
pub fn bench(anteroom: &Path, runs: usize) -> Result<()> {
    let image = build::golden_image(anteroom, true)?;
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

/// One sign-in.
pub fn sign_in(options: &Options, anteroom: &Path, image_build_ms: u64) -> Result<report::Outcome> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new()
        .prefix("xtask-demo-")
        .tempdir()
        .context("making a folder failed")?;
    let keep = shell::root().join("target/demo");
    let identity = new_identity(folder.path())?;
    let mut provider = OpenIdProvider::start(folder.path())?;
    let mut front = options.behind.map(Front::prepare).transpose()?;
    let reported = front.as_ref().map_or(Ok(Vec::new()), Front::serve_options)?;
    let reported: Vec<&str> = reported.iter().map(String::as_str).collect();
    let mut server = Server::start(anteroom, folder.path(), &provider, &options.driver, &reported)?;
    if let Some(front) = &mut front {
        front.open(&server)?;
    }
    let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
    if let Some(front) = &front {
        front.check(anteroom, &server, &session)?;
    }
    let seen = attend(options, front.as_ref(), &server, &session);
    let end = server.wait_until_torn_down(&session.id, Duration::from_secs(60));
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
        front
            .check_way(seen.way.as_ref().context("the end user reported no path of the media")?)?;
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
        anteroom: anteroom.to_path_buf(),
    };
    end?;
    if !options.json || !options.auto {
        eprint!("{}", outcome.for_an_end_user());
    }
    Ok(outcome)
}

/// Keeps the last session's logs: the folder of the demo goes with it.
pub fn keep_logs(from: &Path, to: &Path) -> Result<()> {
    let _ = std::fs::remove_dir_all(to);
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from).into_iter().flatten().flatten() {
        std::fs::copy(entry.path(), to.join(entry.file_name())).context("keeping a log failed")?;
    }
    Ok(())
}

/// Lets the end user, real or played, sign in; what was seen on the way.
fn attend(
    options: &Options,
    front: Option<&Front>,
    server: &Server,
    session: &anteroom_testkit::Started,
) -> Result<end_user::Seen> {
    if options.auto {
        return end_user::play(&options.plan(front), session, |_| ());
    }
    eprintln!(
        "\nOpen this address in a browser on this machine:\n\n    {}\n\n\
         Sign in there as {} with the password {}\n\
         (Ctrl-C ends the session and leaves nothing behind.)\n",
        session.viewer_url,
        end_user::USER,
        end_user::PASSWORD
    );
    server.wait_until_ended(&session.id, Duration::from_secs(TTL_SECONDS + 60))?;
    Ok(end_user::Seen::default())
}
