//! A UDP port forwarded, as a router or a container's host does it: what comes in arrives from
//! another address, and Anteroom listens on none that the end user knows.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result};
use tokio::net::UdpSocket;
use tokio::runtime::Runtime;

/// Where people send to: a loopback address that nothing else here uses.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The longest datagram of WebRTC, amply.
const DATAGRAM: usize = 2048;

/// Forwards until dropped.
pub struct Forwarding {
    runtime: Runtime,
    outside: Arc<UdpSocket>,
}

impl Forwarding {
    /// Takes a free port.
    pub fn open() -> Result<Self> {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_io().build()?;
        let outside = runtime
            .block_on(UdpSocket::bind((OUTSIDE, 0)))
            .with_context(|| format!("taking a UDP port of {OUTSIDE} failed"))?;
        Ok(Self { runtime, outside: Arc::new(outside) })
    }

    /// Where people send to.
    pub fn address(&self) -> Result<SocketAddr> {
        Ok(self.outside.local_addr()?)
    }

    /// From here on what comes goes to `inside`, and back.
    pub fn lead_to(&self, inside: SocketAddr) {
        self.runtime.spawn(forward(self.outside.clone(), inside));
    }
}

async fn forward(outside: Arc<UdpSocket>, inside: SocketAddr) -> Result<()> {
    let mut clients: HashMap<SocketAddr, Arc<UdpSocket>> = HashMap::new();
    let mut datagram = [0; DATAGRAM];
    loop {
        let (length, client) = outside.recv_from(&mut datagram).await?;
        let socket = match clients.get(&client) {
            Some(socket) => socket.clone(),
            None => {
                let socket = Arc::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?);
                socket.connect(inside).await?;
                tokio::spawn(back(socket.clone(), outside.clone(), client));
                clients.insert(client, socket.clone());
                socket
            }
        };
        // A datagram may get lost: nobody is there yet, or no more.
        let _ = socket.send(&datagram[..length]).await;
    }
}

async fn back(inside: Arc<UdpSocket>, outside: Arc<UdpSocket>, client: SocketAddr) {
    let mut datagram = [0; DATAGRAM];
    loop {
        if let Ok(length) = inside.recv(&mut datagram).await {
            let _ = outside.send_to(&datagram[..length], client).await;
        }
    }
}
