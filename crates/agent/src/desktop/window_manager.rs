//! The window manager as a service.

use std::time::Duration;

use anyhow::Result;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt as _};

use super::display::server::DisplayAddress;
use super::pending::PendingDesktop;
use super::x;
use crate::guest::Guest;
use crate::supervise::{Launch, Priority, Readiness, RestartPolicy, ServiceSpec};

/// How long it may take, under emulation on a busy host.
const READY: Duration = Duration::from_secs(60);

/// How often it is started again after a death.
const RESTARTS: u32 = 3;

/// How often is looked whether it manages.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The service. A browser that has its window before there is a window manager is taken over by it.
pub fn spec(guest: &Guest, display: &DisplayAddress, desktop: &PendingDesktop) -> ServiceSpec {
    let (guest, display, desktop) = (guest.clone(), display.clone(), desktop.clone());
    let launch = move || {
        let mut command = guest.command("openbox");
        command.env("DISPLAY", display.name());
        let (display, desktop) = (display.clone(), desktop.clone());
        let probe = Box::pin(async move {
            // Before X is ready a connection would wait, and this thread with it.
            desktop.ready().await?;
            manages(&display).await
        });
        let asked = "its mark on the root window".to_owned();
        let readiness = Some(Readiness { asked, deadline: READY, probe });
        Ok(Launch { command, readiness, watchdog: None })
    };
    ServiceSpec {
        restart: RestartPolicy::AtOnce { failures: RESTARTS, deaths: RESTARTS + 1 },
        priority: Priority::Low,
        client_of: Some(x::NAME),
        ..ServiceSpec::new("window-manager", "the window manager", launch)
    }
}

/// A window manager says that it manages by a property of the root window (EWMH,
/// `_NET_SUPPORTING_WM_CHECK`). There is no event to wait for that all of them send, so look.
async fn manages(display: &DisplayAddress) -> Result<()> {
    let connection = display.connect()?;
    let root = connection.setup().roots[0].root;
    let check = connection.intern_atom(false, b"_NET_SUPPORTING_WM_CHECK")?.reply()?.atom;
    loop {
        let property =
            connection.get_property(false, root, check, AtomEnum::WINDOW, 0, 1)?.reply()?;
        if property.value_len == 1 {
            return Ok(());
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
