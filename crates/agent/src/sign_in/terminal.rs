//! The CLI's terminal as its host sees it: what is written is kept until the host takes it, what the
//! host types is written to it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::Duration;

use anteroom_guest_link::{LinkError, LinkStream};
use anyhow::{Context, Result};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::sync::Notify;
use tokio::time::Instant;

/// Bytes that are kept for a host that does not take them; older ones go.
const KEPT: usize = 256 * 1024;

/// A terminal's host side. Cheap to clone.
#[derive(Clone)]
pub struct Terminal {
    written: Rc<RefCell<VecDeque<u8>>>,
    grew: Rc<Notify>,
    keys: Rc<RefCell<Option<pipe::Sender>>>,
    wrote_at: Rc<Cell<Instant>>,
    passed: Rc<Cell<u64>>,
}

impl Terminal {
    /// Of the pseudo-terminal with this master, and what its programs write.
    pub fn new(master: OwnedFd) -> Result<(Self, pipe::Receiver)> {
        // A terminal's master is read and written like a pipe: it is polled, and its end is an error.
        let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL)?);
        fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let master = File::from(master);
        let keys = pipe::Sender::from_file_unchecked(master.try_clone()?)
            .context("writing to the terminal failed")?;
        let output =
            pipe::Receiver::from_file_unchecked(master).context("watching the terminal failed")?;
        let keys = Rc::new(RefCell::new(Some(keys)));
        let wrote_at = Rc::new(Cell::new(Instant::now()));
        let (written, grew, passed) = (Rc::default(), Rc::default(), Rc::default());
        Ok((Self { written, grew, keys, wrote_at, passed }, output))
    }

    /// Keeps what was written for the host.
    pub fn wrote(&self, bytes: &[u8]) {
        let mut written = self.written.borrow_mut();
        written.extend(bytes);
        let beyond = written.len().saturating_sub(KEPT);
        written.drain(..beyond);
        drop(written);
        self.wrote_at.set(Instant::now());
        self.grew.notify_one();
    }

    /// The CLI wrote what is kept back.
    pub fn wrote_in_secret(&self) {
        self.wrote_at.set(Instant::now());
    }

    /// Bytes that the host has taken or will take of what was written so far.
    pub fn bytes(&self) -> u64 {
        self.passed.get() + self.written.borrow().len() as u64
    }

    /// Returns when nothing has been written for so long, counted from now at the earliest.
    pub async fn quiet(&self, period: Duration) {
        let since = Instant::now();
        loop {
            let quiet_at = self.wrote_at.get().max(since) + period;
            if Instant::now() >= quiet_at {
                return;
            }
            tokio::time::sleep_until(quiet_at).await;
        }
    }

    /// Serves the host's stream until it ends.
    pub async fn serve(&self, stream: LinkStream) -> Result<(), LinkError> {
        let (mut typed, mut shown) = tokio::io::split(stream);
        // One stream a session, so the keys are its own.
        let Some(mut keys) = self.keys.borrow_mut().take() else { return Ok(()) };
        let show = async {
            loop {
                let bytes: Vec<u8> = self.written.borrow_mut().drain(..).collect();
                if bytes.is_empty() {
                    self.grew.notified().await;
                    continue;
                }
                self.passed.set(self.passed.get() + bytes.len() as u64);
                shown.write_all(&bytes).await?;
                shown.flush().await?;
            }
        };
        let write = async {
            let mut buffer = [0; 1024];
            loop {
                let count = typed.read(&mut buffer).await?;
                if count == 0 {
                    return Ok::<(), LinkError>(());
                }
                // A CLI that is gone takes no keys; its last output is still to be shown.
                let _ = keys.write_all(&buffer[..count]).await;
            }
        };
        tokio::select! { shown = show => shown, typed = write => typed }
    }
}
