//! JSON lines with a bound, as both ends of the control socket speak them.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// The next message, or `None` at the end. A longer line than `limit` bytes is an error and costs no
/// more memory than that.
pub async fn read<T, R>(reader: &mut R, limit: usize) -> io::Result<Option<T>>
where
    T: DeserializeOwned,
    R: AsyncBufRead + Unpin,
{
    let mut line = Vec::new();
    let bound = u64::try_from(limit).unwrap_or(u64::MAX);
    if reader.take(bound).read_until(b'\n', &mut line).await? == 0 {
        return Ok(None);
    }
    if line.last() != Some(&b'\n') {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("a line is longer than {limit} bytes, or was cut off"),
        ));
    }
    serde_json::from_slice(&line)
        .map(Some)
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Writes one message and its line end.
pub async fn write<T, W>(writer: &mut W, message: &T) -> io::Result<()>
where
    T: Serialize,
    W: AsyncWrite + Unpin,
{
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line).await?;
    writer.flush().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_line_is_refused_without_being_read_whole() {
        let endless = vec![b'1'; 1000];
        let error = read::<u64, _>(&mut &endless[..], 100).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
        assert_eq!(read::<u64, _>(&mut &b"12\n"[..], 100).await.unwrap(), Some(12));
        assert_eq!(read::<u64, _>(&mut &b""[..], 100).await.unwrap(), None);
    }
}
