//! A tiny HTTP server on the guest's loopback: the page Chromium waits on, and the way on from it.
//!
//! `GET /` answers with the waiting page, or with a redirect when the URL is known. The page's script
//! asks for `/known`, which is held until the URL is known and answers with it, and goes there: a redirect
//! would have Chromium prepare a frame for our own site first, and another once it knows better.
//! A page that loads turns a wheel in its tab, with some 15 frames a second where a VM is emulated: nothing
//! loads here. Without scripts the page goes to `/sign-in` at once, which is held too, and redirects.
//!
//! In a sandbox that verifies its image the page is another one: it finds out what the browser can, and
//! sends it to `/found`.

use std::cell::Cell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anteroom_guest_protocol::PageFacts;
use anyhow::{Context, Result};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

const PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Preparing</title>\
<meta name=referrer content=no-referrer><link rel=icon href=data:,>\
<script>const wait=()=>fetch('/known').then(known=>known.text()).then(url=>location.replace(url))\
.catch(()=>setTimeout(wait,500));wait()</script>\
<noscript><meta http-equiv=refresh content=\"0;url=/sign-in\"></noscript>\
<style>body{margin:0;height:100vh;display:grid;place-items:center;font:22px sans-serif;\
background:#f4f5f7;color:#333}</style><p>Preparing the sign-in page…</p></html>";

const VERIFICATION_PAGE: &str = include_str!("verification_page.html");

/// Names under `localhost` are the guest's own (RFC 6761), and Chromium asks nobody for them. With this
/// one the page is a site of its own: no page of a tool on `127.0.0.1` is drawn by its renderer.
const NAME: &str = "anteroom.localhost";

/// The longest request taken, in bytes.
const MAX_REQUEST: u64 = 16 * 1024;

/// Which page the browser starts on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstPage {
    /// It waits for the sign-in.
    Waiting,
    /// It finds out what the browser can.
    Verification,
}

/// The waiting page and what is known of it.
#[derive(Clone)]
pub struct WaitingPage {
    address: SocketAddr,
    first: FirstPage,
    found: watch::Sender<Option<PageFacts>>,
    url: watch::Sender<Option<String>>,
    asked: Rc<Notify>,
    led_on: Rc<Notify>,
    has_led: Rc<Cell<bool>>,
}

impl WaitingPage {
    /// Starts serving.
    pub async fn serve(first: FirstPage) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("opening the waiting page's port failed")?;
        let page = Self {
            address: listener.local_addr()?,
            first,
            found: watch::channel(None).0,
            url: watch::channel(None).0,
            asked: Rc::new(Notify::new()),
            led_on: Rc::new(Notify::new()),
            has_led: Rc::default(),
        };
        let serving = page.clone();
        tokio::task::spawn_local(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let page = serving.clone();
                tokio::task::spawn_local(async move {
                    // A browser that goes away mid-request needs no answer.
                    let _ = page.answer(connection).await;
                });
            }
        });
        Ok(page)
    }

    /// Where the browser starts.
    pub fn address(&self) -> String {
        format!("http://{NAME}:{}/", self.address.port())
    }

    /// Makes the page lead on to `url`. Whether it has not led on before, and does now by itself.
    pub fn lead_to(&self, url: &str) -> bool {
        self.url.send_replace(Some(url.to_owned()));
        !self.has_led.get()
    }

    /// The browser asked for the page: it runs, and has a window.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The browser was given the URL.
    pub async fn led_on(&self) {
        self.led_on.notified().await;
    }

    /// What the verification page found, once it has.
    pub fn found(&self) -> watch::Receiver<Option<PageFacts>> {
        self.found.subscribe()
    }

    async fn answer(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let Asked { path, body } =
            tokio::time::timeout(Duration::from_secs(10), asked(&mut connection))
                .await
                .map_err(std::io::Error::other)??;
        self.asked.notify_one();
        if self.first == FirstPage::Verification
            && path == "/found"
            && let Ok(facts) = serde_json::from_slice(&body)
        {
            self.found.send_replace(Some(facts));
        }
        let known = self.url.borrow().clone();
        let response = match (path.as_str(), known) {
            ("/" | "/sign-in", Some(url)) => self.redirect(&url),
            ("/", None) => {
                let page = match self.first {
                    FirstPage::Waiting => PAGE,
                    FirstPage::Verification => VERIFICATION_PAGE,
                };
                ok("text/html", page)
            }
            ("/sign-in", None) => {
                let url = self.known().await?;
                self.redirect(&url)
            }
            ("/known", _) => {
                let url = self.known().await?;
                self.leads_on();
                ok("text/plain", &url)
            }
            _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                .to_owned(),
        };
        connection.write_all(response.as_bytes()).await?;
        connection.shutdown().await
    }

    /// The URL, once it is known.
    async fn known(&self) -> std::io::Result<String> {
        let mut changes = self.url.subscribe();
        let url = changes.wait_for(Option::is_some).await.map_err(std::io::Error::other)?.clone();
        Ok(url.unwrap_or_default())
    }

    /// The browser has the URL with the answer that follows.
    fn leads_on(&self) {
        self.has_led.set(true);
        self.led_on.notify_one();
    }

    fn redirect(&self, url: &str) -> String {
        self.leads_on();
        // `url` came through a URL parser, which leaves no line break in it.
        format!(
            "HTTP/1.1 302 Found\r\nLocation: {url}\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
    }
}

