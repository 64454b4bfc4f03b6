//! What the guest's services printed: a bounded file that outlives the VM.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use anteroom_guest_protocol::LogStream;
use anteroom_session::Timestamp;

use crate::log_files::{OLDER_SERVICES, SERVICES};

/// Bytes of one file; there is at most one older file beside it.
const LIMIT: u64 = 2 * 1024 * 1024;

/// The file, the older one, and how much is in the first. Both are open from the beginning: later the
/// runner can make and rename none.
pub struct ServiceLog {
    file: File,
    older: File,
    written: u64,
}

impl ServiceLog {
    /// Creates the file, and the older one, in `folder`.
    pub fn create(folder: &Path) -> io::Result<Self> {
        let (path, older) = (folder.join(SERVICES), folder.join(OLDER_SERVICES));
        Ok(Self { file: open(&path)?, older: open(&older)?, written: 0 })
    }

    /// Appends a line; past the limit what is in the present file takes the place of the older one's.
    pub fn line(
        &mut self,
        at: Timestamp,
        service: &str,
        stream: LogStream,
        line: &str,
    ) -> io::Result<()> {
        if self.written > LIMIT {
            let mut text = Vec::new();
            self.file.rewind()?;
            self.file.read_to_end(&mut text)?;
            replace(&mut self.older, &text)?;
            replace(&mut self.file, &[])?;
            self.written = 0;
        }
        let mark = match stream {
            LogStream::Stdout => ' ',
            LogStream::Stderr => '!',
        };
        // The guest is hostile: its lines and names reach somebody's terminal through this file.
        let clean = |text: &str| {
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect::<String>()
        };
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at.0);
        let at = humantime::format_rfc3339_millis(at);
        let text = format!("{at} {:<14}{mark} {}\n", clean(service), clean(line));
        self.written += text.len() as u64;
        self.file.write_all(text.as_bytes())
    }
}

fn replace(file: &mut File, text: &[u8]) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text)
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).read(true).write(true).truncate(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spam_is_bounded_and_escapes_are_harmless() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = ServiceLog::create(folder.path()).unwrap();
        let line = "x".repeat(4000);
        for n in 0..3000 {
            log.line(Timestamp(n), "cli", LogStream::Stdout, &line).unwrap();
        }
        log.line(Timestamp(0), "cli", LogStream::Stderr, "\u{1b}[2Jgone").unwrap();
        let total: u64 = std::fs::read_dir(folder.path())
            .unwrap()
            .map(|e| e.unwrap().metadata().unwrap().len())
            .sum();
        assert!(total < 2 * LIMIT + 10_000, "{total}");
        let text = std::fs::read_to_string(folder.path().join("services.log")).unwrap();
        assert!(
            text.ends_with("1970-01-01T00:00:00.000Z cli           ! \u{fffd}[2Jgone\n"),
            "{:?}",
            &text[text.len() - 40..]
        );
    }
}
