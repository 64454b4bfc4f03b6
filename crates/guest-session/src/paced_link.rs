//! The guest link, read no faster than an honest guest writes: below the messages there are frames
//! of the multiplexer, and each costs the runner work whatever is in it.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use leaky_bucket::{AcquireOwned, RateLimiter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::pace::pace;

/// Reads of the link, a second for long and at once. The multiplexer reads a frame's head and body
/// on their own, and a picture comes in frames of 64 KiB.
const READS_PER_SECOND: usize = 20_000;
const READ_BURST: usize = 40_000;

/// A stream whose reads are counted, and wait when they are too many. So waits who writes.
pub struct PacedLink<S> {
    inner: S,
    pace: Arc<RateLimiter>,
    waiting: Option<Pin<Box<AcquireOwned>>>,
}

impl<S> PacedLink<S> {
    /// Around the stream that comes from the guest.
    pub fn new(inner: S) -> Self {
        Self { inner, pace: Arc::new(pace(READS_PER_SECOND, READ_BURST)), waiting: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for PacedLink<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(waiting) = &mut self.waiting {
            ready!(waiting.as_mut().poll(cx));
            self.waiting = None;
        }
        ready!(Pin::new(&mut self.inner).poll_read(cx, buffer))?;
        if !self.pace.try_acquire(1) {
            self.waiting = Some(Box::pin(self.pace.clone().acquire_owned(1)));
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for PacedLink<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_small_frames_waits_and_a_picture_does_not() {
        let (host, mut guest) = tokio::io::duplex(64 * 1024);
        let mut host = PacedLink::new(host);
        let started = Instant::now();
        let picture = tokio::spawn(async move {
            guest.write_all(&vec![7; 4 << 20]).await.unwrap();
            guest.write_all(&vec![7; 12 * 60_000]).await.unwrap();
            guest
        });
        let mut bytes = vec![0; 4 << 20];
        host.read_exact(&mut bytes).await.unwrap();
        assert_eq!(started.elapsed(), Duration::ZERO);
        for _ in 0..60_000 {
            host.read_exact(&mut [0; 12]).await.unwrap();
        }
        let took = started.elapsed();
        assert!(took >= Duration::from_millis(900), "{took:?}");
        drop(picture.await.unwrap());
    }
}