fn ok(kind: &str, content: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {kind}; charset=utf-8\r\nCache-Control: no-store\r\n\
         Content-Length: {}\r\nConnection: close\r\n\r\n{content}",
        content.len()
    )
}

/// A request.
struct Asked {
    path: String,
    body: Vec<u8>,
}

/// Reads a whole request.
async fn asked(connection: &mut TcpStream) -> std::io::Result<Asked> {
    let mut reader = BufReader::new(connection.take(MAX_REQUEST));
    let mut request = String::new();
    reader.read_line(&mut request).await?;
    let length = body_length(&mut reader).await?;
    let mut body = Vec::new();
    reader.take(length).read_to_end(&mut body).await?;
    Ok(Asked { path: request.split(' ').nth(1).unwrap_or_default().to_owned(), body })
}

/// Reads the head to its end, for `Content-Length`.
async fn body_length(reader: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<u64> {
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).await? == 0 || line.trim_end().is_empty() {
            return Ok(length);
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap_or(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn get(page: &WaitingPage, path: &str) -> String {
        let mut connection = TcpStream::connect(page.address).await.unwrap();
        connection
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn the_held_request_leads_on_when_the_url_comes() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let page = WaitingPage::serve(FirstPage::Waiting).await.unwrap();
                assert!(get(&page, "/").await.contains("Preparing the sign-in page"));
                page.asked().await;
                let waiting = page.clone();
                let held = tokio::task::spawn_local(async move { get(&waiting, "/sign-in").await });
                page.asked().await;
                let waiting = page.clone();
                let script = tokio::task::spawn_local(async move { get(&waiting, "/known").await });
                page.asked().await;
                page.lead_to("https://x.test/a");
                assert!(script.await.unwrap().ends_with("\r\n\r\nhttps://x.test/a"));
                assert!(held.await.unwrap().contains("Location: https://x.test/a\r\n"));
                page.led_on().await;
                assert!(get(&page, "/").await.starts_with("HTTP/1.1 302"));
                assert!(get(&page, "/x").await.starts_with("HTTP/1.1 404"));
            })
            .await;
    }

    #[tokio::test]
    async fn a_verification_page_reports_its_findings() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let page = WaitingPage::serve(FirstPage::Verification).await.unwrap();
                assert!(get(&page, "/").await.contains("This image is being verified"));
                let facts = PageFacts { user_agent: "x".into(), ..PageFacts::default() };
                let body = serde_json::to_string(&facts).unwrap();
                let mut connection = TcpStream::connect(page.address).await.unwrap();
                let length = body.len();
                let request =
                    format!("POST /found HTTP/1.1\r\nContent-Length: {length}\r\n\r\n{body}");
                connection.write_all(request.as_bytes()).await.unwrap();
                let mut found = page.found();
                assert_eq!(*found.wait_for(Option::is_some).await.unwrap(), Some(facts));
            })
            .await;
    }
}
