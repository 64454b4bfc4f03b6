//! Finding each other on a stream that may still hold bytes of an earlier life.

use std::time::Duration;

use anteroom_guest_protocol::{PREAMBLE_LEN, Preamble, PreambleError};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

use crate::LinkError;

/// How much stale data is skipped before the search for a preamble is given up, in bytes.
const MAX_STALE: usize = 8 * 1024 * 1024;

/// How long a begun preamble may take, in seconds.
const PREAMBLE_SECONDS: u64 = 30;

/// The nonce of a guest that waits for a host; no host's own.
const WAITING: [u8; 16] = [0; 16];

/// The host's side: sends a preamble with `nonce` and waits for its echo. `deadline` bounds the
/// wait for the guest's first byte (it is still booting).
///
/// # Errors
/// When the stream fails, the guest speaks another version, or nothing comes in time.
pub async fn start_handshake<S>(
    stream: &mut S,
    nonce: [u8; 16],
    deadline: Duration,
) -> Result<(), LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let ours = Preamble::new(nonce);
    stream.write_all(&ours.encode()).await?;
    stream.flush().await?;
    let silent = LinkError::Silent { what: "a boot", seconds: deadline.as_secs() };
    timeout(deadline, find(stream, |theirs| theirs.nonce == nonce)).await.map_err(|_| silent)??;
    Ok(())
}

/// The guest's side: waits for a preamble, for as long as it takes, and echoes it.
///
/// # Errors
/// When the stream fails or the host speaks another version.
pub async fn answer_handshake<S>(stream: &mut S) -> Result<(), LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let preamble = find(stream, |_| true).await?;
    stream.write_all(&preamble.encode()).await?;
    stream.flush().await?;
    Ok(())
}

/// The guest's side of a link that is to outlive its host: waits for the next one's preamble, whatever
/// the last one still sent, and echoes it.
///
/// # Errors
/// As [`answer_handshake`].
pub async fn answer_handshake_whenever<S>(stream: &mut S) -> Result<(), LinkError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        match answer_handshake(stream).await {
            // What had begun was no preamble.
            Err(LinkError::Silent { .. }) => {}
            answered => return answered,
        }
    }
}

/// The guest's side: nothing of the host that was there is read any more, and the next one's preamble is
/// waited for. Said twice: the host's multiplexer, which ends with it, takes the beginning of the first.
///
/// # Errors
/// When the stream fails.
pub async fn say_waiting<S: AsyncWrite + Unpin>(stream: &mut S) -> Result<(), LinkError> {
    let waiting = Preamble::new(WAITING).encode();
    stream.write_all(&[waiting, waiting].concat()).await?;
    stream.flush().await?;
    Ok(())
}

/// The host's side: waits until the guest has said so, where it says so in time.
///
/// # Errors
/// When the stream fails, or it says nothing in time.
pub async fn until_waiting<S: AsyncRead + Unpin>(stream: &mut S) -> Result<(), LinkError> {
    let silent = || LinkError::Silent { what: "to freeze", seconds: PREAMBLE_SECONDS };
    let found = find(stream, |theirs| theirs.nonce == WAITING);
    timeout(Duration::from_secs(PREAMBLE_SECONDS), found).await.map_err(|_| silent())??;
    Ok(())
}

/// Reads byte by byte until `wanted` is satisfied by a preamble; anything else is skipped.
async fn find<S>(stream: &mut S, wanted: impl Fn(&Preamble) -> bool) -> Result<Preamble, LinkError>
where
    S: AsyncRead + Unpin,
{
    let mut window = [0; PREAMBLE_LEN];
    stream.read_exact(&mut window[..1]).await?;
    let silent = || LinkError::Silent { what: "a handshake", seconds: PREAMBLE_SECONDS };
    timeout(Duration::from_secs(PREAMBLE_SECONDS), async {
        stream.read_exact(&mut window[1..]).await?;
        for _ in 0..MAX_STALE {
            match Preamble::decode(&window) {
                Ok(preamble) if wanted(&preamble) => return Ok(preamble),
                Err(version @ PreambleError::Version { .. }) => return Err(version.into()),
                Ok(_) | Err(PreambleError::NotAnteroom) => {
                    window.copy_within(1.., 0);
                    stream.read_exact(&mut window[PREAMBLE_LEN - 1..]).await?;
                }
            }
        }
        Err(PreambleError::NotAnteroom.into())
    })
    .await
    .map_err(|_| silent())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn stale_bytes_and_an_old_nonce_are_skipped() {
        let (mut host, mut guest) = tokio::io::duplex(4096);
        guest.write_all(b"rest of a frame").await.unwrap();
        guest.write_all(&Preamble::new([1; 16]).encode()).await.unwrap();
        let host = async { start_handshake(&mut host, [2; 16], Duration::from_secs(5)).await };
        let guest = async { answer_handshake(&mut guest).await };
        let (host, guest) = tokio::join!(host, guest);
        host.unwrap();
        guest.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_waits_takes_the_next_host_whenever_it_comes() {
        let (mut host, mut guest) = tokio::io::duplex(4096);
        host.write_all(b"the last of a multiplexer").await.unwrap();
        let guest = async {
            say_waiting(&mut guest).await.unwrap();
            answer_handshake_whenever(&mut guest).await.unwrap();
        };
        let host = async {
            // The multiplexer's share of it.
            host.read_exact(&mut [0; 12]).await.unwrap();
            until_waiting(&mut host).await.unwrap();
            tokio::time::sleep(Duration::from_secs(3600)).await;
            start_handshake(&mut host, [3; 16], Duration::from_secs(5)).await.unwrap();
        };
        tokio::join!(host, guest);
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_never_speaks_is_given_up() {
        let (mut host, _guest) = tokio::io::duplex(4096);
        let error = start_handshake(&mut host, [2; 16], Duration::from_secs(60)).await.unwrap_err();
        assert!(matches!(error, LinkError::Silent { what: "a boot", seconds: 60 }));
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_preamble_is_given_up() {
        let (mut host, mut guest) = tokio::io::duplex(4096);
        guest.write_all(b"ANTE").await.unwrap();
        let error = start_handshake(&mut host, [2; 16], Duration::from_secs(90)).await.unwrap_err();
        assert!(matches!(error, LinkError::Silent { what: "a handshake", .. }));
    }
}
