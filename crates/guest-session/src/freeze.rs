//! A guest that is to be frozen: it is heard to its last message, and seen to wait for another host.

use std::time::Duration;

use anteroom_crash::agent_failed;
use anteroom_guest_link::{SharedStream, until_waiting};
use anteroom_guest_protocol::{GuestMessage, HostMessage, LogStream};
use anteroom_session::EndReason;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::timeout;

use crate::conversation::{Conversation, Hello};
use crate::failure::{broken, link_failed};
use crate::paced_link::PacedLink;

/// How long it may take.
const FROZEN_SECONDS: u64 = 60;

/// The link to a guest that is to be frozen.
pub struct FreezableLink<S>(SharedStream<PacedLink<S>>);

impl<S: AsyncRead + AsyncWrite + Unpin + 'static> FreezableLink<S> {
    /// Answers a guest as [`Conversation::begin`] does.
    ///
    /// # Errors
    /// As that.
    pub async fn begin(link: S) -> Result<(Self, Conversation, Hello), EndReason> {
        let link = SharedStream::new(PacedLink::new(link));
        let (conversation, hello) = Conversation::begin_on(link.clone()).await?;
        Ok((Self(link), conversation, hello))
    }

    /// Freezes the guest of this conversation, whose clones are woken by the token: afterwards nothing runs
    /// in it but an agent that waits for another host. `log` takes what its services still print.
    ///
    /// # Errors
    /// When the guest fails, is late, or says something else.
    pub async fn freeze(
        mut self,
        mut conversation: Conversation,
        wake_token: String,
        log: impl FnMut(&str, LogStream, &str),
    ) -> Result<(), EndReason> {
        conversation.sender.say(&HostMessage::Freeze { wake_token }).await?;
        let frozen = async {
            until_frozen(&mut conversation, log).await?;
            let Conversation { link, sender, .. } = conversation;
            sender.close().await?;
            // By the guest's first byte that does not belong to the multiplexer.
            link.ended().await;
            until_waiting(&mut self.0).await.map_err(link_failed)
        };
        let late = |_| broken(&format!("the guest was not frozen within {FROZEN_SECONDS} s"));
        timeout(Duration::from_secs(FROZEN_SECONDS), frozen).await.map_err(late)?
    }
}

async fn until_frozen(
    conversation: &mut Conversation,
    mut log: impl FnMut(&str, LogStream, &str),
) -> Result<(), EndReason> {
    loop {
        match conversation.messages.next().await? {
            GuestMessage::Frozen {} => return Ok(()),
            GuestMessage::Log { service, stream, line } => log(&service, stream, &line),
            GuestMessage::Fatal { cause } => return Err(agent_failed(&cause)),
            // What was on its way.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use anteroom_guest_link::{
        Side, answer_handshake_whenever, connect, read_message, say_waiting, write_message,
    };
    use anteroom_guest_protocol::{GuestCpu, MAX_CONTROL_MESSAGE};
    use tokio::io::{AsyncReadExt, DuplexStream};
    use tokio::task::LocalSet;

    use super::*;

    fn hello(is_clone: bool) -> GuestMessage {
        GuestMessage::Hello {
            agent_version: "0".into(),
            kernel: "6".into(),
            boot_id: String::new(),
            is_clone,
            cpu: GuestCpu::default(),
        }
    }

    /// Serves one host until that freezes it, where `freezes`; what carries the next one.
    async fn guest(mut carrier: DuplexStream, is_clone: bool, freezes: bool) -> DuplexStream {
        answer_handshake_whenever(&mut carrier).await.unwrap();
        let carrier = SharedStream::new(carrier);
        let (_opener, mut incoming, drive) = connect(carrier.clone(), Side::Guest);
        let driving = tokio::task::spawn_local(drive);
        let mut control = incoming.next().await.unwrap();
        control.read_u8().await.unwrap();
        write_message(&mut control, &hello(is_clone), MAX_CONTROL_MESSAGE).await.unwrap();
        let heard: Option<HostMessage> =
            read_message(&mut control, MAX_CONTROL_MESSAGE).await.unwrap();
        if !freezes {
            std::future::pending::<()>().await;
        }
        assert_eq!(heard, Some(HostMessage::Freeze { wake_token: "t".into() }));
        let line = GuestMessage::Heartbeat { sent_ms: 1 };
        for message in [line, GuestMessage::Frozen {}] {
            write_message(&mut control, &message, MAX_CONTROL_MESSAGE).await.unwrap();
        }
        let heard: Option<HostMessage> =
            read_message(&mut control, MAX_CONTROL_MESSAGE).await.unwrap();
        assert_eq!(heard, None);
        driving.abort();
        let _ = driving.await;
        drop((control, incoming));
        let mut carrier = carrier.into_inner().unwrap();
        say_waiting(&mut carrier).await.unwrap();
        carrier
    }

    #[tokio::test]
    async fn a_frozen_guest_is_there_for_another_host_on_the_same_link() {
        LocalSet::new()
            .run_until(async {
                let (host, link) = tokio::io::duplex(64 * 1024);
                let host = SharedStream::new(host);
                let serving = tokio::task::spawn_local(async move {
                    let link = guest(link, false, true).await;
                    guest(link, true, false).await
                });
                let (link, conversation, hello) = FreezableLink::begin(host.clone()).await.unwrap();
                assert!(!hello.is_clone);
                link.freeze(conversation, "t".into(), |_, _, _| ()).await.unwrap();
                let (_conversation, hello) = Conversation::begin(host).await.unwrap();
                assert!(hello.is_clone);
                serving.abort();
            })
            .await;
    }
}
