//! Chromium's command.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use anteroom_guest_protocol::ScreenSize;

use super::console;
use crate::desktop::opener;
use crate::guest::{Guest, GuestKind};
use crate::supervise::run_to_end;

/// Chromium on the waiting page. Its own address bar stays in the picture: the end user sees whose
/// page they type into, and no page can draw over it.
pub fn command(
    guest: &Guest,
    display: &str,
    screen: ScreenSize,
    proxy: SocketAddr,
    page: &str,
    has_spare_renderer: bool,
) -> Command {
    let mut command = chromium(guest);
    command.env("DISPLAY", display);
    command.arg(format!("--user-data-dir={}", guest.home.join(".chromium").display()));
    command.arg(format!("--proxy-server=http://{proxy}"));
    // Chromium goes by the address that answers, which is the proxy's for all pages: without this
    // each would count as one of the guest's own, and may call the port where a CLI waits.
    command.arg(format!("--ip-address-space-overrides={proxy}=public"));
    command.arg(format!("--window-size={},{}", screen.width, screen.height));
    command.args(flags(has_spare_renderer));
    if has_spare_renderer {
        command.arg(ONE_SPARE_RENDERER);
    }
    command.args(console::FLAGS);
    if let Some(locale) = guest.locale() {
        command.arg(format!("--lang={locale}"));
        command.arg(format!("--accept-lang={locale},{},en", locale.language()));
    }
    if guest.kind == GuestKind::Host && !user_namespaces_work() {
        // The host driver promises no isolation; in a guest the sandbox is always on.
        command.arg("--no-sandbox");
    }
    if guest.kind == GuestKind::Host {
        // No bar about unusual flags over the page; in a guest a managed policy says so.
        command.arg("--test-type");
    }
    command.arg(page);
    command
}

/// The browser itself, which its own name on the sandbox's PATH does not start.
fn chromium(guest: &Guest) -> Command {
    let name = "chromium";
    let real = opener::behind(name.as_ref(), &guest.path_variable(), &guest.openers());
    // By its path also where there is none: that is what is missing then.
    let path = real.unwrap_or_else(|| Path::new("/usr/bin").join(name));
    let mut command = guest.command(&path.to_string_lossy());
    command.env(opener::REAL_BROWSER_ENV, "1");
    command
}

/// Flags that are the same for every session, each with its reason.
const FLAGS: &str = include_str!("flags.txt");

/// What has Chromium start no renderer ahead of need, among the features that are off.
const NO_SPARE_RENDERER: &str = "SpareRendererForSitePerProcess,";

/// The first page has a renderer, and another is ahead: once that has a page too, no further one is ahead. Pages
/// of other sites get theirs all the same.
const ONE_SPARE_RENDERER: &str = "--renderer-process-limit=2";

fn flags(has_spare_renderer: bool) -> impl Iterator<Item = String> {
    let flags = FLAGS.lines().filter(|line| line.starts_with("--"));
    flags.map(move |flag| match has_spare_renderer {
        true => flag.replace(NO_SPARE_RENDERER, ""),
        false => flag.to_owned(),
    })
}

/// Whether an unprivileged process may make the namespaces that Chromium's sandbox is built on.
fn user_namespaces_work() -> bool {
    run_to_end(Command::new("unshare").args(["--user", "--pid", "--fork", "true"]))
        .is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_where_it_is_wanted_a_renderer_is_ahead() {
        let mentions = |wanted| flags(wanted).any(|flag| flag.contains("SpareRenderer"));
        assert!(mentions(false) && !mentions(true));
        assert_eq!(flags(true).count(), flags(false).count());
    }
}
