//! The CLI's terminal: its stream to the guest, and the viewers that look at it.

use std::time::Duration;

use anteroom_guest_link::{LinkStream, Opener};
use anteroom_guest_protocol::StreamKind;
use anteroom_guest_session::{link_failed, pace};
use anteroom_session::EndReason;
use anteroom_sign_in::{Input, Keys, Screen, Terminal};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::{mpsc, watch};

/// The pause behind paced keys.
const BETWEEN_KEYS: Duration = Duration::from_millis(250);

/// What waits to be typed while a CLI takes no keys.
const MAX_KEYS: usize = 1024;

/// How often a viewer's terminal is drawn at most.
const DRAW_EVERY: Duration = Duration::from_millis(50);

/// The longest piece that a viewer types, in bytes.
const MAX_TYPED: usize = 4096;

/// What a CLI may write for long, a second, and at once: a screen of text is 5 KB, a redrawing tool
/// writes some of them a second.
const BYTES_PER_SECOND: usize = 128 * 1024;
const BYTE_BURST: usize = 1024 * 1024;

/// The terminal's stream.
pub struct TerminalLink {
    /// Absent once it has ended.
    written: Option<mpsc::Receiver<Vec<u8>>>,
    keys: mpsc::Sender<Keys>,
    typed: mpsc::Receiver<String>,
    screen: watch::Sender<Screen>,
    view: TerminalView,
}

/// A viewer's way to the terminal. Cheap to clone.
#[derive(Clone)]
pub struct TerminalView {
    screen: watch::Receiver<Screen>,
    typed: mpsc::Sender<String>,
}

impl TerminalLink {
    /// Opens the CLI's terminal, which is there as soon as the CLI starts.
    pub async fn open(opener: &Opener) -> Result<Self, EndReason> {
        let stream = opener.open(StreamKind::Terminal).await.map_err(link_failed)?;
        let (reader, writer) = tokio::io::split(stream);
        let (sender, written) = mpsc::channel(16);
        tokio::task::spawn_local(read(reader, sender));
        let (keys, to_type) = mpsc::channel(MAX_KEYS);
        tokio::task::spawn_local(write(writer, to_type));
        let (screen, seen) = watch::channel(Terminal::default().screen());
        let (typed_sender, typed) = mpsc::channel(16);
        let view = TerminalView { screen: seen, typed: typed_sender };
        Ok(Self { written: Some(written), keys, typed, screen, view })
    }

    /// For a viewer.
    pub fn view(&self) -> TerminalView {
        self.view.clone()
    }

    /// What the CLI writes or a viewer types next; may be dropped and called again.
    pub async fn next(&mut self) -> Input {
        let written = async {
            match &mut self.written {
                Some(written) => written.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            bytes = written => match bytes {
                Some(bytes) => Input::Terminal(bytes),
                None => {
                    self.written = None;
                    Input::TerminalClosed
                }
            },
            Some(text) = self.typed.recv() => Input::Typed(text),
        }
    }

    /// Shows viewers this screen.
    pub fn show(&self, screen: Screen) {
        self.screen.send_replace(screen);
    }

    /// Types. A CLI that takes no keys loses those beyond many.
    pub fn type_keys(&self, keys: Keys) {
        let _ = self.keys.try_send(keys);
    }
}

async fn read(mut terminal: ReadHalf<LinkStream>, written: mpsc::Sender<Vec<u8>>) {
    let mut buffer = [0; 4096];
    let pace = pace(BYTES_PER_SECOND, BYTE_BURST);
    // The link's own end says why there is no more.
    while let Ok(count @ 1..) = terminal.read(&mut buffer).await {
        pace.acquire(count).await;
        if written.send(buffer[..count].to_vec()).await.is_err() {
            return;
        }
    }
}

async fn write(mut terminal: WriteHalf<LinkStream>, mut keys: mpsc::Receiver<Keys>) {
    while let Some(next) = keys.recv().await {
        let (Keys::Paced(text) | Keys::AtOnce(text)) = &next;
        let written = async {
            terminal.write_all(text.as_bytes()).await?;
            terminal.flush().await
        };
        if written.await.is_err() {
            return;
        }
        if matches!(next, Keys::Paced(_)) {
            tokio::time::sleep(BETWEEN_KEYS).await;
        }
    }
}

/// Takes the text, but for the beginning of a character whose rest has not come.
fn whole_characters(bytes: &mut Vec<u8>) -> String {
    let whole = match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    };
    let rest = bytes.split_off(whole);
    String::from_utf8_lossy(&std::mem::replace(bytes, rest)).into_owned()
}

impl TerminalView {
    /// Draws the terminal on a viewer's, and takes what they type, until one side ends.
    pub async fn serve(self, stream: LinkStream) -> std::io::Result<()> {
        let Self { mut screen, typed } = self;
        let (mut from_viewer, mut to_viewer) = tokio::io::split(stream);
        let draw = async {
            let mut shown = screen.borrow_and_update().clone();
            to_viewer.write_all(shown.drawn().as_bytes()).await?;
            loop {
                to_viewer.flush().await?;
                if screen.changed().await.is_err() {
                    return Ok(());
                }
                tokio::time::sleep(DRAW_EVERY).await;
                let now = screen.borrow_and_update().clone();
                to_viewer.write_all(now.drawn_after(&shown).as_bytes()).await?;
                shown = now;
            }
        };
        let take = async {
            let mut buffer = [0; MAX_TYPED];
            let mut bytes = Vec::new();
            loop {
                let count = from_viewer.read(&mut buffer).await?;
                bytes.extend_from_slice(&buffer[..count]);
                let text = whole_characters(&mut bytes);
                if count == 0 || typed.send(text).await.is_err() {
                    return Ok(());
                }
            }
        };
        tokio::select! { drawn = draw => drawn, taken = take => taken }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_character_in_two_pieces_is_one() {
        let mut bytes = "aé".as_bytes()[..2].to_vec();
        assert_eq!(whole_characters(&mut bytes), "a");
        bytes.push(0xa9);
        assert_eq!(whole_characters(&mut bytes), "é");
        bytes.extend([b'x', 0xff, b'y']);
        assert_eq!(whole_characters(&mut bytes), "x\u{fffd}y");
        assert!(bytes.is_empty());
    }
}
