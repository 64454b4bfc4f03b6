//! A client of Firecracker's API: HTTP over a Unix socket, one connection for the VM's life.
//!
//! The resources are those of src/firecracker/swagger/firecracker.yaml in Firecracker's repository.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::time::{Duration, Instant};

use hyper::body::{Body, Incoming};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long Firecracker may take to make its socket. On an emulated processor it has been seen to take 0.3 s.
const START: Duration = Duration::from_secs(10);

/// How often its socket is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// How long it may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// Longest answer that is read, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// A call failed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// Its socket is not there, or nobody listens on it.
    #[error("connecting to Firecracker's API at {} failed for {} s", path.display(), START.as_secs())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The last try's error.
        #[source]
        source: io::Error,
    },
    /// Firecracker answered that it does not do that.
    #[error("Firecracker refused {method} {resource} with status {status}: {fault}")]
    Refused {
        /// What was called.
        method: Method,
        /// On what.
        resource: &'static str,
        /// HTTP's status.
        status: StatusCode,
        /// `fault_message` of the answer, or all of it.
        fault: String,
    },
    /// The connection broke.
    #[error("calling {method} {resource} of Firecracker's API failed")]
    Broken {
        /// What was called.
        method: Method,
        /// On what.
        resource: &'static str,
        /// Why.
        #[source]
        source: hyper::Error,
    },
    /// There was no answer.
    #[error("Firecracker did not answer {method} {resource} within {seconds} s")]
    Late {
        /// What was called.
        method: Method,
        /// On what.
        resource: &'static str,
        /// The limit.
        seconds: u64,
    },
    /// The answer is not what the API describes.
    #[error("Firecracker's answer to {method} {resource} is not what its API describes")]
    Unreadable {
        /// What was called.
        method: Method,
        /// On what.
        resource: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
}

/// A connection to one Firecracker.
pub struct Api(Mutex<SendRequest<String>>);

impl Api {
    /// Waits until Firecracker listens at `path`, and connects. On a `LocalSet`.
    pub async fn connect(path: &Path) -> Result<Self, ApiError> {
        let began = Instant::now();
        let failed = |source| ApiError::Connect { path: path.to_path_buf(), source };
        let stream = loop {
            match UnixStream::connect(path).await {
                Ok(stream) => break stream,
                Err(error) if began.elapsed() > START => return Err(failed(error)),
                Err(_) => tokio::time::sleep(LOOK_EVERY).await,
            }
        };
        let (sender, connection) = handshake(TokioIo::new(stream))
            .await
            .map_err(|error| failed(io::Error::other(error)))?;
        // It ends with the VM; who calls sees the error.
        tokio::task::spawn_local(async move { drop(connection.await) });
        Ok(Self(Mutex::new(sender)))
    }

    /// Sets what `resource` is.
    pub async fn put(&self, resource: &'static str, body: &impl Serialize) -> Result<(), ApiError> {
        self.put_json(resource, json(body)).await
    }

    /// Sets what `resource` is, in JSON already.
    pub async fn put_json(&self, resource: &'static str, body: String) -> Result<(), ApiError> {
        self.call(&Method::PUT, resource, body, ANSWER).await.map(drop)
    }

    /// Changes what `resource` is.
    pub async fn patch(
        &self,
        resource: &'static str,
        body: &impl Serialize,
    ) -> Result<(), ApiError> {
        self.call(&Method::PATCH, resource, json(body), ANSWER).await.map(drop)
    }

    /// Sets what `resource` is, which may take so long.
    pub async fn put_within(
        &self,
        limit: Duration,
        resource: &'static str,
        body: &impl Serialize,
    ) -> Result<(), ApiError> {
        self.call(&Method::PUT, resource, json(body), limit).await.map(drop)
    }

    /// Reads `resource`.
    pub async fn get<T: DeserializeOwned>(&self, resource: &'static str) -> Result<T, ApiError> {
        let method = Method::GET;
        let answer = self.call(&method, resource, String::new(), ANSWER).await?;
        serde_json::from_slice(&answer).map_err(|source| ApiError::Unreadable {
            method,
            resource,
            source,
        })
    }

