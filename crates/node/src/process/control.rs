//! The node's end of a runner's control socket, and the wait for its end.

use std::sync::Arc;
use std::time::Duration;

use anteroom_node_protocol::Report;
use anteroom_runner_protocol::{FirstLine, MAX_RUNNER_LINE, RunnerCommand, RunnerMessage, lines};
use anteroom_session::{EndReason, HolderGeneration, Observation, ProcessExit};
use tokio::io::BufReader;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::process::Child;
use tokio::sync::{mpsc, watch};

use super::waiting::{Waiting, answer};

/// How long a runner may say nothing; it says that it is alive more often
/// ([`ALIVE_EVERY`](anteroom_runner_protocol::ALIVE_EVERY)).
const SILENCE: Duration = Duration::from_secs(30);
const READ_AGAIN: Duration = Duration::from_secs(2);

/// Sends what boots, then commands until nobody has any more.
pub async fn write(
    config: FirstLine,
    mut commands: mpsc::Receiver<RunnerCommand>,
    mut oldest: watch::Receiver<HolderGeneration>,
    mut writer: OwnedWriteHalf,
) {
    // A runner that is gone is noticed, with its status, by who waits for it.
    if lines::write(&mut writer, &config).await.is_err() {
        return;
    }
    loop {
        let command = tokio::select! {
            // A revocation waits for nothing that its viewer asked for.
            biased;
            Ok(()) = oldest.changed() => {
                Some(RunnerCommand::RevokeBefore { oldest: *oldest.borrow_and_update() })
            }
            command = commands.recv() => command,
        };
        let Some(command) = command else { return };
        if lines::write(&mut writer, &command).await.is_err() {
            return;
        }
    }
}

/// Reports what the runner says, until it says nothing more.
pub async fn read(
    mut reader: BufReader<OwnedReadHalf>,
    reports: mpsc::Sender<Report>,
    waiting: Arc<Waiting>,
) {
    loop {
        let mut line =
            std::pin::pin!(lines::read::<RunnerMessage, _>(&mut reader, MAX_RUNNER_LINE));
        let heard = match tokio::time::timeout(SILENCE, &mut line).await {
            // If this process was stopped meanwhile, what the runner said is there and unread.
            Err(_) => tokio::time::timeout(READ_AGAIN, &mut line).await,
            heard => heard,
        };
        let Ok(message) = heard else {
            let silent_ms = u64::try_from(SILENCE.as_millis()).unwrap_or(u64::MAX);
            let _ = reports.send(Report::RunnerSilent { silent_ms }).await;
            return;
        };
        let report = match message {
            Ok(Some(message)) => match reported(message, &waiting) {
                Some(report) => report,
                None => continue,
            },
            Ok(None) => return,
            // A runner that dies with something unread resets its socket: how it ended is reported by
            // who waits for it.
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => {
                let cause = format!("what it reported cannot be read: {error}");
                let observation = Observation::Failed(EndReason::RunnerFailed { cause });
                let _ = reports.send(Report::Observed { observation }).await;
                return;
            }
        };
        if reports.send(report).await.is_err() {
            return;
        }
    }
}

/// What of a message is the controller's; an answer goes to who asked.
fn reported(message: RunnerMessage, waiting: &Waiting) -> Option<Report> {
    match message {
        RunnerMessage::Alive { media: totals } => return Some(Report::Media { totals }),
        RunnerMessage::Observed { observation } => {
            return Some(Report::Observed { observation });
        }
        RunnerMessage::VmmFailed { failures } => return Some(Report::VmmFailed { failures }),
        RunnerMessage::OfferAnswered { request, result } => {
            answer(&waiting.offers, request, result);
        }
        RunnerMessage::CodeAnswered { request, result } => answer(&waiting.codes, request, result),
        RunnerMessage::HostAnswered { request, result } => answer(&waiting.hosts, request, result),
        RunnerMessage::Screenshot { request, result } => {
            answer(&waiting.screenshots, request, result);
        }
    }
    None
}

/// Reports the end after everything the runner said before it.
pub async fn wait(
    mut child: Child,
    reading: tokio::task::JoinHandle<()>,
    reports: mpsc::Sender<Report>,
    exited: watch::Sender<Option<ProcessExit>>,
) {
    let exit = child.wait().await.map_or(ProcessExit::Unknown, ProcessExit::from);
    let _ = tokio::time::timeout(Duration::from_secs(2), reading).await;
    exited.send_replace(Some(exit));
    let _ = reports.send(Report::RunnerExited { exit }).await;
}

#[cfg(test)]
mod tests {
    use anteroom_session::DriverKind;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test]
    async fn a_line_that_cannot_be_read_is_the_runner_s_failure() {
        let (ours, mut runner) = UnixStream::pair().unwrap();
        let (reader, _writer) = ours.into_split();
        let (reports, mut heard) = mpsc::channel(1);
        let reading = tokio::spawn(read(BufReader::new(reader), reports, Arc::default()));
        runner.write_all(b"{\"type\":\"what\"}\n").await.unwrap();
        let Some(Report::Observed { observation: Observation::Failed(reason) }) =
            heard.recv().await
        else {
            panic!("no failure was reported");
        };
        assert_eq!(reason.code(), "runner_failed");
        let sentence = reason.sentence(DriverKind::Host);
        assert!(sentence.contains("what it reported cannot be read"), "{sentence}");
        reading.await.unwrap();
    }
}
