//! The X server as a service. Everything drawn is lost with it: it is never started again.

use std::cell::Cell;
use std::time::Duration;

use anteroom_guest_protocol::ScreenSize;
use anyhow::Context;
use tokio::sync::oneshot;

use super::display::server::{self, DisplayAddress};
use super::pending::PendingDesktop;
use crate::guest::Guest;
use crate::report::Reporter;
use crate::supervise::{Launch, Readiness, ServiceSpec};

/// Its name, by which its clients know whom they die with.
pub const NAME: &str = "x";

/// How long it may take, under emulation on a busy host.
const READY: Duration = Duration::from_secs(60);

/// The service, and its address as soon as clients can be started; that it is ready comes later.
pub fn spec(
    guest: &Guest,
    screen: ScreenSize,
    desktop: &PendingDesktop,
    reporter: &Reporter,
) -> (ServiceSpec, oneshot::Receiver<DisplayAddress>) {
    let (known, address) = oneshot::channel();
    let known = Cell::new(Some(known));
    let (guest, desktop, reporter) = (guest.clone(), desktop.clone(), reporter.clone());
    let spec = ServiceSpec::new(NAME, "the X server", move || {
        let known = known.take().context("the X server is started only once")?;
        let (command, starting) = server::prepare(&guest, screen)?;
        let (desktop, reporter) = (desktop.clone(), reporter.clone());
        let probe = async move {
            // Whoever waited for it may have given up.
            let _ = known.send(starting.takes_clients().await);
            desktop.connect(&starting.ready().await?, &reporter)
        };
        let asked = "its display number".to_owned();
        let readiness = Readiness { asked, deadline: READY, probe: Box::pin(probe) };
        Ok(Launch { command, readiness: Some(readiness), watchdog: None })
    });
    (spec, address)
}
