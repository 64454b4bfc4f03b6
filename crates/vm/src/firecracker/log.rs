//! What Firecracker says of itself: its log.

use std::collections::VecDeque;

use super::one_line;
use super::pipe::TakeLines;

/// Lines that are kept.
const KEPT: usize = 20;

/// Begins the lines that say what went wrong.
pub const ERROR: &str = "ERROR ";

/// Begins its last error, which only repeats the exit code.
const EXITING: &str = "Firecracker exiting with error";

/// The last lines of it.
#[derive(Default)]
pub struct Log(VecDeque<String>);

impl Log {
    /// Its last lines, without their time.
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }

    /// Those of them that say what went wrong.
    pub fn errors(&self) -> Vec<String> {
        let errors = self.0.iter().filter_map(|line| line.strip_prefix(ERROR));
        errors.filter(|line| !line.starts_with(EXITING)).map(str::to_owned).collect()
    }
}

impl TakeLines for Log {
    const LONGEST_LINE: u64 = 4096;

    fn take(&mut self, line: &[u8]) {
        let line = without_time(&one_line(&String::from_utf8_lossy(line)));
        if line.is_empty() {
            return;
        }
        // A guest can have it warn as often as it likes.
        if line.starts_with(ERROR) {
            tracing::warn!("Firecracker: {line}");
        } else {
            tracing::debug!("Firecracker: {line}");
        }
        if self.0.len() == KEPT {
            // What a guest has it warn of does not push its errors out.
            let least = self.0.iter().position(|line| !line.starts_with(ERROR)).unwrap_or(0);
            self.0.remove(least);
        }
        self.0.push_back(line);
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
    use super::super::pipe::Followed;
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
                let mut log = Followed::<Log>::new(std::io::Cursor::new(text.into_bytes()));
                log.closed().await;
                let lines = log.taken().lines();
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
