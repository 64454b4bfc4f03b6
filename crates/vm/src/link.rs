//! The byte stream to the agent.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};

/// The byte stream to the agent. Where the guest connects first, reads and writes wait until it has.
#[derive(Debug)]
pub struct LinkStream(State);

#[derive(Debug)]
enum State {
    Open(UnixStream),
    /// One connection is taken, and nobody listens any more then.
    Awaited(UnixListener),
}

impl LinkStream {
    /// A link that the guest opens by connecting here.
    pub(crate) fn awaited(listener: UnixListener) -> Self {
        Self(State::Awaited(listener))
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut UnixStream>>> {
        if let State::Awaited(listener) = &self.0 {
            let (stream, _) = ready!(listener.poll_accept(cx))?;
            self.0 = State::Open(stream);
        }
        match &mut self.0 {
            State::Open(stream) => Poll::Ready(Ok(Pin::new(stream))),
            State::Awaited(_) => Poll::Pending,
        }
    }
}

impl From<UnixStream> for LinkStream {
    fn from(stream: UnixStream) -> Self {
        Self(State::Open(stream))
    }
}

impl AsyncRead for LinkStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_open(cx))?.poll_read(cx, buffer)
    }
}

impl AsyncWrite for LinkStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_open(cx))?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Open(stream) => Pin::new(stream).poll_flush(cx),
            State::Awaited(_) => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Open(stream) => Pin::new(stream).poll_shutdown(cx),
            State::Awaited(_) => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_link_opens_with_the_first_connection_and_takes_no_second() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("link");
        let mut link = LinkStream::awaited(UnixListener::bind(&path).unwrap());
        let guest = async {
            let mut first = UnixStream::connect(&path).await.unwrap();
            first.write_all(b"hello").await.unwrap();
            let mut answer = [0; 2];
            first.read_exact(&mut answer).await.unwrap();
            answer
        };
        let host = async {
            let mut said = [0; 5];
            link.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"hello");
            link.write_all(b"ok").await.unwrap();
        };
        let (answer, ()) = tokio::join!(guest, host);
        assert_eq!(&answer, b"ok");
        assert!(UnixStream::connect(&path).await.is_err());
    }
}
