//! Chromium: how it is started, and how it is led to the sign-in page.
//!
//! It starts on a waiting page of the agent, and each start is observed: the browser is ready when
//! it has asked for that page and its window is on the screen. Starting `chromium URL` a second time took 14 s under emulation, so
//! the waiting page leads on by itself once the URL is known.

pub mod console;
mod titles;
mod trust;
mod waiting_page;
mod window;

use std::net::SocketAddr;
use std::process::Command;

use anteroom_guest_protocol::ScreenSize;

pub use titles::report as report_titles;
pub use trust::{Trust, trust_extra_authorities};
pub use waiting_page::{FirstPage, WaitingPage};
pub use window::shown;

use crate::sandbox::{Sandbox, SandboxKind};
use crate::supervise::run_to_end;

/// Chromium on the waiting page. Its own address bar stays in the picture: the person sees whose
/// page they type into, and no page can draw over it.
pub fn command(
    sandbox: &Sandbox,
    display: &str,
    screen: ScreenSize,
    proxy: SocketAddr,
    page: &str,
) -> Command {
    let mut command = sandbox.browser();
    command.env("DISPLAY", display);
    command.arg(format!("--user-data-dir={}", sandbox.home.join(".chromium").display()));
    command.arg(format!("--proxy-server=http://{proxy}"));
    // Chromium goes by the address that answers, which is the proxy's for all pages: without this
    // each would count as one of the guest's own, and may call the port where a CLI waits.
    command.arg(format!("--ip-address-space-overrides={proxy}=public"));
    command.arg(format!("--window-size={},{}", screen.width, screen.height));
    command.args(flags());
    command.args(console::FLAGS);
    if let Some(locale) = &sandbox.end_user.locale {
        let language = locale.tag.split('-').next().unwrap_or_default();
        command.arg(format!("--lang={}", locale.tag));
        command.arg(format!("--accept-lang={},{language},en", locale.tag));
    }
    if sandbox.kind == SandboxKind::Host && !user_namespaces_work() {
        // The host driver promises no isolation; in a guest the sandbox is always on.
        command.arg("--no-sandbox");
    }
    if sandbox.kind == SandboxKind::Host {
        // No bar about unusual flags over the page; in a guest a managed policy says so.
        command.arg("--test-type");
    }
    command.arg(page);
    command
}

/// Flags that are the same for every session, each with its reason.
const FLAGS: &str = include_str!("flags.txt");

fn flags() -> impl Iterator<Item = &'static str> {
    FLAGS.lines().filter(|line| line.starts_with("--"))
}

/// Whether an unprivileged process may make the namespaces that Chromium's sandbox is built on.
fn user_namespaces_work() -> bool {
    run_to_end(Command::new("unshare").args(["--user", "--pid", "--fork", "true"]))
        .is_ok_and(|output| output.status.success())
}
