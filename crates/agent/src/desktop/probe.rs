//! Whether a service answers: looked at from outside, as its users would.

use std::time::Duration;

use anteroom_guest_protocol::Probe;
use anyhow::{Result, bail};
use futures::future::LocalBoxFuture;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpStream, UnixStream};
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{AtomEnum, ConnectionExt as _, MapState, Window};

use super::display::server::DisplayAddress;
use crate::guest::Guest;

/// Between two looks.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// How long one look may take: something that takes connections and says nothing has not answered.
pub const LONGEST_LOOK: Duration = Duration::from_secs(2);

/// Windows that are looked through.
const MAX_WINDOWS: usize = 500;

/// Looks at services. Cheap to clone.
#[derive(Clone)]
pub struct Prober {
    /// Where they run.
    pub guest: Guest,
    /// Their screen.
    pub display: DisplayAddress,
}

/// A probe as a sentence names it.
pub fn describe(probe: &Probe) -> String {
    match probe {
        Probe::Port(port) => format!("port {port}"),
        Probe::Greeting { port, begins } => format!("the greeting {begins:?} on port {port}"),
        Probe::Socket(path) => format!("socket {path}"),
        Probe::File(path) => format!("file {path}"),
        Probe::Window(class) => format!("a window of class {class}"),
    }
}

impl Prober {
    /// Resolves when the service answers.
    pub fn answers(&self, probe: &Probe) -> LocalBoxFuture<'static, Result<()>> {
        let (prober, probe) = (self.clone(), probe.clone());
        Box::pin(async move {
            let look = || tokio::time::timeout(LONGEST_LOOK, prober.look(&probe));
            while !matches!(look().await, Ok(Ok(()))) {
                tokio::time::sleep(LOOK_AGAIN).await;
            }
            Ok(())
        })
    }

    async fn look(&self, probe: &Probe) -> Result<()> {
        match probe {
            Probe::Port(port) => drop(TcpStream::connect(("127.0.0.1", *port)).await?),
            Probe::Greeting { port, begins } => {
                let mut stream = TcpStream::connect(("127.0.0.1", *port)).await?;
                let mut said = vec![0; begins.len()];
                stream.read_exact(&mut said).await?;
                if said != begins.as_bytes() {
                    bail!("it sends something else");
                }
            }
            Probe::Socket(path) => drop(UnixStream::connect(self.guest.resolve(path)).await?),
            Probe::File(path) => {
                std::fs::metadata(self.guest.resolve(path))?;
            }
            Probe::Window(class) => {
                if !self.shows(class)? {
                    bail!("there is no such window");
                }
            }
        }
        Ok(())
    }

    /// Whether a window of this class is on the screen (ICCCM, WM_CLASS: instance and class, each
    /// ended by NUL).
    fn shows(&self, class: &str) -> Result<bool> {
        let connection = self.display.connect()?;
        let mut left = MAX_WINDOWS;
        let mut windows: Vec<Window> = vec![connection.setup().roots[0].root];
        while let Some(window) = windows.pop() {
            left = left.saturating_sub(1);
            if left == 0 {
                return Ok(false);
            }
            let property = connection
                .get_property(false, window, AtomEnum::WM_CLASS, AtomEnum::STRING, 0, 64)?
                .reply()?;
            let is = property.value.split(|byte| *byte == 0).any(|name| name == class.as_bytes());
            let attributes = connection.get_window_attributes(window)?.reply()?;
            if is && attributes.map_state == MapState::VIEWABLE {
                return Ok(true);
            }
            windows.extend(connection.query_tree(window)?.reply()?.children);
        }
        Ok(false)
    }
}