    async fn call(
        &self,
        method: &Method,
        resource: &'static str,
        body: String,
        limit: Duration,
    ) -> Result<Vec<u8>, ApiError> {
        let broken = |source| ApiError::Broken { method: method.clone(), resource, source };
        let called = async {
            let request = Request::builder()
                .method(method)
                .uri(resource)
                .header("host", "localhost")
                .header("content-type", "application/json")
                .body(body)
                .expect("the request's parts are constants");
            let mut sender = self.0.lock().await;
            sender.ready().await.map_err(broken)?;
            let (head, body) = sender.send_request(request).await.map_err(broken)?.into_parts();
            Ok((head.status, read(body).await.map_err(broken)?))
        };
        let seconds = limit.as_secs();
        let late = |_| ApiError::Late { method: method.clone(), resource, seconds };
        let (status, answer) = timeout(limit, called).await.map_err(late)??;
        if status.is_success() {
            return Ok(answer);
        }
        Err(ApiError::Refused {
            method: method.clone(),
            resource,
            status,
            fault: fault_in(&answer),
        })
    }
}

fn json(body: &impl Serialize) -> String {
    serde_json::to_string(body).expect("requests are plain data")
}

/// What is longer than an answer can be is left unread.
async fn read(mut body: Incoming) -> Result<Vec<u8>, hyper::Error> {
    let mut whole = Vec::new();
    while whole.len() < LONGEST_ANSWER {
        let frame = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
        let Some(frame) = frame.transpose()? else { break };
        whole.extend_from_slice(frame.data_ref().map_or(&[], |data| data));
    }
    Ok(whole)
}

/// Its message, on one line.
fn fault_in(answer: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Fault {
        fault_message: String,
    }
    let text = match serde_json::from_slice::<Fault>(answer) {
        Ok(fault) => fault.fault_message,
        Err(_) => String::from_utf8_lossy(answer).into_owned(),
    };
    super::one_line(&text)
}

#[cfg(test)]
pub(super) mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixListener;
    use tokio::task::LocalSet;

    use super::*;

    /// A fake Firecracker that gives these answers in order, the bodies as real ones were recorded.
    /// Returns what it was asked.
    pub(in crate::firecracker) async fn against(
        answers: &'static [&'static str],
        calls: impl AsyncFnOnce(Api),
    ) -> Vec<String> {
        let said = Rc::new(RefCell::new(Vec::new()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("api");
        let fake = async {
            let listener = UnixListener::bind(&path).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 4096];
            for answer in answers {
                let length = stream.read(&mut asked).await.unwrap();
                let asked = String::from_utf8_lossy(&asked[..length]).into_owned();
                said.borrow_mut().push(asked);
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        };
        let client = async { calls(Api::connect(&path).await.unwrap()).await };
        LocalSet::new().run_until(async { tokio::join!(fake, client) }).await;
        said.take()
    }

    #[tokio::test]
    async fn what_firecracker_refuses_is_reported_as_it_says_it() {
        let answers: &[&str] = &[
            "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n",
            "HTTP/1.1 400 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: 83\r\n\r\n{\"fault_message\":\"The kernel file cannot be opened: No such file or directory (2)\"}",
            "HTTP/1.1 200 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: 32\r\n\r\n{\"firecracker_version\":\"1.16.1\"}",
        ];
        against(answers, async |api| {
            api.put("/entropy", &serde_json::json!({})).await.unwrap();
            let error = api.put("/boot-source", &serde_json::json!({})).await.unwrap_err();
            assert_eq!(
                error.to_string(),
                "Firecracker refused PUT /boot-source with status 400 Bad Request: \
                 The kernel file cannot be opened: No such file or directory (2)"
            );
            let version: serde_json::Value = api.get("/version").await.unwrap();
            assert_eq!(version["firecracker_version"], "1.16.1");
            // Its end.
            let error = api.put("/actions", &serde_json::json!({})).await.unwrap_err();
            assert_eq!(error.to_string(), "calling PUT /actions of Firecracker's API failed");
        })
        .await;
    }
}
