//! Framing of JSON messages: `u32` big-endian length, then the JSON.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the length before each message.
pub const LENGTH_BYTES: usize = 4;

/// A message that cannot be taken or sent.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// The announced length is over the limit. Nothing was allocated for it.
    #[error("a message of {announced} bytes was announced; at most {limit} are allowed")]
    TooLong {
        /// Announced length in bytes.
        announced: u64,
        /// The limit of this stream.
        limit: usize,
    },
    /// The bytes are not a known message.
    #[error("a message does not follow the protocol")]
    NotOfTheProtocol(#[source] serde_json::Error),
}

/// The length of the message whose first four bytes these are.
///
/// # Errors
/// When it is over `limit` bytes.
pub fn announced_length(prefix: [u8; LENGTH_BYTES], limit: usize) -> Result<usize, MessageError> {
    let announced = u32::from_be_bytes(prefix);
    match usize::try_from(announced) {
        Ok(length) if length <= limit => Ok(length),
        _ => Err(MessageError::TooLong { announced: u64::from(announced), limit }),
    }
}

/// Reads one message from the bytes after its length.
///
/// # Errors
/// When the bytes are not JSON of a `T`; unknown types and fields are refused.
pub fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, MessageError> {
    serde_json::from_slice(body).map_err(MessageError::NotOfTheProtocol)
}

/// Length and JSON of one message.
///
/// # Errors
/// When it would be over `limit` bytes.
pub fn encode<T: Serialize>(message: &T, limit: usize) -> Result<Vec<u8>, MessageError> {
    let mut bytes = vec![0; LENGTH_BYTES];
    serde_json::to_writer(&mut bytes, message).map_err(MessageError::NotOfTheProtocol)?;
    let length = bytes.len() - LENGTH_BYTES;
    let too_long = || MessageError::TooLong { announced: length as u64, limit };
    let prefix = u32::try_from(length).map_err(|_| too_long())?;
    if length > limit {
        return Err(too_long());
    }
    bytes[..LENGTH_BYTES].copy_from_slice(&prefix.to_be_bytes());
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{GuestMessage, HostMessage, MAX_CONTROL_MESSAGE};

    #[test]
    fn four_gigabytes_are_refused_by_the_length_alone() {
        let error = announced_length([0xff; 4], MAX_CONTROL_MESSAGE).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a message of 4294967295 bytes was announced; at most 3145728 are allowed"
        );
    }

    #[test]
    fn unknown_types_and_fields_are_refused() {
        assert!(decode::<GuestMessage>(br#"{"type":"format_disk"}"#).is_err());
        assert!(decode::<HostMessage>(br#"{"type":"shutdown","now":true}"#).is_err());
        assert!(decode::<HostMessage>(br#"{"type":"shutdown"}"#).is_ok());
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_decoder(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<GuestMessage>(&bytes);
            let _ = decode::<crate::input::InputEvent>(&bytes);
        }
    }
}
