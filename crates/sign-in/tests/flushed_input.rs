//! Tools that throw typed input away, on real terminals: a question that has an answer is answered,
//! every time.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anteroom_provider::Provider;
use anteroom_session::Method;
use anteroom_sign_in::{Action, RuleEngine, Terminal};

const RUNS: usize = 50;

/// So many at once.
const AT_ONCE: usize = 10;

/// How long a run may take; a busy machine starts Python slowly.
const PATIENCE: Duration = Duration::from_secs(60);

fn provider() -> Provider {
    let text = "id = 'x'\nname = 'X'\nimage = 'x'\negress = { allow = [] }\n\
        [[login]]\nmethod = 'browser'\ncommand = ['x']\ninstructions = 'x'\nquiet_ms = 60\n\
        answers = [{ screen = 'Store the token\\?', type = \"y\\r\" }]\n\
        [credential]\nfiles = [{ path = '~/x', required = ['/x'] }]\n";
    Provider::parse("x", text).unwrap()
}

/// One run of the tool: what it shows in the end, and how often it was answered.
fn run(provider: &Provider, arguments: &[&str]) -> (String, usize) {
    let pty = nix::pty::openpty(None, None).unwrap();
    let (input, output) = (pty.slave.try_clone().unwrap(), pty.slave.try_clone().unwrap());
    let mut child = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/flushes.py"))
        .args(arguments)
        .stdin(Stdio::from(input))
        .stdout(Stdio::from(output))
        .stderr(Stdio::from(pty.slave))
        .spawn()
        .unwrap();
    let mut keys = File::from(pty.master.try_clone().unwrap());
    let mut written = File::from(pty.master);
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut buffer = [0; 1024];
        // A terminal answers EIO when its last program is gone.
        while let Ok(count @ 1..) = written.read(&mut buffer) {
            let _ = sender.send(buffer[..count].to_vec());
        }
    });
    let mut rules = RuleEngine::new(provider, provider.login_by(Method::Browser).unwrap()).unwrap();
    let (mut terminal, mut answers) = (Terminal::default(), 0);
    let end = Instant::now() + PATIENCE;
    loop {
        let due = rules.due().unwrap_or(end).min(end);
        let actions = match receiver.recv_timeout(due.saturating_duration_since(Instant::now())) {
            Ok(bytes) => {
                terminal.feed(&bytes);
                rules.see(&terminal, Instant::now())
            }
            Err(mpsc::RecvTimeoutError::Timeout) if Instant::now() < end => {
                rules.rest(&terminal, Instant::now())
            }
            Err(_) => break,
        };
        for action in actions {
            match action {
                Action::Type(typed) => keys.write_all(typed.as_bytes()).unwrap(),
                Action::Answered { .. } => answers += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    let _ = child.kill();
    child.wait().unwrap();
    (terminal.text(), answers)
}

#[test]
fn a_tool_that_throws_its_input_away_is_answered_fifty_times_out_of_fifty() {
    let provider = provider();
    let ways: [&[&str]; 4] =
        [&["asked"], &["answered"], &["asked", "quiet"], &["answered", "quiet"]];
    let runs: Vec<usize> = (0..RUNS).collect();
    for some in runs.chunks(AT_ONCE) {
        std::thread::scope(|scope| {
            for run_number in some {
                let (way, provider) = (ways[run_number % ways.len()], &provider);
                scope.spawn(move || {
                    let (screen, answers) = run(provider, way);
                    assert!(screen.contains("The answer is 'y'."), "{way:?}: {screen}");
                    assert!(answers == 2 || way[0] != "answered", "{way:?}: the first was lost");
                });
            }
        });
    }
}
