//! The byte stream to the agent.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};

/// The byte stream to the agent. Where the guest connects first, or the host to it, reads and writes wait
/// until that is done.
#[derive(Debug)]
pub struct LinkStream(State);

enum State {
    Open(UnixStream),
    /// One connection is taken, and nobody listens any more then.
    Awaited(UnixListener),
    /// A connection that is being made.
    Dialled(Pin<Box<dyn Future<Output = io::Result<UnixStream>> + Send>>),
    /// It could not be made.
    Failed(io::ErrorKind),
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open(_) => "Open",
            Self::Awaited(_) => "Awaited",
            Self::Dialled(_) => "Dialled",
            Self::Failed(_) => "Failed",
        })
    }
}

impl LinkStream {
    /// A link that the guest opens by connecting here.
    pub(crate) fn awaited(listener: UnixListener) -> Self {
        Self(State::Awaited(listener))
    }

    /// A link that the host opens by connecting so.
    pub(crate) fn dialled(
        connecting: impl Future<Output = io::Result<UnixStream>> + Send + 'static,
    ) -> Self {
        Self(State::Dialled(Box::pin(connecting)))
    }

    fn poll_open(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Pin<&mut UnixStream>>> {
        let opened = match &mut self.0 {
            State::Open(_) => None,
            State::Awaited(listener) => Some(ready!(listener.poll_accept(cx)).map(|it| it.0)),
            State::Dialled(connecting) => Some(ready!(connecting.as_mut().poll(cx))),
            State::Failed(kind) => return Poll::Ready(Err((*kind).into())),
        };
        match opened {
            Some(Ok(stream)) => self.0 = State::Open(stream),
            Some(Err(error)) => {
                self.0 = State::Failed(error.kind());
                return Poll::Ready(Err(error));
            }
            None => {}
        }
        match &mut self.0 {
            State::Open(stream) => Poll::Ready(Ok(Pin::new(stream))),
            _ => Poll::Pending,
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
            _ => Poll::Ready(Ok(())),
        }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.0 {
            State::Open(stream) => Pin::new(stream).poll_shutdown(cx),
            _ => Poll::Ready(Ok(())),
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
