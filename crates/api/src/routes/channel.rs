//! WebSockets of the end user's viewer: the CLI's terminal, and VNC.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::backend::{Backend, Channel};
use crate::extract::Viewer;
use crate::problem::{Problem, ProblemCode};

/// The longest message taken from a viewer, in bytes: a paste.
const MAX_MESSAGE: usize = 64 * 1024;

/// Bytes sent to a viewer in one message at most.
const PIECE: usize = 32 * 1024;

/// How often a viewer is asked whether it is there; a proxy closes what is silent for a minute.
const PING_EVERY: Duration = Duration::from_secs(20);

/// How long a viewer may take what is sent to it.
const TAKE: Duration = Duration::from_secs(30);

/// How long a viewer may take to hear that it was revoked, before its connection is dropped.
const FAREWELL: Duration = Duration::from_millis(500);

type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;

/// Open the tool's terminal as a WebSocket with binary messages: to the viewer what draws the screen (36
/// rows, 120 columns; UTF-8 with escape sequences for text, colours and cursor movements only), from the
/// viewer what is typed.
#[utoipa::path(get, path = "/api/viewer/session/{id}/terminal", params(("id" = String, Path)), security(("viewerCookie" = []), ("apiKey" = [])), responses(
    (status = 101, description = "The connection is now a WebSocket"), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem, description = "There is no terminal"),
    (status = 426, body = Problem, description = "The request is not a WebSocket upgrade"),
    (status = 504, body = Problem, description = "The session's runner does not respond")
))]
pub(super) async fn terminal<B: Backend>(
    State(backend): State<Arc<B>>,
    Viewer(id, principal): Viewer,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let upgrade = web_socket(upgrade)?;
    let channel = backend.terminal(id, &principal).await?;
    Ok(upgrade.on_upgrade(move |socket| carry(socket, channel)))
}

/// Open the desktop over VNC as a WebSocket: RFB (RFC 6143) in binary messages, as noVNC uses it. There is
/// no password: access to the session is access to its desktop.
#[utoipa::path(get, path = "/api/auth/session/{id}/vnc", params(("id" = String, Path)), security(("viewerCookie" = []), ("apiKey" = [])), responses(
    (status = 101, description = "The connection is now a WebSocket"), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 404, body = Problem), (status = 409, body = Problem, description = "There is no desktop"),
    (status = 426, body = Problem, description = "The request is not a WebSocket upgrade"),
    (status = 504, body = Problem, description = "The session's runner does not respond")
))]
pub(super) async fn vnc<B: Backend>(
    State(backend): State<Arc<B>>,
    Viewer(id, principal): Viewer,
    upgrade: Upgrade,
) -> Result<Response, Problem> {
    let upgrade = web_socket(upgrade)?.protocols(["binary"]);
    let channel = backend.vnc(id, &principal).await?;
    Ok(upgrade.on_upgrade(move |socket| carry(socket, channel)))
}

fn web_socket(upgrade: Upgrade) -> Result<WebSocketUpgrade, Problem> {
    let upgrade = upgrade.map_err(|error| {
        let detail = format!("this route accepts only WebSocket connections: {error}");
        Problem::new(ProblemCode::NotWebSocket, detail)
    })?;
    Ok(upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE))
}

/// Carries bytes both ways until one side ends, or the viewer's right does.
async fn carry(socket: WebSocket, channel: Channel) {
    let Channel { from_sandbox, to_sandbox, revoked } = channel;
    let (mut to_viewer, mut from_viewer) = socket.split();
    let carried = tokio::select! {
        carried = carry_bytes(&mut to_viewer, &mut from_viewer, from_sandbox, to_sandbox) => carried,
        () = revoked => Carried::Revoked,
    };
    let _ = match carried {
        Carried::ToTheEnd => tokio::time::timeout(TAKE, to_viewer.close()).await,
        Carried::Stuck => return,
        Carried::Revoked => tokio::time::timeout(FAREWELL, to_viewer.send(farewell())).await,
    };
}

/// How a channel ended.
enum Carried {
    /// One side closed it.
    ToTheEnd,
    /// The viewer takes nothing any more.
    Stuck,
    /// The viewer may not have it any more.
    Revoked,
}

/// The close code that a viewer gets whose right was revoked: a policy's (RFC 6455, 7.4.1).
fn farewell() -> Message {
    Message::Close(Some(CloseFrame { code: close_code::POLICY, reason: "revoked".into() }))
}

async fn carry_bytes(
    to_viewer: &mut SplitSink<WebSocket, Message>,
    from_viewer: &mut SplitStream<WebSocket>,
    mut from_sandbox: impl AsyncRead + Unpin,
    mut to_sandbox: impl AsyncWrite + Unpin,
) -> Carried {
    let mut buffer = vec![0; PIECE];
    let mut ping = tokio::time::interval(PING_EVERY);
    loop {
        let message = tokio::select! {
            read = from_sandbox.read(&mut buffer) => match read {
                Ok(count @ 1..) => Message::Binary(Bytes::copy_from_slice(&buffer[..count])),
                Ok(0) | Err(_) => return Carried::ToTheEnd,
            },
            said = from_viewer.next() => {
                let bytes = match said {
                    Some(Ok(Message::Binary(bytes))) => bytes,
                    Some(Ok(Message::Text(text))) => text.into(),
                    Some(Ok(Message::Ping(_) | Message::Pong(_))) => continue,
                    Some(Ok(Message::Close(_)) | Err(_)) | None => return Carried::ToTheEnd,
                };
                let written = async {
                    to_sandbox.write_all(&bytes).await?;
                    to_sandbox.flush().await
                };
                // A sandbox that takes nothing is stuck; what it sends is not read meanwhile.
                if !matches!(tokio::time::timeout(TAKE, written).await, Ok(Ok(()))) {
                    return Carried::ToTheEnd;
                }
                continue;
            }
            _ = ping.tick() => Message::Ping(Bytes::new()),
        };
        let sent = tokio::time::timeout(TAKE, to_viewer.send(message)).await;
        if !matches!(sent, Ok(Ok(()))) {
            return Carried::Stuck;
        }
    }
}
