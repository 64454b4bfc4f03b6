//! One target's run: libFuzzer as a child, what it says in a log, and what that means.

use std::fs::File;
use std::io::{BufRead, BufReader, IsTerminal, Write};
use std::path::Path;
use std::process::{ChildStderr, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use super::{TARGET_ENV, Target, known, make_folder, work_folder};
use xtask::interrupt;
use xtask::shell::Running;

/// An input that takes longer is a hang, in seconds.
const TIMEOUT_SECONDS: u32 = 10;

/// A target that takes more is a memory bomb, in MiB. At rest they take 30 to 50.
const MEMORY_MIB: u32 = 1024;

/// How often it is looked whether the target is done.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How often progress is reported, to a terminal and to a log.
const REPORT_TERMINAL_EVERY: Duration = Duration::from_secs(2);
const REPORT_LOG_EVERY: Duration = Duration::from_secs(60);

/// How a run went.
pub struct Outcome {
    /// Inputs tried.
    pub runs: u64,
    /// Inputs that each reach something of their own.
    pub corpus: u64,
    /// A sentence with the cause and where the input lies.
    pub failure: Option<String>,
}

/// What libFuzzer has said so far.
#[derive(Debug, Default, PartialEq, Eq)]
struct Said {
    runs: u64,
    corpus: u64,
    /// The file of the input that failed.
    input: Option<String>,
    /// The lines of the panic: where, and what.
    panic: Vec<String>,
}

/// Runs one target; new inputs go to its folder in `found`.
pub fn run(target: &Target, program: &Path, found: &Path, seconds: u64) -> Result<Outcome> {
    let name = target.name;
    let log = work_folder().join(format!("{name}.log"));
    let crashes = work_folder().join("crashes").join(name);
    let found = found.join(name);
    make_folder(&crashes)?;
    make_folder(&found)?;
    let mut command = Command::new(program);
    command
        .env(TARGET_ENV, name)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-timeout={TIMEOUT_SECONDS}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB}"))
        .arg(format!("-max_len={}", target.max_len))
        .arg(format!("-artifact_prefix={}/", crashes.display()))
        .arg("-print_final_stats=1")
        // libFuzzer writes to the first folder only.
        .arg(&found)
        .args(known(target).iter().filter(|folder| folder.is_dir()))
        .env("RUST_BACKTRACE", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let child =
        command.spawn().with_context(|| format!("starting the fuzz target {name} failed"))?;
    let mut fuzzer = Running(child);
    let lines = fuzzer.0.stderr.take().context("the fuzz target has no standard error")?;
    let said = Arc::new(Mutex::new(Said::default()));
    let writer = File::create(&log).with_context(|| format!("making {} failed", log.display()))?;
    let listener = {
        let said = Arc::clone(&said);
        thread::spawn(move || listen(lines, writer, &said))
    };
    let status = wait(&mut fuzzer, name, seconds, &said)?;
    listener.join().ok().context("reading what the fuzz target says failed")??;
    // Ctrl-C reached it too, and it ended by that.
    interrupt::check()?;
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let failure = (!status.success()).then(|| {
        let what = said.explain(status);
        match &said.input {
            Some(input) => format!(
                "the fuzz target {name} failed: {what}. The input is {input}; try it again with\n    \
                 {TARGET_ENV}={name} {} {input}",
                program.display()
            ),
            None => format!("the fuzz target {name} failed: {what}. See {}", log.display()),
        }
    });
    Ok(Outcome { runs: said.runs, corpus: said.corpus, failure })
}

/// Reports progress until the end.
fn wait(fuzzer: &mut Running, name: &str, seconds: u64, said: &Mutex<Said>) -> Result<ExitStatus> {
    let terminal = std::io::stderr().is_terminal();
    let every = if terminal { REPORT_TERMINAL_EVERY } else { REPORT_LOG_EVERY };
    let started = Instant::now();
    let mut reported = started;
    loop {
        if let Some(status) = fuzzer.0.try_wait().context("waiting for the fuzz target failed")? {
            if terminal {
                eprint!("\r\x1b[K");
            }
            return Ok(status);
        }
        interrupt::check()?;
        if reported.elapsed() >= every {
            reported = Instant::now();
            let Said { runs, corpus, .. } = &*said.lock().unwrap_or_else(PoisonError::into_inner);
            let passed = started.elapsed().as_secs();
            let line = format!("{name:16} {passed} of {seconds} s, {runs} runs, {corpus} inputs …");
            if terminal {
                eprint!("\r\x1b[K{line}");
            } else {
                eprintln!("{line}");
            }
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn listen(lines: ChildStderr, mut log: File, said: &Mutex<Said>) -> Result<()> {
    for line in BufReader::new(lines).split(b'\n') {
        let line = line.context("reading what the fuzz target says failed")?;
        log.write_all(&line)?;
        log.write_all(b"\n")?;
        said.lock().unwrap_or_else(PoisonError::into_inner).hear(&String::from_utf8_lossy(&line));
    }
    Ok(())
}

impl Said {
    fn hear(&mut self, line: &str) {
        if let Some(status) = line.strip_prefix('#') {
            // `#4096	pulse  cov: 29 ft: 99 corp: 45/9618b lim: 4096 exec/s: 99 rss: 27Mb`
            let mut fields = status.split_ascii_whitespace();
            if let Some(runs) = fields.next().and_then(|runs| runs.parse().ok()) {
                self.runs = runs;
            }
            let corpus = fields.skip_while(|field| *field != "corp:").nth(1);
            if let Some(inputs) = corpus.and_then(|text| text.split('/').next()?.parse().ok()) {
                self.corpus = inputs;
            }
        } else if let Some(runs) = line.strip_prefix("stat::number_of_executed_units:") {
            self.runs = runs.trim().parse().unwrap_or(self.runs);
        } else if let Some((_, input)) = line.split_once("Test unit written to ") {
            self.input = Some(input.trim().to_owned());
        } else if line.contains(" panicked at ") {
            self.panic = vec![line.trim().trim_end_matches(':').to_owned()];
        } else if self.panic.len() == 1 {
            self.panic.push(line.trim().to_owned());
        }
    }

    fn explain(&self, status: ExitStatus) -> String {
        // libFuzzer names the file after what happened.
        let file = self.input.as_deref().and_then(|input| input.rsplit('/').next());
        match file.and_then(|file| file.split('-').next()) {
            Some("timeout") => format!("an input took more than {TIMEOUT_SECONDS} s"),
            Some("oom") => format!("an input took more than {MEMORY_MIB} MiB of memory"),
            _ if !self.panic.is_empty() => self.panic.join(": "),
            _ => format!("it ended with {status}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    fn after(lines: &str) -> Said {
        let mut said = Said::default();
        lines.lines().for_each(|line| said.hear(line));
        said
    }

    #[test]
    fn a_run_that_goes_well() {
        let said = after(
            "INFO: seed corpus: files: 5 min: 1b\n\
             #5\tINITED cov: 10 ft: 10 corp: 1/1b exec/s: 0 rss: 27Mb\n\
             #5967199\tDONE   cov: 29 ft: 99 corp: 45/9618b lim: 4096 exec/s: 994533 rss: 27Mb\n\
             stat::number_of_executed_units: 5967201",
        );
        assert_eq!(said, Said { runs: 5_967_201, corpus: 45, ..Said::default() });
    }

    #[test]
    fn failures_say_what_happened_and_where_the_input_is() {
        let panic = after(
            "thread '<unnamed>' (7) panicked at crates/x/src/lib.rs:3:5:\n\
             attempt to subtract with overflow\n\
             stack backtrace:\n\
             artifact_prefix='/w/'; Test unit written to /w/crash-12ab",
        );
        assert_eq!(panic.input.as_deref(), Some("/w/crash-12ab"));
        let status = ExitStatus::from_raw(77 << 8);
        assert_eq!(
            panic.explain(status),
            "thread '<unnamed>' (7) panicked at crates/x/src/lib.rs:3:5: \
             attempt to subtract with overflow"
        );
        let hang = after("artifact_prefix='/w/'; Test unit written to /w/timeout-12ab");
        assert_eq!(hang.explain(status), "an input took more than 10 s");
        let bomb = after("artifact_prefix='/w/'; Test unit written to /w/oom-12ab");
        assert_eq!(bomb.explain(status), "an input took more than 1024 MiB of memory");
    }
}
