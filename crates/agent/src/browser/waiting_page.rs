//! A tiny HTTP server on the guest's loopback: the page Chromium waits on, and the redirect from it.
//!
//! `GET /` answers with the waiting page, or with the redirect when the URL is known. The page asks
//! for `/sign-in` at once, which is held until the URL is known and then redirects, so the browser
//! goes on without a script and without polling.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

const PAGE: &str = "<!doctype html><html lang=en><meta charset=utf-8><title>Preparing</title>\
<meta http-equiv=refresh content=\"0;url=/sign-in\">\
<style>body{margin:0;height:100vh;display:grid;place-items:center;font:22px sans-serif;\
background:#f4f5f7;color:#333}</style><p>Preparing the sign-in page…</p></html>";

/// The longest request head taken, in bytes.
const MAX_HEAD: u64 = 16 * 1024;

/// The waiting page and what is known of it.
#[derive(Clone)]
pub struct WaitingPage {
    address: SocketAddr,
    url: watch::Sender<Option<String>>,
    asked: Rc<Notify>,
    led_on: Rc<Notify>,
}

impl WaitingPage {
    /// Starts serving.
    pub async fn serve() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))
            .await
            .context("opening the waiting page's port failed")?;
        let page = Self {
            address: listener.local_addr()?,
            url: watch::channel(None).0,
            asked: Rc::new(Notify::new()),
            led_on: Rc::new(Notify::new()),
        };
        let serving = page.clone();
        tokio::task::spawn_local(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let page = serving.clone();
                tokio::task::spawn_local(async move {
                    // A browser that goes away mid-request has nothing to be told.
                    let _ = page.answer(connection).await;
                });
            }
        });
        Ok(page)
    }

    /// Where the browser starts.
    pub fn address(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Makes the page lead on to `url`.
    pub fn lead_to(&self, url: &str) {
        self.url.send_replace(Some(url.to_owned()));
    }

    /// The browser asked for the page: it runs, and has a window.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The browser was redirected to the URL.
    pub async fn led_on(&self) {
        self.led_on.notified().await;
    }

    async fn answer(&self, mut connection: TcpStream) -> std::io::Result<()> {
        let path = tokio::time::timeout(Duration::from_secs(10), requested_path(&mut connection))
            .await
            .map_err(std::io::Error::other)??;
        self.asked.notify_one();
        let known = self.url.borrow().clone();
        let response = match (path.as_str(), known) {
            ("/" | "/sign-in", Some(url)) => self.redirect(&url),
            ("/", None) => format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/html; charset=utf-8\r\nCache-Control: no-store\r\n\
                 Content-Length: {}\r\nConnection: close\r\n\r\n{PAGE}",
                PAGE.len()
            ),
            ("/sign-in", None) => {
                let mut changes = self.url.subscribe();
                let url =
                    changes.wait_for(Option::is_some).await.map_err(std::io::Error::other)?.clone();
                self.redirect(&url.unwrap_or_default())
            }
            _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
                .to_owned(),
        };
        connection.write_all(response.as_bytes()).await?;
        connection.shutdown().await
    }

    fn redirect(&self, url: &str) -> String {
        self.led_on.notify_one();
        // `url` came through a URL parser, which leaves no line break in it.
        format!(
            "HTTP/1.1 302 Found\r\nLocation: {url}\r\nCache-Control: no-store\r\nReferrer-Policy: no-referrer\r\n\
             Content-Length: 0\r\nConnection: close\r\n\r\n"
        )
    }
}

/// The path of the request; reads the whole head.
async fn requested_path(connection: &mut TcpStream) -> std::io::Result<String> {
    let mut lines = BufReader::new(connection.take(MAX_HEAD)).lines();
    let request = lines.next_line().await?.unwrap_or_default();
    while lines.next_line().await?.is_some_and(|line| !line.is_empty()) {}
    Ok(request.split(' ').nth(1).unwrap_or_default().to_owned())
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
                let page = WaitingPage::serve().await.unwrap();
                assert!(get(&page, "/").await.contains("Preparing the sign-in page"));
                page.asked().await;
                let waiting = page.clone();
                let held = tokio::task::spawn_local(async move { get(&waiting, "/sign-in").await });
                page.asked().await;
                page.lead_to("https://x.test/a");
                assert!(held.await.unwrap().contains("Location: https://x.test/a\r\n"));
                page.led_on().await;
                assert!(get(&page, "/").await.starts_with("HTTP/1.1 302"));
                assert!(get(&page, "/x").await.starts_with("HTTP/1.1 404"));
            })
            .await;
    }
}
