//! Whole sign-ins, one after the other, by an end user with a browser.

use std::time::Duration;

use anteroom_testkit::end_user::{Plan, Seen, Waiting};
use anteroom_testkit::unix_ms;
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::figures::when;
use super::setting::Setting;
use crate::demo::TTL_SECONDS;
use crate::template::until_loaded;
use xtask::interrupt;

/// What came of them. Times are milliseconds after the start call.
#[derive(Default)]
pub struct Row {
    /// The first frame that the browser decoded.
    pub first_frame: Vec<u64>,
    /// The first that shows the sign-in page.
    pub page: Vec<u64>,
    /// The sealed credential.
    pub sealed: Vec<u64>,
    /// How many did not complete.
    pub failures: usize,
    /// What was left of all of them.
    pub leftovers: usize,
}

/// So many in a row by one controller with these options: `--cold`, or from the template.
pub fn in_a_row(setting: &Setting, options: &[&str], count: usize) -> Result<Row> {
    let mut row = Row::default();
    if count == 0 {
        return Ok(row);
    }
    let mut server = setting.serve(options)?;
    let has_template = options.is_empty();
    if has_template {
        until_loaded(&server)?;
        setting.memory.look(server.pid())?;
    }
    for number in 1..=count {
        interrupt::check()?;
        let end_user = Waiting::new(&Plan { patience_seconds: 180, ..Plan::default() })?;
        let called = unix_ms();
        let session = server.start_session(&setting.recipient, TTL_SECONDS)?;
        let seen = end_user.play(&session);
        if seen.is_err() {
            server.cancel(&session.id)?;
        }
        let ended = server.wait_until_torn_down(&session.id, Duration::from_secs(90))?;
        if let Err(error) = seen.and_then(|seen| row.add(called, &ended, &seen)) {
            interrupt::check()?;
            row.failures += 1;
            eprintln!("page {number}: {error:#}; {}", ended["reason"]["message"]);
            setting.keep_logs(&server, &session.id, number)?;
        }
        row.leftovers += setting.leftovers(&session.id)?;
    }
    if has_template {
        setting.memory.look(server.pid())?;
    }
    server.stop()?;
    Ok(row)
}

impl Row {
    fn add(&mut self, called: u64, ended: &Value, seen: &Seen) -> Result<()> {
        ensure!(ended["reason"]["code"] == "completed", "the sign-in did not complete");
        let after = |what: &str, at: Option<u64>| {
            at.map(|at| at.saturating_sub(called)).with_context(|| format!("there was no {what}"))
        };
        let first_frame = after("frame", seen.first_frame)?;
        let page = after("page", seen.ready)?;
        let sealed = after("credential", when(ended, "credential_stored"))?;
        eprintln!("page: first frame {first_frame} ms, page {page} ms, sealed {sealed} ms");
        self.first_frame.push(first_frame);
        self.page.push(page);
        self.sealed.push(sealed);
        Ok(())
    }
}
