//! Reading and writing framed messages.

use std::time::Duration;

use anteroom_guest_protocol::message::{self, LENGTH_BYTES};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::LinkError;

/// How long the rest of a begun message may take, in seconds.
const MESSAGE_SECONDS: u64 = 30;

/// The next message, or `None` at a clean end of the stream. Waits for its first byte for as long
/// as it takes; once begun it must come within 30 s.
///
/// # Errors
/// When the stream fails, or the message is too long, unknown or does not go on.
pub async fn read_message<T, R>(reader: &mut R, limit: usize) -> Result<Option<T>, LinkError>
where
    T: DeserializeOwned,
    R: AsyncRead + Unpin,
{
    let mut prefix = [0; LENGTH_BYTES];
    if reader.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    let rest = async {
        reader.read_exact(&mut prefix[1..]).await?;
        let mut body = vec![0; message::announced_length(prefix, limit)?];
        reader.read_exact(&mut body).await?;
        Ok(message::decode(&body)?)
    };
    let silent = |_| LinkError::Silent { what: "a message", seconds: MESSAGE_SECONDS };
    timeout(Duration::from_secs(MESSAGE_SECONDS), rest).await.map_err(silent)?.map(Some)
}

/// Writes and flushes one message.
///
/// # Errors
/// When the stream fails or the message is over `limit` bytes.
pub async fn write_message<T, W>(writer: &mut W, message: &T, limit: usize) -> Result<(), LinkError>
where
    T: Serialize,
    W: AsyncWrite + Unpin,
{
    writer.write_all(&message::encode(message, limit)?).await?;
    writer.flush().await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use anteroom_guest_protocol::{GuestMessage, MAX_CONTROL_MESSAGE};

    use super::*;

    async fn received(bytes: &[u8]) -> Result<Option<GuestMessage>, LinkError> {
        let (mut host, mut guest) = tokio::io::duplex(1024);
        guest.write_all(bytes).await.unwrap();
        // Kept open: only the deadline can end the wait for more.
        let received = read_message(&mut host, MAX_CONTROL_MESSAGE).await;
        drop(guest);
        received
    }

    #[tokio::test]
    async fn a_length_of_four_gigabytes_is_refused_at_once() {
        let error = received(&[0xff; 4]).await.unwrap_err();
        assert!(crate::chain(&error).contains("4294967295 bytes"), "{error}");
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_message_then_silence_is_given_up() {
        let error = received(&[0, 0, 0, 9, b'{']).await.unwrap_err();
        assert!(matches!(error, LinkError::Silent { what: "a message", seconds: 30 }));
    }

    #[tokio::test]
    async fn an_unknown_message_is_refused() {
        let body = br#"{"type":"format_disk"}"#;
        let mut bytes = u32::try_from(body.len()).unwrap().to_be_bytes().to_vec();
        bytes.extend(body);
        assert!(matches!(received(&bytes).await.unwrap_err(), LinkError::Message(_)));
    }
}
