//! The runner's side of the control socket.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::rc::Rc;

use anteroom_media::service::MediaHandle;
use anteroom_runner_protocol::{
    ALIVE_EVERY, FirstLine, MAX_LINE, MediaTotals, RunnerCommand, RunnerMessage, lines,
};
use anteroom_session::{EndReason, Observation, VmmFailures};
use tokio::io::BufReader;
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::error::RunnerError;

/// Messages that may wait for the controller. Beyond it the guest waits too.
const QUEUE: usize = 256;

/// Sends messages to the controller. Cheap to clone.
#[derive(Clone)]
pub struct ControllerSender {
    messages: mpsc::Sender<RunnerMessage>,
    media: Rc<OnceCell<MediaHandle>>,
}

/// The task that writes, and the signal that nothing more comes.
pub struct Writing {
    task: JoinHandle<()>,
    last: oneshot::Sender<()>,
}

/// Reads what boots, then starts reading commands and writing messages. The end of the
/// socket arrives as [`RunnerCommand::Shutdown`].
pub async fn open(
    socket: StdUnixStream,
) -> Result<(FirstLine, mpsc::Receiver<RunnerCommand>, ControllerSender, Writing), RunnerError> {
    socket.set_nonblocking(true)?;
    let (reader, mut writer) = UnixStream::from_std(socket)?.into_split();
    let mut reader = BufReader::new(reader);
    let config = lines::read(&mut reader, MAX_LINE)
        .await
        .map_err(RunnerError::system("reading the sandbox's configuration"))?
        .ok_or(RunnerError::NoConfiguration)?;
    let (sender, mut messages) = mpsc::channel::<RunnerMessage>(QUEUE);
    let (last, mut reported_last) = oneshot::channel();
    let task = tokio::task::spawn_local(async move {
        loop {
            let message = tokio::select! {
                biased;
                message = messages.recv() => message,
                // Tasks that hold a sender may outlive the session; nobody waits for their messages now.
                _ = &mut reported_last, if !messages.is_closed() => {
                    messages.close();
                    continue;
                }
            };
            let Some(message) = message else { return };
            // Nobody reads any more; the reading task sees the end too and ends the session.
            if lines::write(&mut writer, &message).await.is_err() {
                return;
            }
        }
    });
    let (commands_in, commands) = mpsc::channel(16);
    tokio::task::spawn_local(read_commands(reader, commands_in));
    let media = Rc::new(OnceCell::new());
    tokio::task::spawn_local(stay_alive(sender.downgrade(), media.clone()));
    Ok((config, commands, ControllerSender { messages: sender, media }, Writing { task, last }))
}

/// Reports that the runner is alive, until no other sender is left.
async fn stay_alive(messages: mpsc::WeakSender<RunnerMessage>, media: Rc<OnceCell<MediaHandle>>) {
    loop {
        tokio::time::sleep(ALIVE_EVERY).await;
        let Some(messages) = messages.upgrade() else { return };
        let _ = messages.send(alive(&media)).await;
    }
}

fn alive(media: &OnceCell<MediaHandle>) -> RunnerMessage {
    let stats = media.get().map(MediaHandle::stats).unwrap_or_default();
    RunnerMessage::Alive {
        media: MediaTotals {
            frames: stats.frames,
            key_frames: stats.key_frames,
            bytes: stats.bytes,
            encode_micros: stats.encode_micros,
            guest_frames: stats.guest_frames,
            lost_datagrams: stats.lost_datagrams,
        },
    }
}

async fn read_commands(
    mut reader: BufReader<OwnedReadHalf>,
    commands: mpsc::Sender<RunnerCommand>,
) {
    while let Ok(Some(command)) = lines::read(&mut reader, MAX_LINE).await {
        if commands.send(command).await.is_err() {
            return;
        }
    }
    let _ = commands.send(RunnerCommand::Shutdown {}).await;
}

impl ControllerSender {
    /// Something happened, now.
    pub async fn observed(&self, observation: Observation) {
        // Its name only: some carry secrets.
        tracing::info!(observed = <&str>::from(&observation));
        self.say(RunnerMessage::Observed { observation }).await;
    }

    /// The session cannot go on.
    pub async fn failed(&self, reason: EndReason) {
        self.observed(Observation::Failed(reason)).await;
    }

    /// An answer.
    pub async fn say(&self, message: RunnerMessage) {
        let _ = self.messages.send(message).await;
    }

    /// Reports this media's figures from now on.
    pub fn count(&self, media: MediaHandle) {
        // There is one a session.
        let _ = self.media.set(media);
    }

    /// Reports what a VMM counted of its failures, if it did.
    pub async fn vmm_failed(&self, counted: Vec<VmmFailures>) {
        let mut failures = BTreeMap::<_, u64>::new();
        for VmmFailures { kind, count, .. } in counted {
            let sum = failures.entry(kind).or_default();
            *sum = sum.saturating_add(count);
        }
        if !failures.is_empty() {
            self.say(RunnerMessage::VmmFailed { failures }).await;
        }
    }

    /// Reports the last figures.
    pub async fn last_figures(&self) {
        let figures = alive(&self.media);
        if let RunnerMessage::Alive { media } = &figures {
            let MediaTotals { frames, key_frames, bytes, lost_datagrams, .. } = media;
            tracing::info!(frames, key_frames, bytes, lost_datagrams, "the last frame was sent");
        }
        self.say(figures).await;
    }
}

impl Writing {
    /// Waits until all messages sent so far are written.
    pub async fn finished(self) {
        let _ = self.last.send(());
        let _ = self.task.await;
    }
}

#[cfg(test)]
mod tests {
    use anteroom_session::VmmFailure;

    use super::*;

    #[tokio::test]
    async fn counters_of_one_part_are_one_number_and_none_are_no_message() {
        let (messages, mut said) = mpsc::channel(4);
        let sender = ControllerSender { messages, media: Rc::default() };
        let counted = |kind, count| VmmFailures { kind, counter: "block.cfg_fails", count };
        sender.vmm_failed(Vec::new()).await;
        let device = VmmFailure::Device;
        let all = [counted(device, 2), counted(VmmFailure::Log, 1), counted(device, u64::MAX)];
        sender.vmm_failed(all.into()).await;
        drop(sender);
        let Some(RunnerMessage::VmmFailed { failures }) = said.recv().await else { panic!() };
        assert_eq!(failures, [(device, u64::MAX), (VmmFailure::Log, 1)].into());
        assert!(said.recv().await.is_none());
    }
}
