//! What Firecracker writes for us: lines on a pipe that has no name, so that nobody else reads or writes
//! it.

use std::cell::{Ref, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::net::unix::pipe;
use tokio::task::JoinHandle;

/// Takes lines, and keeps what it needs of them.
pub trait TakeLines {
    /// Longest line that is read as one, in bytes.
    const LONGEST_LINE: u64;

    /// Takes a line, or a piece of one that is too long.
    fn take(&mut self, line: &[u8]);

    /// There will be no more.
    fn end(&mut self) {}
}

/// Lines that are taken as they come, until Firecracker closes their pipe.
pub struct Followed<T> {
    taken: Rc<RefCell<T>>,
    following: JoinHandle<()>,
}

impl<T: TakeLines + Default + 'static> Followed<T> {
    /// Follows what comes on `pipe`. On a `LocalSet`.
    pub fn new(pipe: impl AsyncRead + Unpin + 'static) -> Self {
        let taken = Rc::new(RefCell::new(T::default()));
        let following = tokio::task::spawn_local(follow(pipe, taken.clone()));
        Self { taken, following }
    }

    /// Waits until it is closed.
    pub async fn closed(&mut self) {
        if !self.following.is_finished() {
            let _ = (&mut self.following).await;
        }
    }

    /// What there is of it by now.
    pub fn taken(&self) -> Ref<'_, T> {
        self.taken.borrow()
    }
}

/// A pipe that Firecracker opens anew, as another user.
pub fn pipe() -> io::Result<(pipe::Receiver, OwnedFd)> {
    use nix::fcntl::OFlag;
    let (reads, writes) = nix::unistd::pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?;
    nix::sys::stat::fchmod(&writes, nix::sys::stat::Mode::from_bits_truncate(0o666))?;
    Ok((pipe::Receiver::from_owned_fd(reads)?, writes))
}

async fn follow<T: TakeLines>(pipe: impl AsyncRead + Unpin, taken: Rc<RefCell<T>>) {
    let mut reader = BufReader::new(pipe);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(T::LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(1..) => taken.borrow_mut().take(&line),
            _ => return taken.borrow_mut().end(),
        }
    }
}
