//! The desktop's VNC server, for a host that carries a client to it.

use anteroom_guest_link::LinkStream;
use anyhow::{Context, Result};
use tokio::net::UnixStream;

use crate::desktop::display::server::VNC_SOCKET;
use crate::guest::Guest;

/// Carries bytes both ways until one side ends.
pub async fn serve(mut stream: LinkStream, guest: &Guest) -> Result<()> {
    let path = guest.home.join(VNC_SOCKET);
    let mut server = UnixStream::connect(&path)
        .await
        .with_context(|| format!("connecting to {} failed", path.display()))?;
    // A client that goes away mid-message is no error of ours.
    let _ = tokio::io::copy_bidirectional(&mut stream, &mut server).await;
    Ok(())
}
