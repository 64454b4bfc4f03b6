//! An end user in Node.js who watches a session, and prints what happens as lines of JSON.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use xtask::{interrupt, shell};

/// Runs `program` of `demo/` until it has ended; `on_event` gets each line.
///
/// # Errors
/// When it does not say at its end that it is done.
pub fn run(
    program: &str,
    arguments: &[impl AsRef<OsStr>],
    mut on_event: impl FnMut(&Value) -> Result<()>,
) -> Result<()> {
    let mut viewer = Command::new("node");
    viewer.arg(shell::root().join("demo").join(program)).args(arguments);
    let mut viewer = Running(
        viewer
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {program} failed"))?,
    );
    let stdout = viewer.0.stdout.take().context("the viewer has no output")?;
    let mut last = Value::Null;
    for line in BufReader::new(stdout).lines() {
        last = serde_json::from_str(&line?)?;
        on_event(&last)?;
    }
    interrupt::check()?;
    match (last["event"].as_str(), last["why"].as_str()) {
        (Some("done"), _) => Ok(()),
        (Some("failed"), Some(why)) => bail!("{program} failed: {why}"),
        _ => bail!("{program} ended before it was done; its last line is {last}"),
    }
}

/// Ended with its browser when this goes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It closes its browser; one that has ended is only waited for.
        if matches!(self.0.try_wait(), Ok(None)) {
            let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM);
        }
        let _ = self.0.wait();
    }
}
