//! What Firecracker says of itself: its log, which comes on a pipe.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, BufReader};
use tokio::task::JoinHandle;

use super::one_line;

/// Longest line that is read, in bytes.
const LONGEST_LINE: u64 = 4096;

/// Lines that are kept.
const KEPT: usize = 20;

/// Begins the lines that say what went wrong.
pub const ERROR: &str = "ERROR ";

/// Follows the log until Firecracker closes it.
pub struct Log {
    lines: Rc<RefCell<VecDeque<String>>>,
    following: JoinHandle<()>,
}

impl Log {
    /// Follows what comes on `pipe`. On a `LocalSet`.
    pub fn follow(pipe: impl AsyncRead + Unpin + 'static) -> Self {
        let lines = Rc::new(RefCell::new(VecDeque::new()));
        let following = tokio::task::spawn_local(read_lines(pipe, lines.clone()));
        Self { lines, following }
    }

    /// Waits until it is closed.
    pub async fn closed(&mut self) {
        if !self.following.is_finished() {
            let _ = (&mut self.following).await;
        }
    }

    /// Its last lines, without their time.
    pub fn lines(&self) -> Vec<String> {
        self.lines.borrow().iter().cloned().collect()
    }
}

async fn read_lines(pipe: impl AsyncRead + Unpin, lines: Rc<RefCell<VecDeque<String>>>) {
    let mut reader = BufReader::new(pipe);
    let mut bytes = Vec::new();
    loop {
        bytes.clear();
        match (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut bytes).await {
            Ok(1..) => {}
            _ => return,
        }
        let line = without_time(&one_line(&String::from_utf8_lossy(&bytes)));
        if line.is_empty() {
            continue;
        }
        // A guest can have it warn as often as it likes.
        if line.starts_with(ERROR) {
            tracing::warn!("Firecracker: {line}");
        } else {
            tracing::debug!("Firecracker: {line}");
        }
        let mut lines = lines.borrow_mut();
        if lines.len() == KEPT {
            // What a guest has it warn of does not push its errors out.
            let least = lines.iter().position(|line| !line.starts_with(ERROR)).unwrap_or(0);
            lines.remove(least);
        }
        lines.push_back(line);
    }
}

/// `2026-11-28T16:02:11.123456789 [id:thread:LEVEL] text` (docs/logger.md).
fn without_time(line: &str) -> String {
    let rest = line.split_once(" [").and_then(|(_, rest)| rest.split_once("] "));
    match rest {
        Some((origin, text)) => match origin.rsplit_once(':') {
            Some((_, level @ ("ERROR" | "WARN"))) => format!("{level} {text}"),
            _ => text.to_owned(),
        },
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_kept_without_their_time_and_with_what_is_wrong() {
        let mut text: String = (0..100)
            .map(|number| format!("2026-11-28T16:02:11.1 [a:main:INFO] line {number}\n"))
            .collect();
        text.push_str(
            "2026-11-28T16:02:11.1 [a:fc_vcpu 0:ERROR] Failure during vcpu run: \x1bgone\n",
        );
        text.push_str(&"2026-11-28T16:02:11.1 [a:fc_vcpu 0:WARN] IO write failed\n".repeat(100));
        text.push_str(&"x".repeat(10_000));
        tokio::task::LocalSet::new()
            .run_until(async {
                let mut log = Log::follow(std::io::Cursor::new(text.into_bytes()));
                log.closed().await;
                let lines = log.lines();
                assert_eq!(lines.len(), KEPT);
                assert!(lines.contains(&"WARN IO write failed".to_owned()));
                assert!(
                    lines.contains(&"ERROR Failure during vcpu run: gone".to_owned()),
                    "{lines:?}"
                );
            })
            .await;
    }
}
