//! The browser as a service.

use std::net::SocketAddr;
use std::time::Duration;

use anteroom_guest_protocol::{GuestMessage, ScreenSize};
use anyhow::Result;
use tokio::sync::watch;

use super::waiting_page::WaitingPage;
use super::{command, console, titles, window};
use crate::desktop::display::server::DisplayAddress;
use crate::desktop::pending::PendingDesktop;
use crate::desktop::x;
use crate::guest::Guest;
use crate::supervise::{
    Launch, Output, Process, Readiness, RestartPolicy, ServiceSpec, Supervisor,
};

const NAME: &str = "browser";

/// How long it may take: under emulation with a busy host a cold Chromium takes most of a minute.
const READY: Duration = Duration::from_secs(240);

/// How long the browser may take to ask for its page before it is given it once more: on a machine so busy
/// that its network process takes more than some 20 s to start, it ends that, starts another, and has
/// forgotten the page.
const PAGE_AGAIN: Duration = Duration::from_secs(60);

/// How often it is started again after a crash.
const RESTARTS: u32 = 3;

/// How often the end user may close its window.
const CLOSED: u32 = 20;

/// The desktop's browser. Cheap to clone.
#[derive(Clone)]
pub struct Browser {
    /// Where it runs.
    pub guest: Guest,
    /// Who keeps it.
    pub supervisor: Supervisor,
    /// Its X server.
    pub display: DisplayAddress,
    /// That one's screen.
    pub screen: ScreenSize,
    /// How it reaches the network.
    pub proxy: SocketAddr,
    /// Where it starts.
    pub page: WaitingPage,
    /// Whether it starts the renderer of a page before there is one to show.
    pub has_spare_renderer: bool,
    /// Whether it is to run.
    pub wanted: watch::Sender<bool>,
}

impl Browser {
    /// Keeps it from when it is wanted on, and reports each time that it goes on to a sign-in page.
    pub fn spawn(&self, desktop: &PendingDesktop, needed: bool) {
        let spec = ServiceSpec { needed, ..self.spec(desktop) };
        let browser = self.clone();
        tokio::task::spawn_local(async move {
            // Its sender lives as long as the browser.
            let _ = browser.wanted.subscribe().wait_for(|wanted| *wanted).await;
            titles::report(&browser.display, browser.supervisor.reporter.clone());
            browser.supervisor.spawn(spec);
        });
        let (page, reporter) = (self.page.clone(), self.supervisor.reporter.clone());
        tokio::task::spawn_local(async move {
            loop {
                page.led_on().await;
                reporter.report(GuestMessage::SignInPageOpened {}).await;
            }
        });
    }

    /// Has it show a page, and starts it if it does not run.
    pub fn open_sign_in_page(&self, url: &str) {
        let leads_on_itself = self.page.lead_to(url);
        let was_wanted = self.wanted.send_replace(true);
        if was_wanted && !leads_on_itself {
            self.open_first_page();
        }
    }

    fn spec(&self, desktop: &PendingDesktop) -> ServiceSpec {
        let (browser, desktop) = (self.clone(), desktop.clone());
        let launch = move || {
            let probe = Box::pin(browser.clone().shown(desktop.clone()));
            let asked = "its window on the screen".to_owned();
            let readiness = Some(Readiness { asked, deadline: READY, probe });
            Ok(Launch { command: browser.command(), readiness, watchdog: None })
        };
        ServiceSpec {
            restart: RestartPolicy::AtOnce { failures: RESTARTS, deaths: CLOSED },
            client_of: Some(x::NAME),
            filter: console::look,
            ..ServiceSpec::new(NAME, "the browser", launch)
        }
    }

    /// Returns when it has asked for its page and its window is on the screen.
    async fn shown(self, desktop: PendingDesktop) -> Result<()> {
        while tokio::time::timeout(PAGE_AGAIN, self.page.asked()).await.is_err() {
            self.supervisor
                .reporter
                .note("the browser requested no page; it is given the page again");
            self.open_first_page();
        }
        desktop.ready().await?;
        window::shown(&self.display).await
    }

    fn command(&self) -> std::process::Command {
        let Self { guest, display, screen, proxy, page, has_spare_renderer, .. } = self;
        let (display, page) = (display.name(), page.address());
        command::command(guest, &display, *screen, *proxy, &page, *has_spare_renderer)
    }

    /// Has the running browser open its first page once more, which leads on: a second start hands the
    /// address to the first and exits.
    fn open_first_page(&self) {
        let Supervisor { reaper, reporter, .. } = &self.supervisor;
        let output = Output { filter: console::look, ..Output::default() };
        if let Err(error) = Process::start(NAME, self.command(), output, reaper, reporter) {
            reporter.note(&format!("showing the page again failed: {error:#}"));
        }
    }
}
