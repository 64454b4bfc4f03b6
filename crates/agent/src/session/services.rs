//! X, window manager, browser and CLI: started in the order that readiness allows, each watched on
//! its own.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anteroom_guest_protocol::{
    Desktop as DesktopUse, Evidence, GuestMessage, ProcessExit, Purpose, ScreenSize, ServiceEvent,
    Then,
};
use anyhow::{Context, Error, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{mpsc, watch};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt as _};

use super::{Configuration, Desktop, Shared, declared};
use crate::check::{Checker, OpenedFiles};
use crate::desktop::browser::{self, FirstPage, Trust, WaitingPage};
use crate::desktop::display::Pixels;
use crate::desktop::display::server::{DisplayAddress, ServerStart, ServerStarting};
use crate::desktop::input::Input;
use crate::egress;
use crate::report::Reporter;
use crate::sandbox::SandboxKind;
use crate::sign_in::{self, DesktopContext};
use crate::supervise::{self, Death, Process, Reaper, Unready, can_start};

/// How long X, the window manager and the browser may take; under emulation with a busy host a cold
/// Chromium takes most of a minute.
const X_READY: Duration = Duration::from_secs(60);
const WINDOW_MANAGER_READY: Duration = Duration::from_secs(60);
const BROWSER_READY: Duration = Duration::from_secs(240);

/// How long the browser may take to ask for its page before it is told once more: on a machine so busy
/// that its network process takes more than some 20 s to start, it ends that, starts another, and has
/// forgotten the page.
const PAGE_AGAIN: Duration = Duration::from_secs(60);

/// How long the death of one of X's clients waits for that of X.
const X_FIRST: Duration = Duration::from_millis(500);

/// How often a service that died is started again before it is given up.
const RESTARTS: u32 = 3;

/// How often the person may close the browser's window.
const BROWSER_RESTARTS: u32 = 20;

/// The running services.
pub struct Services {
    failures: mpsc::Receiver<Error>,
    shared: Shared,
    browser: BrowserStart,
}

#[derive(Clone)]
struct BrowserStart {
    display: String,
    screen: ScreenSize,
    proxy: SocketAddr,
    page: WaitingPage,
    /// Whether it is to run.
    wanted: watch::Sender<bool>,
}

/// Starts X, and as soon as it takes clients everything else: none waits for another's readiness.
pub async fn start(
    shared: &Shared,
    configuration: &Configuration,
    trust: Trust,
) -> Result<Services> {
    let (failed, failures) = mpsc::channel(8);
    let way_out = egress::WayOut::new(shared.opener.clone());
    let proxy = egress::start_proxy(way_out.clone(), shared.reporter.clone()).await?;
    if shared.sandbox.kind == SandboxKind::Guest {
        let ports = &configuration.egress_ports;
        egress::take_the_rest(&way_out, &shared.reporter, ports)
            .await
            .context("taking in connections without a proxy failed")?;
    }
    let first = match configuration.purpose {
        Purpose::SignIn(_) => FirstPage::Waiting,
        Purpose::Proof {} => FirstPage::Proof,
    };
    let page = WaitingPage::serve(first).await?;
    if first == FirstPage::Proof {
        // Before the first program is opened.
        let checker = Checker {
            sandbox: shared.sandbox.clone(),
            reaper: shared.reaper.clone(),
            reporter: shared.reporter.clone(),
            page: page.found(),
            opened: OpenedFiles::watch(),
        };
        shared.checker.send_replace(Some(Rc::new(checker)));
    }
    let screen = configuration.screen;
    let display = start_x(shared, screen, failed.clone()).await?;
    let wanted = watch::channel(needs_browser(&configuration.purpose)).0;
    let browser =
        BrowserStart { display: display.name(), screen, proxy, page: page.clone(), wanted };
    // Where an image is proven, a browser that cannot live does not end the look at the rest.
    let desktop_failed =
        if first == FirstPage::Proof { mpsc::channel(1).0 } else { failed.clone() };
    tokio::task::spawn_local(keep_desktop(
        shared.clone(),
        display.clone(),
        browser.clone(),
        desktop_failed,
    ));
    for spec in &configuration.services {
        let kept = declared::keep(shared.clone(), spec.clone(), display.clone(), failed.clone());
        tokio::task::spawn_local(kept);
    }
    if let Purpose::SignIn(wanted) = &configuration.purpose {
        let context = DesktopContext { display: browser.display.clone(), proxy, trust };
        let sign_in = sign_in::run(shared.clone(), *wanted.clone(), context);
        tokio::task::spawn_local(async move {
            if let Err(error) = sign_in.await {
                let _ = failed.send(error).await;
            }
        });
    }
    tokio::task::spawn_local(report_when_led_on(page, shared.reporter.clone()));
    Ok(Services { failures, shared: shared.clone(), browser })
}

