//! Many streams on one, by yamux.
//!
//! yamux wants one owner that polls the connection; [`connect`] makes that owner a future for the
//! caller to spawn, and gives back handles to open and take streams.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use anteroom_guest_protocol::StreamKind;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::compat::{FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, ConnectionError, Mode};

use crate::LinkError;

/// One stream of the link.
pub type LinkStream = tokio_util::compat::Compat<yamux::Stream>;

/// Streams at once: one a connection of the guest's browser, and a few of ours.
const MAX_STREAMS: usize = 320;

/// Memory for what has come and is not read yet, over all streams, in bytes.
const MAX_RECEIVE_WINDOW: usize = 128 * 1024 * 1024;

/// Payload of one yamux frame, in bytes. Large enough that a repaint is not thousands of writes,
/// small enough that input waits behind one for less than a millisecond.
const SPLIT_SEND: usize = 64 * 1024;

/// How long the kind byte of an opened stream may take, in seconds.
const KIND_SECONDS: u64 = 30;

/// Which end of the link this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The session runner.
    Host,
    /// The agent.
    Guest,
}

/// Opens streams. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Opener(mpsc::Sender<oneshot::Sender<LinkStream>>);

/// Streams that the other side opened.
#[derive(Debug)]
pub struct Incoming(mpsc::Receiver<LinkStream>);

/// Starts the multiplexer on a stream whose handshake is done. The future moves the bytes and ends
/// with the link; it must be polled for anything to happen.
pub fn connect<S>(
    stream: S,
    side: Side,
) -> (Opener, Incoming, impl Future<Output = Result<(), LinkError>>)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut config = Config::default();
    config.set_max_num_streams(MAX_STREAMS);
    config.set_max_connection_receive_window(Some(MAX_RECEIVE_WINDOW));
    config.set_split_send_size(SPLIT_SEND);
    let mode = match side {
        Side::Host => Mode::Client,
        Side::Guest => Mode::Server,
    };
    let connection = Connection::new(stream.compat(), config, mode);
    let (open, opens) = mpsc::channel(8);
    let (accepted, incoming) = mpsc::channel(MAX_STREAMS);
    (Opener(open), Incoming(incoming), drive(connection, opens, accepted))
}

impl Opener {
    /// Opens a stream of `kind`.
    ///
    /// # Errors
    /// When the link is gone.
    pub async fn open(&self, kind: StreamKind) -> Result<LinkStream, LinkError> {
        let (reply, stream) = oneshot::channel();
        self.0.send(reply).await.map_err(|_| LinkError::Closed)?;
        let mut stream = stream.await.map_err(|_| LinkError::Closed)?;
        stream.write_all(&[kind.into()]).await?;
        stream.flush().await?;
        Ok(stream)
    }
}

impl Incoming {
    /// The next stream the other side opened; `None` when the link is gone. Its kind is still to be
    /// read, by [`read_kind`] in a task of its own.
    pub async fn next(&mut self) -> Option<LinkStream> {
        self.0.recv().await
    }
}

/// Reads the kind byte of a stream that the other side opened.
///
/// # Errors
/// When the stream fails, the kind is unknown or does not come within 30 s.
pub async fn read_kind(stream: &mut LinkStream) -> Result<StreamKind, LinkError> {
    let silent = |_| LinkError::Silent { what: "a stream", seconds: KIND_SECONDS };
    let byte =
        timeout(Duration::from_secs(KIND_SECONDS), stream.read_u8()).await.map_err(silent)??;
    Ok(StreamKind::try_from(byte)?)
}

async fn drive<T>(
    mut connection: Connection<T>,
    mut opens: mpsc::Receiver<oneshot::Sender<LinkStream>>,
    accepted: mpsc::Sender<LinkStream>,
) -> Result<(), LinkError>
where
    T: futures::AsyncRead + futures::AsyncWrite + Unpin,
{
    let mut waiting: Option<oneshot::Sender<LinkStream>> = None;
    let mut openers_gone = false;
    poll_fn(|cx| {
        loop {
            if waiting.is_none() && !openers_gone {
                match opens.poll_recv(cx) {
                    Poll::Ready(Some(reply)) => waiting = Some(reply),
                    Poll::Ready(None) => openers_gone = true,
                    Poll::Pending => {}
                }
            }
            if let Some(reply) = waiting.take() {
                match connection.poll_new_outbound(cx) {
                    Poll::Ready(Ok(stream)) => {
                        // The caller may have given up; then the stream is dropped, which resets it.
                        let _ = reply.send(stream.compat());
                        continue;
                    }
                    Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                    Poll::Pending => waiting = Some(reply),
                }
            }
            match connection.poll_next_inbound(cx) {
                Poll::Ready(Some(Ok(stream))) => {
                    // A full queue means nobody takes streams any more; dropping one resets it.
                    let _ = accepted.try_send(stream.compat());
                }
                Poll::Ready(Some(Err(error))) => return Poll::Ready(Err(error)),
                Poll::Ready(None) => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
    .map_err(|error: ConnectionError| match error {
        ConnectionError::Closed => LinkError::Closed,
        error => LinkError::Mux(error),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn both_sides_open_streams_and_a_megabyte_passes() {
        let (host, guest) = tokio::io::duplex(64 * 1024);
        let (host_open, mut host_in, host_drive) = connect(host, Side::Host);
        let (guest_open, mut guest_in, guest_drive) = connect(guest, Side::Guest);
        let local = tokio::task::LocalSet::new();
        local.spawn_local(host_drive);
        local.spawn_local(guest_drive);
        local
            .run_until(async {
                let sent = vec![7; 1 << 20];
                let mut control = host_open.open(StreamKind::Control).await.unwrap();
                let mut at_guest = guest_in.next().await.unwrap();
                assert_eq!(read_kind(&mut at_guest).await.unwrap(), StreamKind::Control);
                let (_, received) = tokio::join!(
                    async {
                        control.write_all(&sent).await.unwrap();
                        control.shutdown().await.unwrap();
                    },
                    async {
                        let mut bytes = Vec::new();
                        at_guest.read_to_end(&mut bytes).await.unwrap();
                        bytes
                    }
                );
                assert_eq!(received, sent);
                guest_open.open(StreamKind::Egress).await.unwrap();
                let mut egress = host_in.next().await.unwrap();
                assert_eq!(read_kind(&mut egress).await.unwrap(), StreamKind::Egress);
            })
            .await;
    }

    #[tokio::test]
    async fn a_yamux_frame_of_four_gigabytes_ends_the_link() {
        let (host, mut guest) = tokio::io::duplex(4096);
        let (_open, _incoming, drive) = connect(host, Side::Host);
        // Version 0, type data, flag SYN, stream 2, length 2^32-1.
        guest.write_all(&[0, 0, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 0xff, 0xff]).await.unwrap();
        assert!(matches!(drive.await, Err(LinkError::Mux(_))));
    }
}
