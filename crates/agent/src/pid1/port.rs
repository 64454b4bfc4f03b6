//! A virtio-serial port as a byte stream that outlives its hosts: one that goes away is waited for.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::task::{Context as TaskContext, Poll, ready};

use anyhow::{Context, Result};
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;

use super::watched::watched;

/// An open port.
#[derive(Debug)]
pub struct Port {
    file: File,
    readable: Edges,
    writable: Edges,
}

impl Port {
    /// Opens the port with this path.
    pub fn open(path: &Path) -> Result<Self> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
            .open(path)
            .and_then(Self::of)
            .with_context(|| format!("opening {} failed", path.display()))
    }

    fn of(file: File) -> io::Result<Self> {
        let readable = Edges::of(&file, EventFlags::IN)?;
        let writable = Edges::of(&file, EventFlags::OUT)?;
        Ok(Self { file, readable, writable })
    }

    /// Reads at least one byte.
    pub fn poll_read(
        &self,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = || (&self.file).read(buffer.initialize_unfilled());
        let count = ready!(self.readable.poll_until(cx, read))?;
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }

    /// Writes at least one byte.
    pub fn poll_write(&self, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.writable.poll_until(cx, || (&self.file).write(bytes))
    }
}

/// When a port may be tried again. Its own descriptor hangs up while no host is at the other side, and Tokio
/// takes that for the end: whoever waits for it is woken for ever, also after another host came. So Tokio
/// watches an `epoll` with the port in it, which only says that something changed and never hangs up.
#[derive(Debug)]
struct Edges(AsyncFd<OwnedFd>);

impl Edges {
    fn of(port: &File, of: EventFlags) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, port, EventData::new_u64(0), of | EventFlags::ET)?;
        Ok(Self(watched(epoll)?))
    }

    /// Tries until some bytes went, again after each change. Where 0 went, no host is there.
    fn poll_until(
        &self,
        cx: &mut TaskContext<'_>,
        mut attempt: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            match attempt() {
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return Poll::Ready(result),
            }
            // What changed since the attempt is there to be taken, or comes as a new event.
            if !self.take()? {
                ready.clear_ready();
            }
        }
    }

    /// Takes a change, if there was one.
    fn take(&self) -> io::Result<bool> {
        let mut event = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(epoll::wait(&self.0, &mut event, Some(&at_once))? > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::time::Duration;

    use super::*;

    /// Reads one byte, unless there is none for a while; and how often it was polled.
    async fn byte(port: &Port) -> (Option<u8>, usize) {
        let (mut polls, mut byte) = (0, [0]);
        let read = poll_fn(|cx| {
            polls += 1;
            port.poll_read(cx, &mut ReadBuf::new(&mut byte))
        });
        let read = tokio::time::timeout(Duration::from_millis(200), read).await;
        (read.ok().map(|read| read.map(|()| byte[0]).unwrap()), polls)
    }

    /// A FIFO hangs up, and reads nothing, while nobody has it open to write, as a port does without a host.
    #[tokio::test]
    async fn a_host_that_went_away_is_waited_for_at_rest_and_another_is_heard() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("port");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let nonblocking = || {
            let mut options = OpenOptions::new();
            options.custom_flags(libc::O_NONBLOCK);
            options
        };
        let port = Port::of(nonblocking().read(true).open(&path).unwrap()).unwrap();
        for said in [1, 2, 3] {
            let mut host = nonblocking().write(true).open(&path).unwrap();
            host.write_all(&[said]).unwrap();
            assert_eq!(byte(&port).await.0, Some(said));
            drop(host);
            let (none, polls) = byte(&port).await;
            assert!(none.is_none() && polls < 8, "{none:?} after {polls} polls");
        }
    }
}
