//! A virtio-serial port as a byte stream that outlives its hosts: one that goes away is waited for.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker, ready};

use anyhow::{Context, Result};
use futures::task::AtomicWaker;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use tokio::io::ReadBuf;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::poll_proceed;

use super::watched::watched;

/// An open port.
#[derive(Debug)]
pub struct Port {
    file: File,
    changes: Changes,
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
        Ok(Self { changes: Changes::of(&file)?, file })
    }

    /// Reads at least one byte.
    pub fn poll_read(
        &self,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let turn = ready!(poll_proceed(cx));
        self.changes.waiting.reader.register(cx.waker());
        let read = || (&self.file).read(buffer.initialize_unfilled());
        let count = ready!(self.changes.poll_until(read))?;
        turn.made_progress();
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }

    /// Writes at least one byte.
    pub fn poll_write(&self, cx: &mut TaskContext<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let turn = ready!(poll_proceed(cx));
        self.changes.waiting.writer.register(cx.waker());
        let count = ready!(self.changes.poll_until(|| (&self.file).write(bytes)))?;
        turn.made_progress();
        Poll::Ready(Ok(count))
    }
}

/// When a port may be tried again. Its own descriptor hangs up while no host is at the other side, and Tokio
/// takes that for the end: whoever waits for it is woken for ever, also after another host came. So Tokio
/// watches an `epoll` with the port in it, which only says that something changed and never hangs up.
///
/// One for both directions: the driver's `poll` takes what has arrived from the queue, whatever it is asked
/// for, and the interrupt of a queue with nothing in it wakes nobody (`port_fops_poll`, `vring_interrupt` of
/// Linux 6.1). With one each, the writer's look hid a message from the reader, in 1 boot of 100.
#[derive(Debug)]
struct Changes {
    epoll: AsyncFd<OwnedFd>,
    waiting: Arc<Waiting>,
    waker: Waker,
}

impl Changes {
    fn of(port: &File) -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let of = EventFlags::IN | EventFlags::OUT | EventFlags::ET;
        epoll::add(&epoll, port, EventData::new_u64(0), of)?;
        let waiting = Arc::new(Waiting::default());
        Ok(Self { epoll: watched(epoll)?, waker: waiting.clone().into(), waiting })
    }

    /// Tries until some bytes went, again after each change. Where 0 went, no host is there.
    fn poll_until(
        &self,
        mut attempt: impl FnMut() -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match attempt() {
                Ok(0) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                result => return Poll::Ready(result),
            }
            let mut both = TaskContext::from_waker(&self.waker);
            let mut changed = ready!(self.epoll.poll_read_ready(&mut both))?;
            // What changed since the attempt is there to be taken, or comes as a new event.
            if !self.take()? {
                changed.clear_ready();
            }
        }
    }

    /// Takes a change, if there was one.
    fn take(&self) -> io::Result<bool> {
        let mut event = [epoll::Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }];
        let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
        Ok(epoll::wait(&self.epoll, &mut event, Some(&at_once))? > 0)
    }
}

/// Who waits for a change. A change of either direction wakes both, and each tries before it waits again. On one
/// thread that is enough: who sleeps found nothing after the last change that was taken.
#[derive(Debug, Default)]
struct Waiting {
    reader: AtomicWaker,
    writer: AtomicWaker,
}

impl Wake for Waiting {
    fn wake(self: Arc<Self>) {
        self.reader.wake();
        self.writer.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;
    use std::time::Duration;

    use tokio::sync::Notify;
    use tokio::task::{LocalSet, spawn_local};
    use tokio::time::timeout;

    use super::*;

    /// Nobody is polled for so long: each waits.
    const SETTLED: Duration = Duration::from_millis(100);

    /// Reads one byte, unless there is none for a while; and how often it was polled.
    async fn byte(port: &Port) -> (Option<u8>, usize) {
        let (mut polls, mut byte) = (0, [0]);
        let read = poll_fn(|cx| {
            polls += 1;
            port.poll_read(cx, &mut ReadBuf::new(&mut byte))
        });
        let read = timeout(Duration::from_millis(200), read).await;
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

    /// Both directions wait, one behind the other, and one change lets either go on.
    #[tokio::test]
    async fn a_change_wakes_whoever_waits_in_either_direction() {
        for reader_is_first in [true, false] {
            LocalSet::new().run_until(one_goes_on(reader_is_first)).await;
        }
    }

    /// The one that waited first goes on, though the other's waker came after its own.
    async fn one_goes_on(reader_is_first: bool) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut filler = ours.try_clone().unwrap();
        while filler.write(&[0; 4096]).is_ok() {}
        let port = Rc::new(Port::of(File::from(OwnedFd::from(ours))).unwrap());
        let waiting = Rc::new(Notify::new());
        let tasks = [reader_is_first, !reader_is_first].map(|reads| {
            let (port, waiting) = (port.clone(), waiting.clone());
            spawn_local(poll_fn(move |cx| {
                let done = if reads {
                    port.poll_read(cx, &mut ReadBuf::new(&mut [0])).map_ok(|()| 1)
                } else {
                    port.poll_write(cx, &[0])
                };
                waiting.notify_one();
                done
            }))
        });
        let [first, second] = tasks;
        while timeout(SETTLED, waiting.notified()).await.is_ok() {}
        if reader_is_first {
            theirs.write_all(&[7]).unwrap();
        } else {
            theirs.set_nonblocking(true).unwrap();
            while theirs.read(&mut [0; 4096]).is_ok_and(|count| count > 0) {}
        }
        let went_on = timeout(Duration::from_secs(5), first).await.expect("the first is woken");
        assert_eq!(went_on.unwrap().unwrap(), 1);
        second.abort();
    }
}
