//! Descriptors that Tokio watches.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use tokio::io::unix::AsyncFd;

/// Has it watched until it is dropped.
pub fn watched<T: AsFd + AsRawFd + Send + Sync + 'static>(descriptor: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: its owner is moved into what watches it, and is neither replaced nor closed there.
    #[expect(unsafe_code, reason = "AsyncFd has no safe constructor")]
    let watched = unsafe { AsyncFd::register(descriptor) };
    Ok(watched?)
}
