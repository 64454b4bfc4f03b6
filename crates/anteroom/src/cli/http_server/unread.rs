//! What a handler leaves unread of a request's body is read and thrown away before the answer goes.
//!
//! Hyper closes a connection whose request has not arrived whole when its answer is ready. Most often
//! the answer said nothing of that, and the client's next request on it is lost (RFC 9112, 9.3 and 9.6).

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, header};
use hyper::body::{Body as _, Frame, SizeHint};

/// The most that is thrown away, in bytes, and how long that may take.
const MOST: usize = 32 * 1024 * 1024;
const LONGEST: Duration = Duration::from_secs(5);

/// A request's body, which stays ours when its handler has no more use for it.
#[derive(Clone)]
pub struct Shared {
    body: Arc<Mutex<Body>>,
    /// The client waits until somebody reads (RFC 9110, 10.1.1): asking for what nobody wants would
    /// be a waste.
    asks_first: bool,
}

impl Shared {
    /// The body of a request with these headers.
    pub fn new(headers: &HeaderMap, body: Body) -> Self {
        let asks_first = headers.contains_key(header::EXPECT);
        Self { body: Arc::new(Mutex::new(body)), asks_first }
    }

    /// What the handler is to read.
    pub fn for_handler(&self) -> Body {
        Body::new(self.clone())
    }

    /// Reads what is left. Whether the connection can serve another request after that.
    pub async fn discard(mut self) -> bool {
        if self.is_end_stream() {
            return true;
        }
        if self.asks_first {
            return false;
        }
        let discard = async {
            let mut length = 0_usize;
            while let Some(frame) = poll_fn(|context| Pin::new(&mut self).poll_frame(context)).await
            {
                let Ok(frame) = frame else { return false };
                length = length.saturating_add(frame.data_ref().map_or(0, Bytes::len));
                if length > MOST {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(LONGEST, discard).await.unwrap_or(false)
    }

    fn with<T>(&self, look: impl FnOnce(Pin<&mut Body>) -> T) -> T {
        let mut body = self.body.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        look(Pin::new(&mut body))
    }
}

impl hyper::body::Body for Shared {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        self.with(|body| body.poll_frame(context))
    }

    fn is_end_stream(&self) -> bool {
        self.with(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        self.with(|body| body.size_hint())
    }
}
