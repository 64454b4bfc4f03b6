//! How long a request's body is (RFC 9112, 6): the one reading that every server shares, or none.
//! Pure.

/// Digits of a chunk's size at most; more than any body has.
const MAX_SIZE_DIGITS: u8 = 15;

/// What of a body is still to come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked(Chunk),
}

/// Where in its chunks a body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Chunk {
    /// In a size of so many digits so far.
    Size { digits: u8, size: u64 },
    /// Before the line feed after a size.
    SizeEnd { size: u64 },
    /// So many bytes before a chunk's end.
    Data { left: u64 },
    /// Before the two bytes that end a chunk, or the second of them.
    DataEnd { line_feed: bool },
    /// Before the two bytes that end the body, or the second of them.
    BodyEnd { line_feed: bool },
    /// Behind it all.
    Done,
}

/// A body that servers might read in more than one way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the request's body is not in plain chunks, without extensions and trailers")]
pub(crate) struct BadBody;

impl Body {
    /// A body in chunks, from its beginning.
    pub(crate) fn chunked() -> Self {
        Self::Chunked(Chunk::Size { digits: 0, size: 0 })
    }

    /// Whether all of it was taken.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self, Self::Length(0) | Self::Chunked(Chunk::Done))
    }

    /// How many of these bytes belong to it, as far as it goes.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, BadBody> {
        match self {
            Self::Length(left) => {
                let taken = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                *left -= taken as u64;
                Ok(taken)
            }
            Self::Chunked(chunk) => {
                let mut taken = 0;
                while taken < bytes.len() && *chunk != Chunk::Done {
                    taken += chunk.take(&bytes[taken..])?;
                }
                Ok(taken)
            }
        }
    }
}

impl Chunk {
    /// One step; `bytes` has at least one.
    fn take(&mut self, bytes: &[u8]) -> Result<usize, BadBody> {
        let byte = bytes[0];
        let mut taken = 1;
        *self = match *self {
            Self::Size { digits: 1.., size } if byte == b'\r' => Self::SizeEnd { size },
            Self::Size { digits, size } if digits < MAX_SIZE_DIGITS => {
                let digit = char::from(byte).to_digit(16).ok_or(BadBody)?;
                Self::Size { digits: digits + 1, size: size * 16 + u64::from(digit) }
            }
            Self::SizeEnd { size: 0 } if byte == b'\n' => Self::BodyEnd { line_feed: false },
            Self::SizeEnd { size } if byte == b'\n' => Self::Data { left: size },
            Self::Data { left } => {
                taken = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                match left - taken as u64 {
                    0 => Self::DataEnd { line_feed: false },
                    left => Self::Data { left },
                }
            }
            Self::DataEnd { line_feed: false } if byte == b'\r' => {
                Self::DataEnd { line_feed: true }
            }
            Self::DataEnd { line_feed: true } if byte == b'\n' => Self::Size { digits: 0, size: 0 },
            Self::BodyEnd { line_feed: false } if byte == b'\r' => {
                Self::BodyEnd { line_feed: true }
            }
            Self::BodyEnd { line_feed: true } if byte == b'\n' => Self::Done,
            Self::Size { .. }
            | Self::SizeEnd { .. }
            | Self::DataEnd { .. }
            | Self::BodyEnd { .. }
            | Self::Done => return Err(BadBody),
        };
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What is taken of these bytes when they come in pieces of `step`.
    fn taken(mut body: Body, bytes: &[u8], step: usize) -> Result<(usize, bool), BadBody> {
        let mut all = 0;
        for piece in bytes.chunks(step) {
            let count = body.take(piece)?;
            all += count;
            if count < piece.len() {
                break;
            }
        }
        Ok((all, body.is_done()))
    }

    #[test]
    fn a_body_ends_where_it_ends_however_it_comes() {
        let chunks = b"5\r\nhello\r\n0A\r\n0123456789\r\n0\r\n\r\n";
        let with_more = [chunks, &b"GET / HTTP/1.1\r\n"[..]].concat();
        for step in 1..with_more.len() {
            assert_eq!(taken(Body::chunked(), &with_more, step), Ok((chunks.len(), true)));
            assert_eq!(taken(Body::Length(7), &with_more, step), Ok((7, true)));
        }
        assert_eq!(taken(Body::Length(u64::MAX), chunks, 3), Ok((chunks.len(), false)));
    }

    #[test]
    fn what_two_servers_may_read_in_two_ways_is_refused() {
        for bad in [
            &b"\r\n"[..],
            b"5;ext=1\r\nhello\r\n",
            b"5 \r\nhello\r\n",
            b"5\nhello\r\n",
            b"+5\r\nhello\r\n",
            b"0x5\r\nhello\r\n",
            b"-1\r\n",
            b"5\r\nhello0\r\n\r\n",
            b"5\r\nhelloX\r\n",
            b"0\r\nHost: evil.test\r\n\r\n",
            b"0000000000000005\r\nhello",
            b"ffffffffffffffff\r\n",
        ] {
            assert_eq!(taken(Body::chunked(), bad, 1), Err(BadBody), "{bad:?}");
            assert_eq!(taken(Body::chunked(), bad, 100), Err(BadBody), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn pieces_make_no_difference(
            bytes in prop::collection::vec(prop::sample::select(b"0123aF\r\n;x".to_vec()), 0..60),
            step in 1usize..9,
        ) {
            let whole = taken(Body::chunked(), &bytes, bytes.len().max(1));
            prop_assert_eq!(taken(Body::chunked(), &bytes, step), whole);
        }
    }
}
