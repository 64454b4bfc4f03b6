//! The link to one host: its messages and streams. A guest that is frozen outlives it.

use std::time::Duration;

use anteroom_guest_link::{
    LinkError, SharedStream, Side, answer_handshake_whenever, connect, say_waiting,
};
use anteroom_guest_protocol::{GuestMessage, HostMessage};
use anyhow::{Context as _, Result, bail};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::context::Context;
use super::control::{self, Control};
use super::streams;

/// How long a host that has heard that the guest is frozen may take to close its side.
const CLOSED: Duration = Duration::from_secs(10);

/// What carries the link.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Sized + 'static {
    /// Gets ready for another host, of a clone of this guest.
    fn await_another_host(&mut self) -> Result<()>;

    /// What that host is heard on, once it may be there.
    async fn of_another_host(self) -> Result<Self>;
}

/// A host that was answered.
pub struct HostLink<L> {
    carrier: SharedStream<L>,
    driving: JoinHandle<Result<(), LinkError>>,
    serving: JoinHandle<()>,
    control: Control,
    from_host: mpsc::Receiver<Result<HostMessage, LinkError>>,
}

impl<L: Carrier> HostLink<L> {
    /// Answers the host at the other end, and takes up what it wants and says.
    pub async fn open(
        mut carrier: L,
        messages: mpsc::Receiver<GuestMessage>,
        context: &Context,
    ) -> Result<Self> {
        answer_handshake_whenever(&mut carrier)
            .await
            .context("the handshake with the host failed")?;
        let carrier = SharedStream::new(carrier);
        let (opener, mut incoming, drive) = connect(carrier.clone(), Side::Guest);
        let driving = tokio::task::spawn_local(drive);
        context.opener.send_replace(Some(opener));
        let stream = streams::control(&mut incoming).await?;
        let (control, from_host) = control::start(stream, messages);
        let serving = tokio::task::spawn_local(streams::serve(incoming, context.clone()));
        Ok(Self { carrier, driving, serving, control, from_host })
    }

    /// The host's next message; `None` when the link is gone.
    pub async fn next(&mut self) -> Result<Option<HostMessage>> {
        tokio::select! {
            message = self.from_host.recv() => {
                message.transpose().context("reading from the host failed")
            }
            _ = &mut self.driving => Ok(None),
        }
    }

    /// Waits until everything said so far has left, or it is clear that it will not.
    pub async fn flush(&mut self) {
        self.control.flush().await;
    }

    /// Ends it, once [`GuestMessage::Frozen`] was said: what carries the next one, and what is said there.
    pub async fn leave(mut self) -> Result<(L, mpsc::Receiver<GuestMessage>)> {
        let Some(messages) = self.control.until_frozen().await else {
            bail!("the host did not hear that the guest is frozen")
        };
        // It has heard it when it closes its side.
        match tokio::time::timeout(CLOSED, self.from_host.recv()).await {
            Ok(None) => {}
            Ok(Some(_)) => bail!("the host said something to a frozen guest"),
            Err(_) => bail!("the host did not take leave of a frozen guest"),
        }
        self.serving.abort();
        self.driving.abort();
        let _ = self.serving.await;
        let _ = self.driving.await;
        let mut carrier = self.carrier.into_inner().context("the link is still in use")?;
        carrier.await_another_host()?;
        say_waiting(&mut carrier).await.context("taking leave of the host failed")?;
        Ok((carrier.of_another_host().await?, messages))
    }
}
