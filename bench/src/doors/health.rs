//! Crowds without a right: none of them writes, and none takes the place of somebody else.

use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result};
use serde_json::json;

use super::{Outcome, Tries};
use anteroom_testkit::raw::{self, ask, asks_health, connect_from};

use crate::server::Server;

/// How long each crowd asks.
const CROWD: Duration = Duration::from_secs(6);

/// Writes that the background check makes in that time, and one to spare.
const OWN_WRITES: usize = 3;

/// Of one address, as the server is started.
const SHARE: &str = "200";

/// Makes the attacks.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-doors-").tempdir()?;
    let options = ["--connections-per-address", SHARE];
    let mut server = Server::with_guest(anteroom, folder.path(), Path::new("/bin/true"), &options)?;
    let host = raw::host(server.url()).to_owned();
    let nobody = "01890000-0000-7000-8000-000000000000";
    let unknown_link = json!({ "sessionId": nobody, "secret": "A".repeat(43) }).to_string();
    let cookie = format!("Cookie: anteroom_viewer_{nobody}=x\r\n");
    let view = format!("/api/viewer/session/{nobody}");
    let wal = folder.path().join("state/anteroom.db-wal");
    let crowds: [(&str, &str, &str, &str, &str); 5] = [
        ("/health", "GET", "/health", "", ""),
        ("unknown links", "POST", "/api/viewer/exchange", "", &unknown_link),
        ("unknown cookies", "GET", &view, &cookie, ""),
        ("unknown keys", "GET", "/api/sessions", "Authorization: Bearer ak_x\r\n", ""),
        ("starts without a key", "POST", "/api/auth/start", "", r#"{"provider":"demo"}"#),
    ];
    for (what, method, path, headers, body) in crowds {
        let writes = writes_during(&wal, || {
            let _ = ask(&host, method, path, headers, body);
        })?;
        let outcome = if writes <= OWN_WRITES {
            Outcome::Refused
        } else {
            Outcome::Passed(format!("the database was written {writes} times"))
        };
        tries.record(&format!("writes by a crowd that asks for {what}"), outcome);
    }
    shares(&host, tries)?;
    server.stop()
}

/// How often the database's log is written while many ask.
fn writes_during(wal: &Path, ask: impl Fn() + Sync) -> Result<usize> {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..32 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    ask();
                }
            });
        }
        let began = Instant::now();
        let (mut writes, mut last) = (0, None);
        let result = loop {
            let written: Result<SystemTime> = std::fs::metadata(wal)
                .and_then(|file| file.modified())
                .context("looking at the database's log failed");
            match written {
                Ok(at) => {
                    writes += usize::from(last.is_some_and(|last| last != at));
                    last = Some(at);
                }
                Err(error) => break Err(error),
            }
            if began.elapsed() > CROWD {
                break Ok(writes);
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        over.store(true, Ordering::Relaxed);
        result
    })
}

fn shares(host: &str, tries: &mut Tries) -> Result<()> {
    let greedy = [127, 0, 0, 66];
    let share: usize = SHARE.parse()?;
    let taken: Vec<TcpStream> =
        (0..share).map(|_| connect_from(greedy, host)).collect::<Result<_>>()?;
    let began = Instant::now();
    // Those before it are taken from the kernel's queue meanwhile.
    let mut last = String::new();
    while began.elapsed() < Duration::from_secs(10) && !last.starts_with("HTTP/1.1 429 ") {
        last = asks_health(&connect_from(greedy, host)?, host);
    }
    let outcome = if last.starts_with("HTTP/1.1 429 ") {
        Outcome::Refused
    } else {
        Outcome::Passed(format!("it was served: {last:?}"))
    };
    tries.record("more connections of one address than its share", outcome);
    let other = asks_health(&connect_from([127, 0, 0, 67], host)?, host);
    let outcome = if other.starts_with("HTTP/1.1 200 ") {
        Outcome::Refused
    } else {
        Outcome::Passed(format!("another address was answered {other:?}"))
    };
    tries.record("one address's connections keep another out", outcome);
    drop(taken);
    Ok(())
}
