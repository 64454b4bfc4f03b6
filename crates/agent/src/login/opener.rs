//! Programs that stand in for browser openers: they hand the URL to the agent and exit.

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::AsyncReadExt;
use tokio::net::UnixListener;
use tokio::sync::mpsc;

use crate::room::Room;

/// What `BROWSER` points at. No name that anybody knows: of those that it knows, Python's
/// `webbrowser` takes one that has ended before it looked for one that failed, and starts the next
/// browser that it finds, which is Chromium itself. Of others it waits for the end.
pub const BROWSER: &str = "anteroom-open";

/// What CLIs call to open a browser.
pub const NAMES: [&str; 6] =
    [BROWSER, "xdg-open", "x-www-browser", "www-browser", "gnome-open", "sensible-browser"];

/// Where the agent listens; the CLI's environment carries it.
pub const SOCKET_ENV: &str = "ANTEROOM_OPEN_URL_SOCKET";

/// The longest URL taken, in bytes.
const MAX_URL: u64 = 8 * 1024;

/// Whether the agent was started under an opener's name.
pub fn is_opener(program: &str) -> bool {
    let name = Path::new(program).file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| NAMES.contains(&name))
}

/// The opener's whole life: write the first argument to the agent's socket.
pub fn hand_over(mut arguments: impl Iterator<Item = String>) -> ExitCode {
    let sent = arguments.next().context("no URL was given").and_then(|url| {
        let socket =
            std::env::var_os(SOCKET_ENV).with_context(|| format!("{SOCKET_ENV} is not set"))?;
        let mut agent = UnixStream::connect(socket).context("the agent does not listen")?;
        agent.write_all(url.as_bytes())?;
        agent.shutdown(std::net::Shutdown::Write)?;
        // Until the agent closes: then it has the URL, even if the CLI ends at once.
        agent.read_to_end(&mut Vec::new())?;
        Ok(())
    });
    match sent {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("opening the browser failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Listens for URLs; each well-formed http or https URL arrives on the channel.
pub fn listen(room: &Room) -> Result<(PathBuf, mpsc::Receiver<String>)> {
    let path = room.runtime.join("open-url.sock");
    let listener = UnixListener::bind(&path)
        .with_context(|| format!("listening on {} failed", path.display()))?;
    // The CLI runs as the person; the folder above is readable, nothing else listens there.
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666))?;
    let (sender, receiver) = mpsc::channel(8);
    tokio::task::spawn_local(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::task::spawn_local(async move {
                let mut text = String::new();
                let read = (&mut connection).take(MAX_URL + 1);
                let mut read = std::pin::pin!(read);
                let deadline = Duration::from_secs(10);
                let complete = tokio::time::timeout(deadline, read.read_to_string(&mut text)).await;
                if let (Ok(Ok(_)), Some(url)) = (complete, sign_in_url(&text)) {
                    let _ = sender.send(url).await;
                }
            });
        }
    });
    Ok((path, receiver))
}

/// `text` as a URL that a browser may be sent to.
fn sign_in_url(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = u64::try_from(text.len()).is_ok_and(|length| length <= MAX_URL);
    let url = url::Url::parse(text).ok().filter(|_| fits)?;
    matches!(url.scheme(), "http" | "https").then(|| url.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_web_addresses_are_taken() {
        assert_eq!(sign_in_url(" https://x.test/a?b=c\n").as_deref(), Some("https://x.test/a?b=c"));
        for bad in ["file:///etc/passwd", "javascript:alert(1)", "chrome://settings", "x", ""] {
            assert_eq!(sign_in_url(bad), None, "{bad}");
        }
        assert_eq!(sign_in_url(&format!("https://x.test/{}", "a".repeat(9000))), None);
    }

    #[test]
    fn python_waits_for_what_browser_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in NAMES {
            std::os::unix::fs::symlink("/bin/true", folder.path().join(name)).unwrap();
        }
        let kind = |name: &str| {
            let mut python = std::process::Command::new("python3");
            python
                .args(["-c", "import webbrowser; print(type(webbrowser.get()).__name__)"])
                .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
                .env("BROWSER", folder.path().join(name))
                .env("DISPLAY", ":1");
            String::from_utf8(python.output().unwrap().stdout).unwrap().trim().to_owned()
        };
        assert_eq!(kind("xdg-open"), "BackgroundBrowser");
        assert_eq!(kind(BROWSER), "GenericBrowser");
    }

    #[test]
    fn the_name_decides() {
        assert!(is_opener("/run/anteroom/openers/xdg-open"));
        assert!(!is_opener("/init"));
    }
}
