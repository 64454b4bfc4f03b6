//! A server of ours in Node.js: it prints its port, and then what it sees, as lines of JSON, and ends when
//! its input does.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A running server.
pub struct NodeServer {
    child: Child,
    stdin: Option<ChildStdin>,
    /// What it sees.
    pub lines: Receiver<Value>,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// The line with its port, and what else is in it.
    pub first: Value,
}

impl NodeServer {
    /// Starts it and waits for its port; what it complains of goes to the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Self> {
        let complaints = File::create(log).context("making the server's log failed")?;
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(complaints)
            .spawn()
            .context("starting the server failed")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("the server has no output")?;
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Ok(value) = serde_json::from_str(&line)
                    && sender.send(value).is_err()
                {
                    return;
                }
            }
        });
        let mut server = Self { child, stdin, lines, port: 0, first: Value::Null };
        let first = server.lines.recv_timeout(Duration::from_secs(30));
        let first: Value = first.with_context(|| {
            let said = std::fs::read_to_string(log).unwrap_or_default();
            format!("the server did not start within 30 s; it said: {}", said.trim())
        })?;
        match first["port"].as_u64().and_then(|port| u16::try_from(port).ok()) {
            Some(port) => server.port = port,
            None => bail!("the server said {first} instead of its port"),
        }
        server.first = first;
        Ok(server)
    }

    /// Ends it.
    pub fn stop(&mut self) -> Result<()> {
        self.stdin.take();
        self.child.wait().context("waiting for the server's end failed")?;
        Ok(())
    }
}

impl Drop for NodeServer {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
