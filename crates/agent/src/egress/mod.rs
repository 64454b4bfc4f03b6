//! The guest's way out. Every connection is carried to the host, which parses, decides and records;
//! nothing is decided here: a guest cannot be trusted to.
//!
//! Programs that know proxies use [`proxy`]. For those that do not, in a guest every address is the
//! guest's own ([`routes`]): names resolve to placeholders ([`names`]), what connects to one is
//! accepted by [`transparent`], and whatever else is tried is refused by the kernel and seen by
//! [`strays`].

mod names;
mod proxy;
mod routes;
mod strays;
mod transparent;

pub use proxy::start as start_proxy;

use std::sync::Arc;

use anteroom_guest_link::{LinkError, LinkStream, Opener};
use anteroom_guest_protocol::StreamKind;
use anyhow::Result;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::report::Reporter;

/// Connections at a time; further ones wait. The link ends when it is asked for more streams than it
/// has, and the room's own need some too.
const MAX_CONNECTIONS: usize = 240;

/// Opens a stream to the host for each connection, so many at a time. Cheap to clone.
#[derive(Clone)]
pub struct WayOut {
    opener: Opener,
    places: Arc<Semaphore>,
}

impl WayOut {
    /// By this link.
    pub fn new(opener: Opener) -> Self {
        Self { opener, places: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }

    /// A stream, and its place, to be held as long as the stream.
    async fn open(&self) -> Result<(LinkStream, OwnedSemaphorePermit), LinkError> {
        let place = self.places.clone().acquire_owned().await.map_err(|_| LinkError::Closed)?;
        Ok((self.opener.open(StreamKind::Egress).await?, place))
    }
}

/// Takes in what does not use the proxy; `ports` are those that are carried to the host.
pub async fn take_the_rest(way_out: &WayOut, reporter: &Reporter, ports: &[u16]) -> Result<()> {
    let names = names::Names::default();
    routes::make_every_address_ours()?;
    names::serve(names.clone()).await?;
    transparent::serve(way_out, reporter, &names, ports)?;
    strays::tell(reporter, names, ports)
}