/// The first thing that went wrong for good; never returns while there are no services.
pub async fn failure(services: &mut Option<Services>) -> Error {
    match services {
        Some(services) => match services.failures.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

impl Services {
    /// Has the browser show a page, and starts it if it does not run.
    pub fn open_page(&self, url: &str) {
        let waits_for_it = self.browser.page.lead_to(url);
        let runs = self.browser.wanted.send_replace(true);
        if runs && !waits_for_it {
            open_page(&self.shared, &self.browser);
        }
    }
}

/// Whether the browser is started with everything else.
fn needs_browser(purpose: &Purpose) -> bool {
    match purpose {
        Purpose::SignIn(wanted) => wanted.desktop == DesktopUse::Used,
        Purpose::Proof {} => true,
    }
}

/// Tells each time the browser goes on to a sign-in page.
async fn report_when_led_on(page: WaitingPage, reporter: Reporter) {
    loop {
        page.led_on().await;
        reporter.report(GuestMessage::SignInPageOpened {}).await;
    }
}

/// Has the running browser open its first page once more, which leads on: a second start hands the
/// address to the first and exits.
fn open_page(shared: &Shared, start: &BrowserStart) {
    let BrowserStart { display, screen, proxy, page, .. } = start;
    let command = browser::command(&shared.sandbox, display, *screen, *proxy, &page.address());
    if let Err(error) = supervise::start("browser", command, &shared.reaper, &shared.reporter) {
        shared.reporter.note(&format!("showing the page again failed: {error:#}"));
    }
}

/// Ends every process of the room: asks, waits, kills. For the host driver; a guest just ends.
pub async fn end_all(reaper: &Reaper) {
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        for _ in 0..40 {
            for pid in children() {
                let _ = kill(pid, signal);
            }
            if !reaper.reap_all() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Our children, adopted orphans among them (the agent is a subreaper). Their own children come to
/// us when they are gone.
fn children() -> Vec<Pid> {
    let path = format!("/proc/self/task/{}/children", std::process::id());
    let list = std::fs::read_to_string(path).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw).collect()
}

/// Starts X. Gives its address as soon as clients can be started; that it is ready is reported, and
/// the desktop shared, when it is.
async fn start_x(
    shared: &Shared,
    screen: ScreenSize,
    failed: mpsc::Sender<Error>,
) -> Result<DisplayAddress> {
    let start = ServerStart::prepare(&shared.sandbox, screen)?;
    let (command, starting, inherited) = start.split()?;
    startable(shared, "x", &command).await?;
    let process = supervise::start("x", command, &shared.reaper, &shared.reporter)?;
    drop(inherited);
    started(shared, "x", &process).await;
    let (known, address) = tokio::sync::oneshot::channel();
    let shared = shared.clone();
    tokio::task::spawn_local(async move {
        if let Err(error) = keep_x(&shared, process, starting, known).await {
            // Everything drawn is lost with it: there is nothing to restart for.
            let _ = failed.send(error).await;
        }
    });
    address.await.context("the X server did not start")
}

/// Watches X from its start to its end.
async fn keep_x(
    shared: &Shared,
    mut process: Process,
    starting: ServerStarting,
    known: tokio::sync::oneshot::Sender<DisplayAddress>,
) -> Result<()> {
    let ready = async {
        // Whoever waited for it may have given up.
        let _ = known.send(starting.takes_clients().await);
        let address = starting.ready().await?;
        shared.desktop.send_replace(Some(Desktop {
            pixels: Pixels::capture(&address, shared.reporter.clone())?,
            input: Input::start(&address, shared.reporter.clone())?,
        }));
        Ok(())
    };
    if let Err(unready) = process.until_ready(X_READY, ready).await {
        let cause = unready.to_string();
        shared.reporter.service("x", process.failed_event(unready)).await;
        shared.x_died.send_replace(true);
        bail!("the X server did not start: {cause}");
    }
    shared.reporter.service("x", ServiceEvent::Ready {}).await;
    let death = process.died().await;
    let exit = death.exit;
    shared.reporter.service("x", process.exit_event(death, 1, Then::Nothing {})).await;
    shared.x_died.send_replace(true);
    bail!("the X server {}", supervise::describe(exit))
}

/// Window manager and browser; each is started again when it dies, up to its bound. A browser that
/// has its window before there is a window manager is taken over by it.
async fn keep_desktop(
    shared: Shared,
    display: DisplayAddress,
    start: BrowserStart,
    failed: mpsc::Sender<Error>,
) {
    let kept = keep_window_manager(&shared, &display);
    let browsed = keep_browser(&shared, &display, &start);
    let error = tokio::select! { error = kept => error, error = browsed => error };
    let _ = failed.send(error).await;
}

async fn keep_window_manager(shared: &Shared, display: &DisplayAddress) -> Error {
    for deaths in 1..=RESTARTS + 1 {
        let mut command = shared.sandbox.command("openbox");
        command.env("DISPLAY", display.name());
        let ready = window_manager_runs(shared, display);
        let then = |_: &Death| then(deaths > RESTARTS);
        let asked = "its mark on the root window";
        let start = Start { name: "window-manager", asked, deadline: WINDOW_MANAGER_READY, deaths };
        let life = run_service(shared, start, command, ready, then).await;
        if let Life::NeverReady(cause) = life {
            return anyhow!("the window manager did not start: {cause}");
        }
    }
    anyhow!("the window manager kept dying")
}

async fn keep_browser(shared: &Shared, address: &DisplayAddress, start: &BrowserStart) -> Error {
    let BrowserStart { display, screen, proxy, page, wanted } = start;
    // Its sender lives as long as the services.
    let _ = wanted.subscribe().wait_for(|wanted| *wanted).await;
    browser::report_titles(address, shared.reporter.clone());
    let mut crashes = 0;
    for deaths in 1..=BROWSER_RESTARTS {
        let command = browser::command(&shared.sandbox, display, *screen, *proxy, &page.address());
        let ready = async {
            while tokio::time::timeout(PAGE_AGAIN, page.asked()).await.is_err() {
                shared.reporter.note("the browser asked for no page: it is told once more");
                open_page(shared, start);
            }
            super::desktop(shared).await?;
            browser::shown(address).await
        };
        let asked = "its window on the screen";
        let start = Start { name: "browser", asked, deadline: BROWSER_READY, deaths };
        let then = |death: &Death| {
            let crashed = death.exit != (ProcessExit::Exited { code: 0 });
            then(deaths == BROWSER_RESTARTS || (crashed && crashes == RESTARTS))
        };
        match run_service(shared, start, command, ready, then).await {
            Life::NeverReady(cause) => return anyhow!("the browser did not start: {cause}"),
            // The person closing its window is no fault; anything else is counted.
            Life::Ended(ProcessExit::Exited { code: 0 }) => {}
            Life::Ended(exit) if crashes == RESTARTS => {
                return anyhow!("the browser kept dying: it {}", supervise::describe(exit));
            }
            Life::Ended(_) => crashes += 1,
        }
    }
    anyhow!("the browser was closed {BROWSER_RESTARTS} times")
}

/// How a service lived.
enum Life {
    /// It did not start or did not become ready.
    NeverReady(String),
    /// It was ready, and ended later.
    Ended(ProcessExit),
}

/// What a life of a service begins with.
struct Start {
    name: &'static str,
    /// What is looked at to see that it is ready.
    asked: &'static str,
    /// How long it may take to be ready.
    deadline: Duration,
    /// The death that ends it, counted from 1.
    deaths: u32,
}

/// What follows a death of one of the room's own services: at once, since the person waits.
fn then(too_often: bool) -> Then {
    if too_often { Then::TooOften {} } else { Then::Restart { after_ms: 0 } }
}

/// One life of a service, reported.
async fn run_service(
    shared: &Shared,
    start: Start,
    command: std::process::Command,
    ready: impl Future<Output = Result<()>>,
    then: impl FnOnce(&Death) -> Then,
) -> Life {
    let Start { name, asked, deadline, deaths } = start;
    if let Err(error) = startable(shared, name, &command).await {
        return Life::NeverReady(format!("{error:#}"));
    }
    let mut process = match supervise::start(name, command, &shared.reaper, &shared.reporter) {
        Ok(process) => process,
        Err(error) => {
            let cause = format!("{error:#}");
            give_up(shared, name, &cause).await;
            return Life::NeverReady(cause);
        }
    };
    if name != "browser" {
        process.give_way();
    }
    started(shared, name, &process).await;
    match process.until_ready(deadline, ready).await {
        Ok(()) => shared.reporter.service(name, ServiceEvent::Ready {}).await,
        Err(unready) => {
            let stall = matches!(unready, Unready::Late { .. })
                .then(|| supervise::look_at_stall(process.pid, asked.to_owned(), deadline, false));
            process.signal(Signal::SIGKILL);
            after_x(shared).await;
            let cause = unready.to_string();
            let mut event = process.failed_event(unready);
            if let ServiceEvent::Failed { evidence, .. } = &mut event {
                evidence.stall = stall;
            }
            shared.reporter.service(name, event).await;
            return Life::NeverReady(cause);
        }
    }
    let death = process.died().await;
    after_x(shared).await;
    let (exit, then) = (death.exit, then(&death));
    shared.reporter.service(name, process.exit_event(death, deaths, then)).await;
    Life::Ended(exit)
}

/// All clients of an X server fall with it, and it is the one to be told of: waits a moment for that.
async fn after_x(shared: &Shared) {
    let mut died = shared.x_died.subscribe();
    let _ = tokio::time::timeout(X_FIRST, died.wait_for(|died| *died)).await;
}

/// Looks whether a command can be started at all; tells why not.
pub async fn startable(shared: &Shared, name: &str, command: &std::process::Command) -> Result<()> {
    let Err(obstacle) = can_start(command) else { return Ok(()) };
    let cause = format!("{} cannot be started", command.get_program().to_string_lossy());
    let event = ServiceEvent::Failed {
        cause: cause.clone(),
        last_lines: Vec::new(),
        evidence: Box::new(Evidence { not_started: Some(obstacle), ..Evidence::default() }),
        exit: None,
        lived_ms: 0,
    };
    shared.reporter.service(name, event).await;
    bail!("{cause}")
}

pub async fn started(shared: &Shared, name: &str, process: &Process) {
    let pid = process.pid.as_raw().unsigned_abs();
    shared.reporter.service(name, ServiceEvent::Started { pid }).await;
}

pub async fn give_up(shared: &Shared, name: &str, cause: &str) {
    let event = ServiceEvent::Failed {
        cause: cause.to_owned(),
        last_lines: Vec::new(),
        evidence: Box::default(),
        exit: None,
        lived_ms: 0,
    };
    shared.reporter.service(name, event).await;
}

/// A window manager says that it manages by a property of the root window (EWMH,
/// `_NET_SUPPORTING_WM_CHECK`). There is no event to wait for that all of them send, so look.
async fn window_manager_runs(shared: &Shared, display: &DisplayAddress) -> Result<()> {
    // Before X is ready a connection would wait, and this thread with it.
    super::desktop(shared).await?;
    let connection = display.connect()?;
    let root = connection.setup().roots[0].root;
    let check = connection.intern_atom(false, b"_NET_SUPPORTING_WM_CHECK")?.reply()?.atom;
    loop {
        let property =
            connection.get_property(false, root, check, AtomEnum::WINDOW, 0, 1)?.reply()?;
        if property.value_len == 1 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
