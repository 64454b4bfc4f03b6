//! QEMU's monitor: what runs the guest's code, whether it runs, and why it stopped.

use anteroom_session::{Accelerator, RunState, ShutdownCause};
use tokio::net::UnixStream;
use tokio::task::JoinHandle;

use super::conversation::Questions;
use super::qmp::{Command, LONGEST_TERM, short};
use crate::{Inspect, Inspected};

/// The connection to a running QEMU's monitor.
pub(crate) struct Monitor {
    questions: Questions,
    task: JoinHandle<()>,
}

impl Monitor {
    /// Watches the monitor behind `stream` from now on.
    pub(crate) fn watch(stream: UnixStream) -> Self {
        let (questions, task) = Questions::open(stream);
        Self { questions, task }
    }

    /// To ask by without holding this.
    pub(crate) fn questions(&self) -> Questions {
        self.questions.clone()
    }

    /// Whether KVM executes the guest. None when QEMU does not say.
    pub(crate) async fn uses_kvm(&self) -> Option<bool> {
        self.questions.ask(Command::KVM).await.ok()?.enabled
    }

    /// Whether the guest runs. None when QEMU does not say.
    pub(crate) async fn status(&self) -> Option<RunState> {
        let answer = self.questions.ask(Command::STATUS).await.ok()?;
        answer.status.map(|status| run_state(&status))
    }

    /// Where each of the guest's processors stands, as QEMU prints it. None when QEMU does not say.
    pub(crate) async fn registers(&self) -> Option<String> {
        self.questions.ask(Command::REGISTERS).await.ok()?.text
    }

    /// Why the guest stopped, once it has.
    pub(crate) fn shutdown(&self) -> Option<ShutdownCause> {
        self.questions.shutdown()
    }

    /// Waits until QEMU has sent its last message; may be dropped and called again.
    pub(crate) async fn silent(&mut self) {
        if !self.task.is_finished() {
            let _ = (&mut self.task).await;
        }
    }
}

impl Inspect for Monitor {
    fn accelerator(&self) -> Inspected<'_, Accelerator> {
        Box::pin(async {
            let uses_kvm = self.uses_kvm().await?;
            Some(if uses_kvm { Accelerator::Kvm } else { Accelerator::Tcg })
        })
    }

    fn run_state(&self) -> Inspected<'_, RunState> {
        Box::pin(self.status())
    }

    fn registers(&self) -> Inspected<'_, String> {
        Box::pin(Self::registers(self))
    }

    fn shutdown_cause(&self) -> Option<ShutdownCause> {
        self.shutdown()
    }

    fn drained(&mut self) -> Inspected<'_, ()> {
        Box::pin(async {
            self.silent().await;
            Some(())
        })
    }
}

/// QEMU's `RunState` (qapi/run-state.json) in the drivers' terms.
fn run_state(status: &str) -> RunState {
    match status {
        "running" => RunState::Running,
        "paused" => RunState::Paused,
        other => RunState::Other(short(other, LONGEST_TERM)),
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::task::LocalSet;

    use super::*;

    /// QEMU's side of a conversation, recorded from QEMU 7.2.
    const GREETING: &str = "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 19, \"minor\": 2, \"major\": 7}, \"package\": \"Debian 1:7.2+dfsg-7+deb12u13\"}, \"capabilities\": [\"oob\"]}}\r\n";
    const SHUTDOWN: &str = "{\"timestamp\": {\"seconds\": 1795442195, \"microseconds\": 1}, \"event\": \"SHUTDOWN\", \"data\": {\"guest\": true, \"reason\": \"guest-reset\"}}\r\n";

    #[tokio::test]
    async fn questions_are_answered_between_events_and_the_end_is_reported() {
        LocalSet::new()
            .run_until(async {
                let (ours, theirs) = UnixStream::pair().unwrap();
                let mut monitor = Monitor::watch(ours);
                let (reader, mut writer) = theirs.into_split();
                let qemu = tokio::task::spawn_local(async move {
                    writer.write_all(GREETING.as_bytes()).await.unwrap();
                    let mut asked = BufReader::new(reader).lines();
                    for answer in [
                        "{\"return\": {}}\r\n",
                        "{\"timestamp\": {}, \"event\": \"RESUME\"}\r\n{\"return\": {\"enabled\": false, \"present\": true}}\r\n",
                        "{\"return\": {\"status\": \"running\", \"singlestep\": false, \"running\": true}}\r\n",
                        "{\"return\": \"\\r\\nCPU#0\\r\\nRAX=0000000000000000\\r\\n\"}\r\n",
                    ] {
                        asked.next_line().await.unwrap().unwrap();
                        writer.write_all(answer.as_bytes()).await.unwrap();
                    }
                    writer.write_all(SHUTDOWN.as_bytes()).await.unwrap();
                });
                assert_eq!(monitor.uses_kvm().await, Some(false));
                assert_eq!(monitor.status().await, Some(RunState::Running));
                assert!(monitor.registers().await.unwrap().contains("CPU#0"));
                qemu.await.unwrap();
                monitor.silent().await;
                assert_eq!(monitor.shutdown(), Some(ShutdownCause::GuestReset));
                assert_eq!(monitor.status().await, None);
            })
            .await;
    }

    #[tokio::test]
    async fn an_endless_line_ends_the_conversation() {
        LocalSet::new()
            .run_until(async {
                let (ours, mut theirs) = UnixStream::pair().unwrap();
                let mut monitor = Monitor::watch(ours);
                let spam = tokio::task::spawn_local(async move {
                    while theirs.write_all(&[b'x'; 4096]).await.is_ok() {}
                });
                monitor.silent().await;
                assert_eq!(monitor.uses_kvm().await, None);
                drop(monitor);
                spam.await.unwrap();
            })
            .await;
    }
}
