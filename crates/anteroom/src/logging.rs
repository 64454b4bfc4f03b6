//! What this process says of itself, on its standard error: the controller's goes to whoever started
//! it, a runner's to `runner.log` of its session. Each line carries the session's id where there is one.

use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// What is said, as `tracing_subscriber` filters it: `info`, `anteroom=debug`, ….
const FILTER: &str = "ANTEROOM_LOG";

/// How it is said; for runners, which have no options.
const FORMAT: &str = "ANTEROOM_LOG_FORMAT";

/// Bytes that a runner says: some of it is what a guest makes it say.
const RUNNER_LIMIT: usize = 1024 * 1024;

/// How lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One line of text per event.
    Text,
    /// One JSON object per line.
    Json,
}

/// Starts logging, once in a process; `format` is what its runners will use too.
pub fn start(format: LogFormat) {
    start_to(format, io::stderr);
}

/// Starts logging as the controller does that started this runner.
pub fn start_as_configured() {
    let json = std::env::var_os(FORMAT).is_some_and(|format| format == "json");
    let format = if json { LogFormat::Json } else { LogFormat::Text };
    start_to(format, Bounded { to: io::stderr, left: AtomicUsize::new(RUNNER_LIMIT) });
}

/// What a runner's environment needs for [`start_as_configured`].
pub fn for_runner(format: LogFormat) -> Vec<(&'static str, std::ffi::OsString)> {
    let format = match format {
        LogFormat::Json => "json",
        LogFormat::Text => "text",
    };
    let mut variables = vec![(FORMAT, format.into())];
    variables.extend(std::env::var_os(FILTER).map(|filter| (FILTER, filter)));
    variables
}

fn start_to(format: LogFormat, writer: impl for<'a> MakeWriter<'a> + Send + Sync + 'static) {
    // The multiplexer complains of each frame of a guest that breaks it; the consequences are reported by us.
    let filter =
        EnvFilter::try_from_env(FILTER).unwrap_or_else(|_| EnvFilter::new("info,yamux=off"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        // It would say so on stderr, which is what just failed, and panic.
        .log_internal_errors(false)
        .with_target(false);
    match format {
        LogFormat::Json => builder.json().init(),
        LogFormat::Text => builder.with_ansi(io::stderr().is_terminal()).init(),
    }
}

/// Writes until so much is written, then nothing more.
struct Bounded<M> {
    to: M,
    left: AtomicUsize,
}

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Bounded<M> {
    type Writer = BoundedWriter<'a, M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        BoundedWriter { to: self.to.make_writer(), left: &self.left }
    }
}

struct BoundedWriter<'a, W> {
    to: W,
    left: &'a AtomicUsize,
}

impl<W: Write> Write for BoundedWriter<'_, W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            return Ok(bytes.len());
        }
        self.left.store(left.saturating_sub(bytes.len()), Ordering::Relaxed);
        self.to.write_all(bytes)?;
        if left <= bytes.len() {
            self.to.write_all(b"(this log is full)\n")?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn a_log_that_is_full_says_so_once() {
        let file = Mutex::new(Vec::new());
        let log = Bounded { to: file, left: AtomicUsize::new(10) };
        for _ in 0..4 {
            assert_eq!(log.make_writer().write(b"12345678\n").unwrap(), 9);
        }
        let written = String::from_utf8(log.to.into_inner().unwrap()).unwrap();
        assert_eq!(written, "12345678\n12345678\n(this log is full)\n");
    }
}
