//! Channels that the controller opens for viewers: the CLI's terminal, and VNC.

use std::io;
use std::os::unix::net::UnixStream as StdUnixStream;

use anteroom_guest_link::{LinkError, LinkStream, Opener, Side, chain, connect, read_kind};
use anteroom_guest_protocol::StreamKind;
use tokio::net::UnixStream;

use super::terminal::TerminalView;

/// Serves channels until the controller is gone.
pub async fn serve(socket: StdUnixStream, terminal: TerminalView, guest: Opener) {
    let socket = socket.set_nonblocking(true).and_then(|()| UnixStream::from_std(socket));
    let Ok(socket) = socket else { return };
    let (_, mut incoming, drive) = connect(socket, Side::Guest);
    tokio::task::spawn_local(drive);
    while let Some(channel) = incoming.next().await {
        let (terminal, guest) = (terminal.clone(), guest.clone());
        tokio::task::spawn_local(async move {
            if let Err(error) = serve_one(channel, terminal, guest).await {
                tracing::info!("a viewer's channel ended: {}", chain(&error));
            }
        });
    }
}

/// A channel that ended before its time.
#[derive(Debug, thiserror::Error)]
enum ChannelError {
    #[error(transparent)]
    Link(#[from] LinkError),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("the controller opened a {0:?} channel")]
    Kind(StreamKind),
}

async fn serve_one(
    mut channel: LinkStream,
    terminal: TerminalView,
    guest: Opener,
) -> Result<(), ChannelError> {
    match read_kind(&mut channel).await? {
        StreamKind::Terminal => terminal.serve(channel).await?,
        StreamKind::Vnc => {
            let mut server = guest.open(StreamKind::Vnc).await?;
            tokio::io::copy_bidirectional(&mut channel, &mut server).await?;
        }
        other => return Err(ChannelError::Kind(other)),
    }
    Ok(())
}
