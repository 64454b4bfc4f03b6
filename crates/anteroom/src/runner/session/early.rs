//! Commands that come before the guest is prepared.

use tokio::sync::mpsc;

use crate::runner_protocol::RunnerCommand;

/// Commands that may wait.
const MAX_WAITING: usize = 8;

/// Commands that have nothing to act on yet. One that is too many is dropped, which its sender sees as
/// a deadline.
#[derive(Default)]
pub(super) struct EarlyCommands(Vec<RunnerCommand>);

impl EarlyCommands {
    /// Keeps what comes until the controller ends the session, or is gone.
    pub(super) async fn collect_until_shutdown(
        &mut self,
        commands: &mut mpsc::Receiver<RunnerCommand>,
    ) {
        loop {
            match commands.recv().await {
                Some(RunnerCommand::Shutdown {}) | None => return,
                Some(command) => self.keep(command),
            }
        }
    }

    fn keep(&mut self, command: RunnerCommand) {
        match command {
            RunnerCommand::RevokeBefore { oldest } => {
                // One stands for all before it, and no offer may take its place.
                self.0.retain(|command| match command {
                    RunnerCommand::RevokeBefore { .. } => false,
                    RunnerCommand::Offer { viewer, .. } => !viewer.is_before(oldest),
                    _ => true,
                });
                self.0.insert(0, RunnerCommand::RevokeBefore { oldest });
            }
            // Sent once a session, and nothing comes of it without.
            RunnerCommand::StartTool {} => self.0.insert(0, RunnerCommand::StartTool {}),
            command if self.0.len() < MAX_WAITING => self.0.push(command),
            _ => {}
        }
    }
}

impl IntoIterator for EarlyCommands {
    type Item = RunnerCommand;
    type IntoIter = std::vec::IntoIter<RunnerCommand>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}
