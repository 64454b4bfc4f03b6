//! Everything that a sandbox runs: the ways out, X, as soon as that takes clients the rest of the
//! desktop, and with it the sign-in.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anteroom_guest_protocol::{BeginSignIn, ConfigureSandbox, Desktop, Purpose};
use anyhow::{Context as _, Error, Result, anyhow};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{mpsc, watch};

use super::context::Context;
use crate::check::{Checker, OpenedFiles};
use crate::desktop::browser::{Browser, FirstPage, Trust, WaitingPage};
use crate::desktop::{declared, window_manager, x};
use crate::egress;
use crate::guest::{Guest, GuestKind};
use crate::sign_in;
use crate::supervise::{Priority, Reaper, ServiceSpec};

/// The running services: a desktop, and whatever else the sandbox has of its own.
pub struct Services {
    failures: mpsc::Receiver<Error>,
    browser: Browser,
    desktop: Desktop,
    /// Whether all of it ran before there was somebody who signs in.
    runs_already: bool,
}

impl Services {
    /// Starts X, and as soon as it takes clients everything else: none waits for another's readiness.
    /// `failures` is what the supervisor reports.
    pub async fn start(
        context: &Context,
        configuration: &ConfigureSandbox,
        mut failures: mpsc::Receiver<Error>,
    ) -> Result<Self> {
        let Context { guest, supervisor, desktop: pending, .. } = context;
        let proxy = start_egress(context, &configuration.egress_ports).await?;
        let (first, desktop) = match configuration.purpose {
            Purpose::SignIn { desktop } => (FirstPage::Waiting, desktop),
            Purpose::Template {} => (FirstPage::Waiting, Desktop::Used),
            Purpose::Verification {} => (FirstPage::Verification, Desktop::Used),
        };
        let page = WaitingPage::serve(first).await?;
        if first == FirstPage::Verification {
            // Before the first program is opened.
            let checker = Checker {
                guest: guest.clone(),
                supervisor: supervisor.clone(),
                page: page.found(),
                opened: OpenedFiles::watch(),
            };
            context.checker.send_replace(Some(Rc::new(checker)));
        }
        let screen = configuration.screen;
        let (spec, address) = x::spec(guest, screen, pending, &supervisor.reporter);
        supervisor.spawn(spec);
        let Ok(display) = address.await else {
            let failure = failures.recv().await;
            return Err(failure.unwrap_or_else(|| anyhow!("the X server did not start")));
        };
        // Where an image is verified, a desktop that cannot live does not end the look at the rest.
        let needed = first == FirstPage::Waiting;
        let spec = window_manager::spec(guest, &display, pending);
        supervisor.spawn(ServiceSpec { needed, ..spec });
        let browser = Browser {
            guest: guest.clone(),
            supervisor: supervisor.clone(),
            display: display.clone(),
            screen,
            proxy,
            page,
            has_spare_renderer: configuration.purpose == Purpose::Template {},
            wanted: watch::channel(desktop == Desktop::Used).0,
        };
        browser.spawn(pending, needed);
        for service in &configuration.services {
            supervisor.spawn(declared::spec(service, guest, &display));
        }
        Ok(Self { failures, browser, desktop, runs_already: false })
    }

    /// Runs a sign-in beside them, to its end.
    pub fn sign_in(&self, context: &Context, trust: Trust, begin: BeginSignIn) {
        let sign_in = sign_in::Context {
            guest: context.guest.clone(),
            supervisor: context.supervisor.clone(),
            priority: match (self.desktop, self.runs_already) {
                // The browser takes longest: the CLI is done long before it, also with what it leaves.
                (Desktop::Used, false) => Priority::Low,
                (Desktop::Used, true) | (Desktop::OnDemand, _) => Priority::Normal,
            },
            display: self.browser.display.name(),
            proxy: self.browser.proxy,
            trust,
            terminal: context.terminal.clone(),
            signals: context.signals.clone(),
        };
        let (supervisor, run) = (context.supervisor.clone(), sign_in::run(sign_in, begin));
        tokio::task::spawn_local(async move {
            if let Err(error) = run.await {
                supervisor.fail(error).await;
            }
        });
    }

    /// Those of a clone, which run: its X server gets a cookie of its own.
    pub fn are_cloned(&mut self, guest: &Guest) -> Result<()> {
        self.runs_already = true;
        self.browser.display.change_cookie(guest)
    }

    /// The first thing that went wrong for good.
    pub async fn failure(&mut self) -> Error {
        match self.failures.recv().await {
            Some(error) => error,
            None => std::future::pending().await,
        }
    }

    /// Has the browser show a page, and starts it if it does not run.
    pub fn open_sign_in_page(&self, url: &str) {
        self.browser.open_sign_in_page(url);
    }
}

/// Starts what carries connections to the host; the proxy's address.
async fn start_egress(context: &Context, ports: &[u16]) -> Result<SocketAddr> {
    let way_out = egress::WayOut::new(context.opener.subscribe());
    let reporter = &context.supervisor.reporter;
    let proxy = egress::start_proxy(way_out.clone(), reporter.clone()).await?;
    if context.guest.kind == GuestKind::Vm {
        egress::take_the_rest(&way_out, reporter, ports)
            .await
            .context("taking in connections without a proxy failed")?;
    }
    Ok(proxy)
}

/// Ends every process of the sandbox: asks, waits, kills. For the host driver; a guest just ends.
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
