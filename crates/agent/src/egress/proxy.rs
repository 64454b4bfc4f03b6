//! An HTTP proxy on loopback whose connections are carried to the host.

use std::net::SocketAddr;

use anteroom_guest_protocol::LogStream;
use anyhow::{Context, Result};
use tokio::net::{TcpListener, TcpStream};

use super::way_out::{WayOut, accept_each};
use crate::report::Reporter;

/// Starts the proxy; connections to the returned address leave through the host's egress gate.
pub async fn start(way_out: WayOut, reporter: Reporter) -> Result<SocketAddr> {
    let listener =
        TcpListener::bind(("127.0.0.1", 0)).await.context("opening the proxy's port failed")?;
    let address = listener.local_addr()?;
    let reported = reporter.clone();
    let carry = move |connection| carry(connection, way_out.clone(), reporter.clone());
    tokio::task::spawn_local(accept_each(listener, "the proxy", reported, carry));
    Ok(address)
}

async fn carry(mut connection: TcpStream, way_out: WayOut, reporter: Reporter) {
    // Small writes (TLS handshakes, HTTP/2 frames) must not wait for each other.
    let _ = connection.set_nodelay(true);
    let (mut stream, _place) = match way_out.open().await {
        Ok(opened) => opened,
        Err(error) => {
            reporter.log(
                "agent",
                LogStream::Stderr,
                &format!("a connection could not leave: {error}"),
            );
            return;
        }
    };
    // An error here is the peer's reset: the host has recorded what there was.
    let _ = tokio::io::copy_bidirectional(&mut connection, &mut stream).await;
}
