//! Streams to the host, one for each connection that is carried.

use std::sync::Arc;
use std::time::Duration;

use anteroom_guest_link::{LinkError, LinkStream, Opener};
use anteroom_guest_protocol::{LogStream, StreamKind};
use anyhow::Result;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::report::Reporter;

/// Connections at a time; further ones wait. The link ends when it is asked for more streams than it
/// has, and the session's own need some too.
const MAX_CONNECTIONS: usize = 240;

/// How long to wait when no connection can be taken.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Opens a stream to the host for each connection, so many at a time. Cheap to clone.
#[derive(Clone)]
pub struct WayOut {
    opener: watch::Receiver<Option<Opener>>,
    places: Arc<Semaphore>,
}

impl WayOut {
    /// By the link that is there.
    pub fn new(opener: watch::Receiver<Option<Opener>>) -> Self {
        Self { opener, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// A stream, and its place, to be held as long as the stream.
    pub async fn open(&self) -> Result<(LinkStream, OwnedSemaphorePermit), LinkError> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| LinkError::Closed)?;
        let opener = self.opener.borrow().clone().ok_or(LinkError::Closed)?;
        Ok((opener.open(StreamKind::Egress).await?, place))
    }
}

/// Carries each connection of a listener, which `what` is, in a task of its own.
pub async fn accept_each<F>(
    listener: TcpListener,
    what: &str,
    reporter: Reporter,
    carry: impl Fn(TcpStream) -> F,
) where
    F: Future<Output = ()> + 'static,
{
    loop {
        match listener.accept().await {
            Ok((connection, _)) => drop(tokio::task::spawn_local(carry(connection))),
            Err(error) => {
                // Out of descriptors: wait for some to be closed rather than spin.
                let line = format!("{what} could not accept: {error}");
                reporter.log("agent", LogStream::Stderr, &line);
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}
