//! The desktop's picture and input, which are there once X is.

use anyhow::{Context, Result};
use tokio::sync::watch;

use super::display::Pixels;
use super::display::server::DisplayAddress;
use super::input::Input;
use crate::report::Reporter;

/// The desktop's two sides.
#[derive(Clone)]
pub struct Desktop {
    /// To the host.
    pub pixels: Pixels,
    /// From the host.
    pub input: Input,
}

/// The desktop as soon as X is ready. Cheap to clone.
#[derive(Clone)]
pub struct PendingDesktop(watch::Sender<Option<Desktop>>);

impl PendingDesktop {
    /// Of an X server that is yet to start.
    pub fn new() -> Self {
        Self(watch::channel(None).0)
    }

    /// Connects to the X server, which is ready.
    pub fn connect(&self, address: &DisplayAddress, reporter: &Reporter) -> Result<()> {
        self.0.send_replace(Some(Desktop {
            pixels: Pixels::capture(address, reporter.clone())?,
            input: Input::start(address, reporter.clone())?,
        }));
        Ok(())
    }

    /// Waits for it.
    pub async fn ready(&self) -> Result<Desktop> {
        let mut watched = self.0.subscribe();
        let desktop = watched.wait_for(Option::is_some).await?.clone();
        desktop.context("the desktop is gone")
    }
}
