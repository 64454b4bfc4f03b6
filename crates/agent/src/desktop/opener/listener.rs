//! Takes the URLs that the programs in the place of browsers hand in.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use super::names::SOCKET;
use super::program::{MAX_URL, sign_in_url};
use crate::guest::Guest;

/// An address that is to be opened. Whoever asked for it goes on when this is dropped.
pub struct Asked {
    /// The address.
    pub url: String,
    _waits: tokio::net::UnixStream,
}

/// Listens for URLs; each well-formed http or https URL arrives on the channel.
pub fn listen(guest: &Guest) -> Result<(PathBuf, mpsc::Receiver<Asked>)> {
    let path = guest.runtime.join(SOCKET);
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("listening on {} failed", path.display()))?;
    // The CLI runs as the end user; the folder above is readable, nothing else listens there.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    let (sender, receiver) = mpsc::channel(8);
    tokio::task::spawn_local(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::task::spawn_local(async move {
                let mut text = String::new();
                let read = (&mut connection).take(MAX_URL + 1);
                let mut read = std::pin::pin!(read);
                let deadline = Duration::from_secs(10);
                let complete = tokio::time::timeout(deadline, read.read_to_string(&mut text)).await;
                if let (Ok(Ok(_)), Some(url)) = (complete, sign_in_url(&text)) {
                    let _ = sender.send(Asked { url, _waits: connection }).await;
                }
            });
        }
    });
    Ok((path, receiver))
}
