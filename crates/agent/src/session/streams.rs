//! Streams that the host opens beside the control stream.

use anteroom_guest_link::{Incoming, LinkStream, read_kind};
use anteroom_guest_protocol::StreamKind;
use anyhow::{Context as _, Result, bail};

use super::context::Context;
use crate::desktop::display::serve_frames;
use crate::desktop::input::serve_input;
use crate::desktop::vnc;
use crate::files;

/// The first stream the host opens.
pub async fn control(incoming: &mut Incoming) -> Result<LinkStream> {
    let mut stream = incoming.next().await.context("the host closed the link")?;
    match read_kind(&mut stream).await? {
        StreamKind::Control => Ok(stream),
        other => bail!("the host opened a {other:?} stream before the control stream"),
    }
}

/// Serves all others, each in a task of its own.
pub async fn serve(mut incoming: Incoming, context: Context) {
    while let Some(stream) = incoming.next().await {
        let context = context.clone();
        tokio::task::spawn_local(async move {
            let reporter = context.supervisor.reporter.clone();
            if let Err(error) = serve_one(stream, context).await {
                reporter.note(&format!("a stream of the host failed: {error:#}"));
            }
        });
    }
}

async fn serve_one(mut stream: LinkStream, context: Context) -> Result<()> {
    match read_kind(&mut stream).await? {
        StreamKind::File => files::receive(&mut stream, &context.guest).await?,
        StreamKind::Frames => serve_frames(stream, context.desktop.ready().await?.pixels).await?,
        StreamKind::Input => serve_input(stream, context.desktop.ready().await?.input).await?,
        StreamKind::Check => {
            let checker = context.checker.borrow().clone();
            checker.context("this session does not verify an image")?.serve(&mut stream).await?;
        }
        StreamKind::Terminal => {
            let mut watched = context.terminal.subscribe();
            let terminal = watched.wait_for(Option::is_some).await?.clone();
            terminal.context("there is no terminal")?.serve(stream).await?;
        }
        StreamKind::Vnc => {
            context.desktop.ready().await?;
            vnc::serve(stream, &context.guest).await?;
        }
        other @ (StreamKind::Control | StreamKind::Egress) => {
            bail!("a second {other:?} stream was opened")
        }
    }
    Ok(())
}
