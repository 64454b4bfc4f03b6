//! HTTP/1.1 connections: so many at most, so many for each peer, and none that keeps its request's head
//! to itself.
//!
//! `axum::serve` has no such limits: a client that sends half a head, or never reads its answer,
//! would be kept for ever. Where connections get few, none is kept open for a next request.

mod head_watch;
mod shares;
mod unread;

use std::convert::Infallible;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use anteroom_api::{Problem, ProblemCode, Recognized};
use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::counted::counted;
use head_watch::{HeadWatch, Seen};
use shares::{Place, Shares};
use unread::Shared;

/// Connections at a time, where as many files may be open; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 4096;

/// What one peer may have of them, unless said otherwise.
const PER_PEER: usize = 4;

/// How long a request's head may take, and a kept connection be idle.
const HEAD: Duration = Duration::from_secs(30);

/// How long a client may take to read what is sent to it.
const WRITE: Duration = Duration::from_secs(30);

/// How long a head may take where connections get few: half of them are in use.
const CROWDED_HEAD: Duration = Duration::from_secs(5);

/// How long to wait when no connection can be taken: most likely all descriptors are in use.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(200);

/// Clients at a time that receive the refusal, and how long one may take to read it;
/// further ones are just closed.
const REFUSALS: usize = 64;
const REFUSAL: Duration = Duration::from_secs(1);

/// How an HTTP/2 connection without TLS begins (RFC 9113, 3.4); no method of HTTP/1.1 does.
const HTTP2: &[u8] = b"PRI ";

/// How connections are shared out.
#[derive(Clone, Debug)]
pub struct Limits {
    /// In all.
    connections: usize,
    /// For each peer.
    per_peer: usize,
    /// Peers that have no share, since behind them are many.
    proxies: Vec<IpAddr>,
}

impl Limits {
    /// What this process can serve, with at most `per_peer` connections of one address.
    pub fn new(per_peer: Option<usize>, proxies: Vec<IpAddr>) -> Self {
        use nix::sys::resource::{Resource, getrlimit};
        let (files, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        // The other half is for what sessions open.
        let files = usize::try_from(files / 2).unwrap_or(usize::MAX);
        let connections = files.clamp(8, MAX_CONNECTIONS);
        let per_peer = per_peer.unwrap_or(connections / PER_PEER).min(connections);
        Self { connections, per_peer, proxies }
    }

    /// For each peer.
    pub fn per_peer(&self) -> usize {
        self.per_peer
    }
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, app: Router, limits: Limits) {
    let all = limits.connections;
    let connections = Arc::new(Semaphore::new(all));
    let refusals = Arc::new(Semaphore::new(REFUSALS));
    let shares = Shares::new(limits.per_peer, limits.proxies.iter().copied());
    loop {
        let Ok(connection) = Arc::clone(&connections).acquire_owned().await else { return };
        let (stream, peer) = match listener.accept().await {
            Ok((stream, address)) => (stream, address.ip()),
            Err(error) => {
                tracing::warn!("cannot accept a connection: {error}");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                continue;
            }
        };
        let Some(place) = shares.enter(peer) else {
            if let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() {
                tokio::spawn(async move {
                    let _refusal = refusal;
                    let share = limits.per_peer;
                    let refused = tokio::time::timeout(REFUSAL, refuse(stream, share_used(share)));
                    let _ = refused.await;
                });
            }
            continue;
        };
        let crowd = Arc::clone(&connections);
        let is_crowded = move || crowd.available_permits() < all / 2;
        let connection_of = Connection { app: app.clone(), place: Arc::new(place) };
        tokio::spawn(async move {
            let _connection = connection;
            connection_of.serve(stream, is_crowded).await;
        });
    }
}

/// What serves one connection.
struct Connection {
    app: Router,
    place: Arc<Place>,
}

impl Connection {
    async fn serve(self, stream: TcpStream, is_crowded: impl Fn() -> bool + Clone) {
        // Events are small and must not wait for each other.
        let _ = stream.set_nodelay(true);
        let head = if is_crowded() { CROWDED_HEAD } else { HEAD };
        match tokio::time::timeout(head, speaks_http2(&stream)).await {
            Ok(Ok(false)) => {}
            Ok(Ok(true)) => {
                let detail = "this server speaks HTTP/1.1; use a proxy for HTTP/2";
                let refused = refuse(stream, Problem::bad_request(detail));
                let _ = tokio::time::timeout(REFUSAL, refused).await;
                return;
            }
            // It says nothing.
            Ok(Err(_)) | Err(_) => return,
        }
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE));
        let (stream, seen) = HeadWatch::new(Box::pin(stream));
        let service = service_fn(move |request: Request<Incoming>| {
            let (app, place) = (self.app.clone(), Arc::clone(&self.place));
            let (seen, is_crowded) = (seen.clone(), is_crowded.clone());
            async move {
                let chunked = request.headers().contains_key(header::TRANSFER_ENCODING);
                let (head, body) = request.into_parts();
                let body = Shared::new(&head.headers, Body::new(body));
                let request = Request::from_parts(head, body.for_handler());
                let mut response = answer(app, &place, &seen, request).await;
                let is_read = body.discard().await;
                if !is_read || chunked || seen.ambiguous() || is_crowded() {
                    let close = HeaderValue::from_static("close");
                    response.headers_mut().insert(header::CONNECTION, close);
                }
                Ok::<_, Infallible>(response)
            }
        });
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(head)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        // A client that goes away, or speaks no HTTP, needs no answer.
        let _ = connection.await;
    }
}

