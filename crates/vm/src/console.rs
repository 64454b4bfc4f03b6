//! The console's file: bounded, and there after the VM is gone.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anteroom_guest_protocol::is_harmful;
use leaky_bucket::RateLimiter;
use tokio::io::{AsyncRead, AsyncReadExt};

/// Lines that can be asked for.
const TAIL_BYTES: usize = 16 * 1024;

/// What reading may cost, in units of a read or 256 bytes, a tenth of a second and at once. A serial
/// port comes byte by byte, and what is not read soon QEMU drops: only a flood may wait.
const UNITS_A_TENTH: usize = 2_000;
const UNITS_AT_ONCE: usize = 100_000;
const UNIT_BYTES: usize = 256;

/// Writes at most `limit` bytes to a file: the beginning whole, then only a note that more came. The
/// end is kept in memory, since it explains a death.
pub struct ConsoleLog {
    file: File,
    left: u64,
    tail: Vec<u8>,
}

impl ConsoleLog {
    /// Creates the file, readable by its owner.
    ///
    /// # Errors
    /// When it cannot be created.
    pub fn create(path: &Path, limit: u64) -> io::Result<Self> {
        let file =
            OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(path)?;
        Ok(Self { file, left: limit, tail: Vec::new() })
    }

    /// Takes what the guest printed.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.tail.extend_from_slice(bytes);
        if self.tail.len() > 2 * TAIL_BYTES {
            self.tail.drain(..self.tail.len() - TAIL_BYTES);
        }
        if self.left == 0 {
            return Ok(());
        }
        let fits = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
        self.file.write_all(&bytes[..fits])?;
        self.left -= fits as u64;
        if self.left == 0 {
            self.file.write_all(b"\n[the console printed more than is kept]\n")?;
        }
        Ok(())
    }

    /// The last lines, without control characters.
    #[must_use]
    pub fn tail(&self, lines: usize) -> Vec<String> {
        let text = String::from_utf8_lossy(&self.tail);
        let clean = text
            .lines()
            .map(|line| line.chars().filter(|c| !is_harmful(*c)).take(300).collect::<String>())
            .filter(|line| !line.trim().is_empty())
            .collect::<Vec<_>>();
        clean[clean.len().saturating_sub(lines)..].to_vec()
    }

    /// Reads until the end of `source`.
    pub(crate) async fn follow(
        log: std::rc::Rc<std::cell::RefCell<Self>>,
        mut source: impl AsyncRead + Unpin,
    ) {
        let mut buffer = vec![0; 16 * 1024];
        let pace = RateLimiter::builder()
            .interval(Duration::from_millis(100))
            .refill(UNITS_A_TENTH)
            .max(UNITS_AT_ONCE)
            .initial(UNITS_AT_ONCE)
            .build();
        while let Ok(count @ 1..) = source.read(&mut buffer).await {
            // A full disk costs evidence, not the session.
            let _ = log.borrow_mut().write(&buffer[..count]);
            // A guest that prints without end waits, and costs nobody a core.
            pace.acquire(1 + count / UNIT_BYTES).await;
        }
    }
}

/// Where a session's console goes.
#[derive(Clone, Debug)]
pub struct ConsoleFile {
    /// The file.
    pub path: PathBuf,
    /// Its largest size in bytes.
    pub limit: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spam_is_bounded_and_its_end_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console.log");
        let mut log = ConsoleLog::create(&path, 1000).unwrap();
        for n in 0..100_000 {
            log.write(format!("\x1b[31mline {n}\n").as_bytes()).unwrap();
        }
        assert!(std::fs::metadata(&path).unwrap().len() < 1100);
        assert_eq!(log.tail(2), ["[31mline 99998", "[31mline 99999"]);
        assert!(log.tail.len() <= 2 * TAIL_BYTES);
    }
}
