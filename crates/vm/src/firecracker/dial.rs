//! The link of a clone: the host connects, since the connections that its template's guest had made are
//! reset, while its sockets that listen still do (docs/vsock.md and docs/snapshotting in Firecracker's
//! repository).

use std::io;
use std::path::Path;
use std::time::Duration;

use anteroom_guest_protocol::VSOCK_PORT;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

/// How many connections there are to try with.
const TRIES: usize = 8;

/// How long the guest may take to accept one: a busy machine's takes long, and it accepts what was given
/// up here all the same.
const ANSWER: Duration = Duration::from_secs(5);

/// The pause after the first try, which doubles: a guest that has not listened before it was saved may do
/// so when it sees that its old connection is reset.
const PAUSE: Duration = Duration::from_millis(25);

/// Longest answer, in bytes: `OK` and a port.
const LONGEST_ANSWER: usize = 32;

/// Connections to Firecracker, none of them to the guest yet. They are made while this process may still
/// open the socket's path.
pub struct Dial(Vec<UnixStream>);

impl Dial {
    /// Connects to the vsock device's socket, on which Firecracker listens.
    pub async fn prepare(socket: &Path) -> io::Result<Self> {
        let mut connections = Vec::new();
        for _ in 0..TRIES {
            connections.push(UnixStream::connect(socket).await?);
        }
        Ok(Self(connections))
    }

    /// Connects to the guest once it runs, when `runs` gets its value. In at most 50 s.
    pub async fn guest(self, runs: oneshot::Receiver<()>) -> io::Result<UnixStream> {
        let ended = |_| io::Error::new(io::ErrorKind::NotConnected, "the guest was not let run");
        runs.await.map_err(ended)?;
        let mut last = io::ErrorKind::TimedOut.into();
        let mut pause = PAUSE;
        for mut connection in self.0 {
            match timeout(ANSWER, ask(&mut connection)).await {
                Ok(Ok(())) => return Ok(connection),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
            sleep(pause).await;
            pause *= 2;
        }
        let message = format!("the guest of a clone did not accept a connection in {TRIES} tries");
        Err(io::Error::new(last.kind(), format!("{message}: {last}")))
    }
}

/// Firecracker closes the connection when the guest refuses it.
async fn ask(connection: &mut UnixStream) -> io::Result<()> {
    connection.write_all(format!("CONNECT {VSOCK_PORT}\n").as_bytes()).await?;
    let mut answer = Vec::new();
    // Byte by byte: what follows is the guest's.
    while answer.len() < LONGEST_ANSWER && !answer.ends_with(b"\n") {
        answer.push(connection.read_u8().await?);
    }
    if answer.starts_with(b"OK ") && answer.ends_with(b"\n") {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidData, "Firecracker's answer to CONNECT is not OK"))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, BufReader};
    use tokio::net::UnixListener;

    use super::*;
    use crate::LinkStream;

    /// A fake Firecracker, whose guest refuses the first connection, and speaks at once on the second.
    #[tokio::test]
    async fn a_clone_s_link_opens_when_its_guest_runs_and_accepts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock");
        let listener = UnixListener::bind(&path).unwrap();
        let dial = Dial::prepare(&path).await.unwrap();
        let (resumed, runs) = oneshot::channel();
        let mut link = LinkStream::dialled(dial.guest(runs));
        let guest = async {
            let mut connections = Vec::new();
            for _ in 0..TRIES {
                connections.push(listener.accept().await.unwrap().0);
            }
            resumed.send(()).unwrap();
            let mut connections = connections.into_iter();
            let mut line = String::new();
            let mut first = BufReader::new(connections.next().unwrap());
            first.read_line(&mut line).await.unwrap();
            assert_eq!(line, "CONNECT 1024\n");
            drop(first);
            let mut second = connections.next().unwrap();
            second.read_exact(&mut [0; 13]).await.unwrap();
            second.write_all(b"OK 1073741824\nhello").await.unwrap();
            let mut heard = [0; 2];
            second.read_exact(&mut heard).await.unwrap();
            heard
        };
        let host = async {
            link.write_all(b"hi").await.unwrap();
            let mut heard = [0; 5];
            link.read_exact(&mut heard).await.unwrap();
            assert_eq!(&heard, b"hello");
        };
        let (heard, ()) = tokio::join!(guest, host);
        assert_eq!(&heard, b"hi");
    }

    #[tokio::test]
    async fn a_clone_that_is_never_let_run_has_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("vsock");
        let _listener = UnixListener::bind(&path).unwrap();
        let (resumed, runs) = oneshot::channel();
        drop(resumed);
        let error = Dial::prepare(&path).await.unwrap().guest(runs).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotConnected);
    }
}
