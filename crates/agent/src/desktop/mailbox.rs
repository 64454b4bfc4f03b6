//! Messages to a thread that also waits for an X connection: a queue with a descriptor to poll.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// The sending half. Cheap to clone.
pub struct Mailbox<T> {
    queue: Sender<T>,
    bell: Arc<EventFd>,
}

/// The receiving half, for one thread.
pub struct Post<T> {
    queue: Receiver<T>,
    bell: Arc<EventFd>,
}

/// A mailbox and its post.
pub fn mailbox<T>() -> Result<(Mailbox<T>, Post<T>)> {
    let bell = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)
        .context("making an eventfd failed")?;
    let bell = Arc::new(bell);
    let (sender, receiver) = channel();
    Ok((Mailbox { queue: sender, bell: bell.clone() }, Post { queue: receiver, bell }))
}

impl<T> Mailbox<T> {
    /// Sends; says whether the thread still takes messages.
    pub fn send(&self, message: T) -> bool {
        self.queue.send(message).is_ok() && self.bell.write(1).is_ok()
    }
}

impl<T> Clone for Mailbox<T> {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), bell: self.bell.clone() }
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        // Wakes the thread so that it sees the queue's end.
        let _ = self.bell.write(1);
    }
}

/// What a thread finds in its post.
pub enum Letter<T> {
    /// A message.
    Message(T),
    /// Nothing now.
    Empty,
    /// Nobody sends any more.
    Closed,
}

impl<T> Post<T> {
    /// Sleeps until there is a message or `other` can be read.
    pub fn wait(&self, other: BorrowedFd<'_>) -> Result<()> {
        let mut watched = [
            PollFd::new(other, PollFlags::POLLIN),
            PollFd::new(self.bell.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for X failed"),
        }
        // Only resets the counter; what counts is the queue.
        let _ = self.bell.read();
        Ok(())
    }

    /// The next message, without waiting.
    pub fn take(&self) -> Letter<T> {
        match self.queue.try_recv() {
            Ok(message) => Letter::Message(message),
            Err(std::sync::mpsc::TryRecvError::Empty) => Letter::Empty,
            Err(std::sync::mpsc::TryRecvError::Disconnected) => Letter::Closed,
        }
    }
}