/// Answers a request: at once to whoever showed a right, at the peer's pace to everybody else.
async fn answer(app: Router, place: &Place, seen: &Seen, mut request: Request<Body>) -> Response {
    if seen.ambiguous() {
        let detail = "the request gives its body's length in two ways";
        return Problem::bad_request(detail).into_response();
    }
    let recognized = Recognized::default();
    request.extensions_mut().insert(recognized.clone());
    let response = match app.oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    };
    if !recognized.is_so() {
        place.turn().await;
    }
    response
}

/// Whether a connection begins as HTTP/2 does. Nothing is taken from it.
async fn speaks_http2(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0; HTTP2.len()];
    loop {
        let count = stream.peek(&mut first).await?;
        if count == HTTP2.len() || first[..count] != HTTP2[..count] {
            return Ok(first == HTTP2);
        }
        if count == 0 {
            return Ok(false);
        }
        // Part of it: the rest is on the way, and a look does not wait for it.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn share_used(share: usize) -> Problem {
    let detail = format!(
        "this address has reached its limit of {}; close some (the operator sets the limit with --connections-per-address, and --trusted-proxy exempts a proxy)",
        counted(share, "connection", "connections")
    );
    Problem::new(ProblemCode::TooManyConnections, detail).retry_after(5)
}

/// Answers whatever is asked with this problem, and closes.
async fn refuse(mut stream: TcpStream, problem: Problem) {
    let body = serde_json::to_vec(&problem).unwrap_or_default();
    let retry = problem.retry_after.map(|seconds| format!("retry-after: {seconds}\r\n"));
    let head = format!(
        "HTTP/1.1 {} {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{}connection: close\r\n\r\n",
        problem.status,
        problem.title,
        body.len(),
        retry.unwrap_or_default()
    );
    let said = async {
        stream.write_all(head.as_bytes()).await?;
        stream.write_all(&body).await?;
        stream.shutdown().await
    };
    if said.await.is_err() {
        return;
    }
    // What the client still sends would have the kernel throw the answer away.
    let mut rest = [0; 4096];
    while matches!(stream.read(&mut rest).await, Ok(1..)) {}
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    fn limits() -> Limits {
        Limits { connections: 8, per_peer: 4, proxies: Vec::new() }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_head_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, Router::new(), limits()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        serving.abort();
    }

    /// A handler that refuses a request unread, and a client whose body comes after the answer could.
    #[tokio::test]
    async fn a_request_refused_unread_leaves_the_connection_to_the_next_one() {
        let (refusing, mut refused) = tokio::sync::mpsc::channel(1);
        let refuse = axum::routing::post(async move || {
            refusing.send(()).await.unwrap();
            axum::http::StatusCode::UNAUTHORIZED
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, Router::new().route("/", refuse), limits()));
        let mut client = TcpStream::connect(address).await.unwrap();
        let head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n";
        for _ in 0..3 {
            client.write_all(head).await.unwrap();
            refused.recv().await.unwrap();
            client.write_all(b"x").await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"\r\n\r\n") {
                assert_ne!(client.read_buf(&mut answer).await.unwrap(), 0, "it was closed");
            }
            let answer = String::from_utf8(answer).unwrap();
            assert!(answer.starts_with("HTTP/1.1 401 ") && !answer.contains("close"), "{answer}");
        }
        // A client that asks first need not send what nobody reads, and learns that this was the last request.
        let asks =
            b"POST / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n";
        client.write_all(asks).await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        serving.abort();
    }

    #[tokio::test]
    async fn a_client_that_never_reads_is_given_up() {
        let large = "x".repeat(64 * 1024 * 1024);
        let app = Router::new().route("/", axum::routing::get(move || async move { large }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, app, limits()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        client.readable().await.unwrap();
        // Only now, so that no timer runs out while there is something to do.
        tokio::time::pause();
        tokio::time::sleep(WRITE * 2).await;
        tokio::time::resume();
        let mut answer = Vec::new();
        let _ = client.read_to_end(&mut answer).await;
        assert!(answer.len() < 64 * 1024 * 1024);
        serving.abort();
    }
}
