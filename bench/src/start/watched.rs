//! Sign-ins from a template, one after the other, each watched by a viewer in code until it sees what the
//! guest itself shows, and cancelled then.

use std::time::{Duration, Instant};

use anteroom_testkit::viewer::{self, Seen};
use anteroom_testkit::{Started, unix_ms};
use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::figures::{message, own_share, waited, when};
use super::memory::private_mib;
use super::progress::Progress;
use super::setting::Setting;
use crate::cycles::resident_mib;
use crate::demo::TTL_SECONDS;
use crate::pool::until_one_waits;
use crate::server::Server;
use crate::template::until_loaded;
use xtask::interrupt;

/// Sign-ins after which the controller's memory is first looked at.
const SETTLED_AFTER: usize = 20;

/// How long that may take: an emulated guest on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(90);

/// The timeline's entry that a viewer sees what the guest itself shows.
const LIVE: &str = "live_frame_shown";

/// What came of them. Times are milliseconds after the start call.
#[derive(Default)]
pub struct Row {
    /// How many there were.
    pub count: usize,
    /// The agent's hello.
    pub link: Vec<u64>,
    /// Our own share of that, in microseconds.
    pub own_share: Vec<u64>,
    /// How long the VMM was waited for, in microseconds: with [`Pool::Filled`] for its resume alone.
    pub load: Vec<u64>,
    /// The answer to the viewer's offer.
    pub answered: Vec<u64>,
    /// The viewer's connection.
    pub connected: Vec<u64>,
    /// The first decoded picture that shows something.
    pub first_frame: Vec<u64>,
    /// What the guest itself shows, by the session's timeline.
    pub live_frame: Vec<u64>,
    /// Pages of the template that the VM had changed then, in MiB.
    pub private_mib: Vec<u64>,
    /// How many had no picture, or a VM that was booted.
    pub failures: usize,
    /// What was left of all of them.
    pub leftovers: usize,
    /// What the controller's memory grew by after the first [`SETTLED_AFTER`], in MiB.
    pub rss_drift_mib: Option<f64>,
}

/// Whether a clone waits for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pool {
    /// Each is made for its sign-in.
    Empty,
    /// One waits for each sign-in.
    Filled,
}

/// A start call.
struct Call {
    /// When it was made, in milliseconds since the Unix epoch. The session's `createdAt` is later: by then its
    /// sandbox is prepared.
    at: u64,
    session: Started,
    pool: Pool,
}

/// So many in a row by one controller; none is begun after `longest`.
pub fn in_a_row(setting: &Setting, pool: Pool, count: usize, longest: Duration) -> Result<Row> {
    let mut row = Row::default();
    if count == 0 {
        return Ok(row);
    }
    let waiting = match pool {
        Pool::Empty => ["--waiting-clones", "0"],
        Pool::Filled => ["--waiting-clones", "1"],
    };
    let mut server = setting.serve(&waiting)?;
    until_loaded(&server)?;
    setting.memory.look(server.pid())?;
    let (progress, mut settled) = (Progress::of("starts", count), None);
    let began = Instant::now();
    for number in 1..=count {
        interrupt::check()?;
        if began.elapsed() > longest {
            progress.say(&format!("No start is begun after {} s.", longest.as_secs()));
            break;
        }
        row.count = number;
        if pool == Pool::Filled {
            until_one_waits(&server)?;
        }
        let at = unix_ms();
        let session = server.start_session(&setting.recipient, TTL_SECONDS)?;
        let call = Call { at, session, pool };
        let session = &call.session;
        if let Err(error) = one(setting, &server, &call, &mut row) {
            interrupt::check()?;
            row.failures += 1;
            progress.say(&format!("{number}: {error:#}"));
            setting.keep_logs(&server, &session.id, number)?;
        }
        row.leftovers += setting.leftovers(&session.id)?;
        progress.done(number, &last(&row));
        if number == SETTLED_AFTER {
            settled = Some(resident_mib(server.pid())?);
        }
    }
    if let Some(settled) = settled.filter(|_| row.count > SETTLED_AFTER) {
        let drift = resident_mib(server.pid())? - settled;
        row.rss_drift_mib = Some((drift * 100.0).round() / 100.0);
    }
    setting.memory.look(server.pid())?;
    server.stop()?;
    Ok(row)
}

/// Watches one and cancels it.
fn one(setting: &Setting, server: &Server, call: &Call, row: &mut Row) -> Result<()> {
    let session = &call.session;
    let is_live = || Ok(when(&server.status(&session.id)?, LIVE).is_some());
    let seen = viewer::first_picture_until(session, PATIENCE, is_live);
    let private = private_mib(&session.id);
    server.cancel(&session.id)?;
    let ended = server.wait_until_torn_down(&session.id, Duration::from_secs(90))?;
    let seen = seen.with_context(|| format!("it ended so: {}", ended["reason"]["message"]))?;
    let started = message(&ended, "sandbox_started").unwrap_or_default();
    ensure!(started.contains(&setting.template.id), "the VM was booted: {started}");
    row.add(call, &ended, &seen, private?)
}

impl Row {
    fn add(&mut self, call: &Call, ended: &Value, seen: &Seen, private_mib: u64) -> Result<()> {
        let waited = waited(ended).context("its timeline does not say what was waited for")?;
        let was_loaded = waited.vmm_start_micros.is_none();
        ensure!(was_loaded == (call.pool == Pool::Filled), "it waited for others so: {waited:?}");
        let began = call.at;
        let link = when(ended, "agent_connected").context("its agent was never connected")?;
        let link = link.saturating_sub(began);
        let live = when(ended, LIVE).context("its guest was never seen")?;
        self.link.push(link);
        self.own_share.push(own_share(link, &waited));
        self.load.push(waited.vmm_micros());
        self.answered.push(seen.answered.saturating_sub(began));
        self.connected.push(seen.connected.saturating_sub(began));
        self.first_frame.push(seen.first.saturating_sub(began));
        self.live_frame.push(live.saturating_sub(began));
        self.private_mib.push(private_mib);
        Ok(())
    }
}

/// The last of each.
fn last(row: &Row) -> String {
    let last = |values: &[u64]| values.last().copied().unwrap_or_default();
    format!(
        "link {} ms, answer {} ms, connected {} ms, first frame {} ms, live {} ms, {} MiB private",
        last(&row.link),
        last(&row.answered),
        last(&row.connected),
        last(&row.first_frame),
        last(&row.live_frame),
        last(&row.private_mib)
    )
}
