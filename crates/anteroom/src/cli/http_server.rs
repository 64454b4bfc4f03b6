//! HTTP/1.1 connections: so many at most, and none that keeps its request's head to itself.
//!
//! `axum::serve` has no such limits: a client that sends half a head, or never reads its answer,
//! would be kept for ever. Where connections get few, none is kept open for a next request.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;

/// Connections at a time; further ones wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 2048;

/// How long a request's head may take, and a kept connection be idle.
const HEAD: Duration = Duration::from_secs(30);

/// How long a client may take to read what is sent to it.
const WRITE: Duration = Duration::from_secs(30);

/// From how many connections on each one is closed after its answer.
const CROWDED: usize = MAX_CONNECTIONS / 2;

/// How long a head may take then.
const CROWDED_HEAD: Duration = Duration::from_secs(5);

/// How long to wait when no connection can be taken: most likely all descriptors are in use.
const OUT_OF_DESCRIPTORS: Duration = Duration::from_millis(200);

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, app: Router) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!("taking a connection failed: {error}");
                tokio::time::sleep(OUT_OF_DESCRIPTORS).await;
                continue;
            }
        };
        // Events are small and must not wait for each other.
        let _ = stream.set_nodelay(true);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE));
        let crowd = Arc::clone(&places);
        let is_crowded = move || crowd.available_permits() < MAX_CONNECTIONS - CROWDED;
        let head = if is_crowded() { CROWDED_HEAD } else { HEAD };
        let app = app.clone().layer(map_response(move |response: Response| {
            let crowded = is_crowded();
            async move { if crowded { close_after(response) } else { response } }
        }));
        let service = TowerToHyperService::new(app);
        tokio::spawn(async move {
            let _place = place;
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(head)
                .serve_connection(TokioIo::new(Box::pin(stream)), service)
                .with_upgrades();
            // A client that goes away, or speaks no HTTP, needs no answer.
            let _ = connection.await;
        });
    }
}

fn close_after(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn half_a_head_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, Router::new()));
        let mut client = TcpStream::connect(address).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        serving.abort();
    }

    #[tokio::test]
    async fn a_client_that_never_reads_is_given_up() {
        let large = "x".repeat(64 * 1024 * 1024);
        let app = Router::new().route("/", axum::routing::get(move || async move { large }));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(serve(listener, app));
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
