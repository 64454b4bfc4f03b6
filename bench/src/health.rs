//! `cargo xtask bench health`: how long a start call takes while a thousand connections ask for
//! `/health`, and how long without them, in turns.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use serde_json::{Value, json};

use anteroom_testkit::SILENT;

use crate::server::Server;
use xtask::interrupt;

/// Stacks of the threads that ask, in bytes.
const STACK: usize = 128 * 1024;

/// How long everything may take to be as it is for a while, once the crowd is there.
const SETTLED: Duration = Duration::from_secs(2);

/// Measures `rounds` times `starts` starts in each way.
pub fn bench(anteroom: &Path, connections: usize, rounds: usize, starts: usize) -> Result<Value> {
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let mut server = Server::with_fake_guest(anteroom, folder.path(), SILENT)?;
    begin(&server, starts.min(10))?;
    let (mut alone, mut beside, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let answered = AtomicU64::new(0);
    for round in 1..=rounds {
        let mut without = begin(&server, starts)?;
        let over = AtomicBool::new(false);
        let mut with = std::thread::scope(|scope| -> Result<Vec<Duration>> {
            for _ in 0..connections {
                let asks = || crowd(server.url(), &over, &answered);
                std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, asks)?;
            }
            std::thread::sleep(SETTLED);
            let took = begin(&server, starts);
            over.store(true, Ordering::Relaxed);
            took
        })?;
        let ratio = quantile(&mut with, 0.99) / quantile(&mut without, 0.99);
        eprintln!("round {round} of {rounds}: p99 {ratio:.2} times that without");
        ratios.push(ratio);
        alone.append(&mut without);
        beside.append(&mut with);
    }
    server.stop()?;
    ratios.sort_by(f64::total_cmp);
    let figures = |took: &mut Vec<Duration>| json!({ "p50_ms": round(quantile(took, 0.5)), "p99_ms": round(quantile(took, 0.99)) });
    let (without, with) = (figures(&mut alone), figures(&mut beside));
    let ratio = quantile(&mut beside, 0.99) / quantile(&mut alone, 0.99);
    Ok(json!({
        "connections": connections, "rounds": rounds, "starts_a_round": starts,
        "health_answers": answered.load(Ordering::Relaxed),
        "start_without": without, "start_with": with,
        "p99_ratio": round(ratio), "p99_ratio_median_of_rounds": round(ratios[ratios.len() / 2]),
        "p99_ratio_of_rounds": ratios.iter().map(|ratio| round(*ratio)).collect::<Vec<_>>(),
    }))
}

/// Starts sessions one after the other, each gone before the next; how long the calls took.
fn begin(server: &Server, starts: usize) -> Result<Vec<Duration>> {
    let mut took = Vec::new();
    for _ in 0..starts {
        interrupt::check()?;
        let began = Instant::now();
        let started = server.begin(&json!({ "provider": "demo" }))?;
        took.push(began.elapsed());
        server.cancel(&started.id)?;
        server.wait_until_torn_down(&started.id, Duration::from_secs(60))?;
    }
    if took.is_empty() {
        bail!("there is nothing to measure");
    }
    Ok(took)
}

/// One connection that asks for `/health` without a pause, and comes again when it is closed.
fn crowd(url: &str, over: &AtomicBool, answered: &AtomicU64) {
    let host = url.trim_start_matches("http://");
    while !over.load(Ordering::Relaxed) {
        let _ = ask_on(host, over, answered);
    }
}

fn ask_on(host: &str, over: &AtomicBool, answered: &AtomicU64) -> Result<()> {
    let mut stream = TcpStream::connect(host)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let request = format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n");
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    while !over.load(Ordering::Relaxed) {
        stream.write_all(request.as_bytes())?;
        answer.clear();
        while !is_whole(&answer) {
            let count = stream.read(&mut buffer)?;
            if count == 0 {
                bail!("it was closed");
            }
            answer.extend_from_slice(&buffer[..count]);
        }
        answered.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

/// Whether an answer with a `Content-Length` is there.
fn is_whole(answer: &[u8]) -> bool {
    let length = || -> Option<usize> {
        let text = std::str::from_utf8(answer).ok()?;
        let (head, body) = text.split_once("\r\n\r\n")?;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "))?;
        length.parse::<usize>().ok().filter(|length| body.len() >= *length)
    };
    length().is_some()
}

/// The value below which this part of all lies, in milliseconds.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "an index"
)]
fn quantile(took: &mut [Duration], part: f64) -> f64 {
    took.sort_unstable();
    let index = (took.len() as f64 * part) as usize;
    took.get(index.min(took.len().saturating_sub(1))).map_or(0.0, |took| took.as_secs_f64() * 1e3)
}

fn round(value: f64) -> f64 {
    (value * 100.0).round() / 100.0
}
