//! Chromium: how it is started, and how it is led to the sign-in page.
//!
//! It starts on a waiting page of the agent, and each start is observed: the browser is ready when
//! it has asked for that page. Starting `chromium URL` a second time took 14 s under emulation, so
//! the waiting page leads on by itself once the URL is known.

mod trust;
mod waiting_page;

use std::net::SocketAddr;
use std::process::Command;

use anteroom_guest_protocol::ScreenSize;

pub use trust::{Trust, trust_extra_authorities};
pub use waiting_page::WaitingPage;

use crate::room::{Room, RoomKind};

/// Chromium on the waiting page. Its own address bar stays in the picture: the person sees whose
/// page they type into, and no page can draw over it.
pub fn command(
    room: &Room,
    display: &str,
    screen: ScreenSize,
    proxy: SocketAddr,
    page: &str,
) -> Command {
    let mut command = room.command("chromium");
    command.env("DISPLAY", display);
    command.arg(format!("--user-data-dir={}", room.home.join(".chromium").display()));
    command.arg(format!("--proxy-server=http://{proxy}"));
    command.arg(format!("--window-size={},{}", screen.width, screen.height));
    command.args(QUIET);
    if room.kind == RoomKind::Host && !user_namespaces_work() {
        // The host driver promises no isolation; in a guest the sandbox is always on.
        command.arg("--no-sandbox");
    }
    if room.kind == RoomKind::Host {
        // No bar about unusual flags over the page; in a guest a managed policy says so.
        command.arg("--test-type");
    }
    command.arg(page);
    command
}

/// What keeps Chromium from talking to anyone but the pages it is sent to, beside the managed
/// policies of the image, and from drawing what nobody asked for.
const QUIET: [&str; 26] = [
    // Its own account and messaging services have no policy that silences them: they are sent to a
    // closed port of the guest itself.
    "--gaia-url=http://127.0.0.1:9",
    "--gcm-checkin-url=http://127.0.0.1:9/checkin",
    "--component-updater=url-source=http://127.0.0.1:9/",
    "--apps-gallery-update-url=http://127.0.0.1:9/",
    "--window-position=0,0",
    "--no-first-run",
    "--no-default-browser-check",
    "--no-service-autorun",
    "--no-pings",
    "--password-store=basic",
    "--disable-background-networking",
    "--disable-breakpad",
    "--disable-client-side-phishing-detection",
    "--disable-component-extensions-with-background-pages",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-domain-reliability",
    "--disable-extensions",
    "--disable-field-trial-config",
    "--disable-gpu",
    "--disable-infobars",
    "--disable-quic",
    "--disable-search-engine-choice-screen",
    "--disable-sync",
    "--hide-crash-restore-bubble",
    "--disable-features=OptimizationHints,OptimizationGuideModelDownloading,MediaRouter,Translate,\
     AutofillServerCommunication,CertificateTransparencyComponentUpdater,InterestFeedContentSuggestions,\
     DialMediaRouteProvider,GlobalMediaControls,NetworkTimeServiceQuerying",
];

/// Whether an unprivileged process may make the namespaces that Chromium's sandbox is built on.
fn user_namespaces_work() -> bool {
    Command::new("unshare")
        .args(["--user", "--pid", "--fork", "true"])
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
