//! Looks at each request's head as it comes by, for what hyper forgives: a body whose length is given in
//! two ways. A proxy before us may believe the other one, and take what follows for another request
//! (request smuggling; RFC 9112, 6.3).

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes of a head that are kept; hyper takes no longer one.
const MAX_HEAD: usize = 512 * 1024;

/// What was seen of a connection. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Seen(Arc<AtomicBool>);

impl Seen {
    /// Whether a request gives its body's length in two ways.
    pub fn ambiguous(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A connection that is looked at.
pub struct HeadWatch<S> {
    stream: S,
    place: Place,
    seen: Seen,
}

/// Where in the bytes that come we are.
#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// In a head, of which this came so far.
    Head(Vec<u8>),
    /// In a body that has so many bytes left.
    Body(u64),
    /// Behind a head after which no other is taken from this connection.
    Last,
}

impl<S> HeadWatch<S> {
    /// Looks at what comes by this stream.
    pub fn new(stream: S) -> (Self, Seen) {
        let seen = Seen::default();
        (Self { stream, place: Place::Head(Vec::new()), seen: seen.clone() }, seen)
    }
}

impl Place {
    /// Takes the next bytes; whether one of the heads in them is ambiguous.
    fn take(&mut self, mut bytes: &[u8]) -> bool {
        let mut ambiguous = false;
        while !bytes.is_empty() {
            match self {
                Self::Last => return ambiguous,
                Self::Body(left) => {
                    let here = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes.len());
                    *left -= here as u64;
                    bytes = &bytes[here..];
                    if *left == 0 {
                        *self = Self::Head(Vec::new());
                    }
                }
                Self::Head(head) => {
                    let (byte, rest) = (bytes[0], &bytes[1..]);
                    bytes = rest;
                    // Empty lines before a request do not belong to it.
                    if head.is_empty() && matches!(byte, b'\r' | b'\n') {
                        continue;
                    }
                    head.push(byte);
                    if byte == b'\n' && ends(head) {
                        let framing = Framing::of(head);
                        ambiguous |= framing.is_ambiguous();
                        *self = framing.after();
                    } else if head.len() > MAX_HEAD {
                        *self = Self::Last;
                    }
                }
            }
        }
        ambiguous
    }
}

fn ends(head: &[u8]) -> bool {
    head.ends_with(b"\n\r\n") || head.ends_with(b"\n\n")
}

/// What a head says of its body.
#[derive(Default)]
struct Framing {
    lengths: Vec<Option<u64>>,
    is_chunked: bool,
}

impl Framing {
    fn of(head: &[u8]) -> Self {
        let mut framing = Self::default();
        for line in head.split(|byte| *byte == b'\n').skip(1) {
            let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
            let (name, value) = (&line[..colon], &line[colon + 1..]);
            if name.eq_ignore_ascii_case(b"content-length") {
                let value = std::str::from_utf8(value).unwrap_or_default();
                framing.lengths.push(value.trim().parse().ok());
            } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
                framing.is_chunked = true;
            }
        }
        framing
    }

    fn is_ambiguous(&self) -> bool {
        self.lengths.len() + usize::from(self.is_chunked) > 1
    }

    /// A body in chunks is not followed: its connection is closed after it.
    fn after(&self) -> Place {
        match self.lengths.as_slice() {
            _ if self.is_chunked => Place::Last,
            [] | [Some(0)] => Place::Head(Vec::new()),
            [Some(length)] => Place::Body(*length),
            _ => Place::Last,
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for HeadWatch<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let Self { stream, place, seen } = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(stream).poll_read(context, buffer);
        if place.take(&buffer.filled()[before..]) {
            seen.0.store(true, Ordering::Relaxed);
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for HeadWatch<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether any head is ambiguous, however the bytes are cut.
    fn ambiguous(text: &str) -> bool {
        let bytes = text.replace('\n', "\r\n").into_bytes();
        let whole = Place::Head(Vec::new()).take(&bytes);
        for size in 1..bytes.len() {
            let mut place = Place::Head(Vec::new());
            let mut seen = false;
            for piece in bytes.chunks(size) {
                seen |= place.take(piece);
            }
            assert_eq!(seen, whole, "in pieces of {size}");
        }
        whole
    }

    #[test]
    fn two_lengths_are_seen_wherever_they_stand() {
        let post = "POST / HTTP/1.1\nHost: a\n";
        assert!(ambiguous(&format!("{post}Transfer-Encoding: chunked\nContent-Length: 3\n\nabc")));
        assert!(ambiguous(&format!("{post}content-length: 3\nTRANSFER-ENCODING: chunked\n\nabc")));
        assert!(ambiguous(&format!("{post}Content-Length: 3\nContent-Length: 3\n\nabc")));
        let first = format!("GET / HTTP/1.1\nHost: a\n\n{post}Content-Length: 4\n\nab\n");
        assert!(!ambiguous(&first));
        assert!(ambiguous(&format!("{first}{post}Content-Length: 1\nTransfer-Encoding: x\n\n")));
    }

    #[test]
    fn bodies_are_no_heads() {
        let inner = "GET / HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: chunked\n\n";
        let length = inner.replace('\n', "\r\n").len();
        assert!(!ambiguous(&format!("POST / HTTP/1.1\nContent-Length: {length}\n\n{inner}")));
        assert!(!ambiguous(&format!("POST / HTTP/1.1\nTransfer-Encoding: chunked\n\n{inner}")));
        assert!(!ambiguous("GET / HTTP/1.1\nX-Content-Length: 1\nTransfer-Encoding : x\n\n"));
    }
}
