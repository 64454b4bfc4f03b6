//! Commands that come before the guest is prepared.

use anteroom_runner_protocol::{RunnerCommand, SessionConfig};
use tokio::sync::mpsc;

use super::picture::Picture;

/// Commands that may wait.
const MAX_WAITING: usize = 8;

/// Commands that have nothing to act on yet. One that is too many is dropped, which its sender sees as
/// a deadline.
#[derive(Default)]
pub(super) struct EarlyCommands(Vec<RunnerCommand>);

impl EarlyCommands {
    /// Waits for the session that the sandbox is for; `None` when the controller ends it, or is gone. May be
    /// dropped and called again.
    pub(super) async fn until_begun(
        &mut self,
        commands: &mut mpsc::Receiver<RunnerCommand>,
    ) -> Option<SessionConfig> {
        loop {
            match commands.recv().await {
                Some(RunnerCommand::Begin(session)) => return Some(*session),
                Some(RunnerCommand::Shutdown {}) | None => return None,
                Some(command) => self.keep(command),
            }
        }
    }

    /// Those that are not about the picture's viewers; the others are obeyed.
    pub(super) async fn obeyed_by(self, picture: &Picture) -> Self {
        let mut kept = Self::default();
        for command in self {
            if let Some(command) = picture.obey(command).await {
                kept.keep(command);
            }
        }
        kept
    }

    /// Keeps one for later.
    pub(super) fn keep(&mut self, command: RunnerCommand) {
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

#[cfg(test)]
mod tests {
    use anteroom_session::{AccessGrant, HolderGeneration};

    use super::*;

    fn kept(commands: impl IntoIterator<Item = RunnerCommand>) -> Vec<&'static str> {
        let mut early = EarlyCommands::default();
        commands.into_iter().for_each(|command| early.keep(command));
        let name = |command| match command {
            RunnerCommand::RevokeBefore { .. } => "revoke",
            RunnerCommand::StartTool {} => "start",
            RunnerCommand::Offer { .. } => "offer",
            _ => "other",
        };
        early.into_iter().map(name).collect()
    }

    fn generation(number: i64) -> HolderGeneration {
        HolderGeneration::from_number(number).unwrap()
    }

    fn offer(number: i64) -> RunnerCommand {
        let generation = generation(number);
        RunnerCommand::Offer {
            request: 1,
            sdp: String::new(),
            viewer: AccessGrant::Link { generation },
        }
    }

    fn revoke(oldest: i64) -> RunnerCommand {
        RunnerCommand::RevokeBefore { oldest: generation(oldest) }
    }

    #[test]
    fn a_revocation_and_a_start_are_kept_whatever_came_before() {
        let screenshot = || RunnerCommand::Screenshot { request: 1 };
        let many = std::iter::repeat_with(screenshot).take(100);
        let all = kept(many.chain([RunnerCommand::StartTool {}, revoke(1)]));
        assert_eq!(all.len(), MAX_WAITING + 2);
        assert_eq!(all[..2], ["revoke", "start"]);
    }

    #[test]
    fn a_revocation_takes_the_place_of_those_before_and_of_the_offers_that_it_revokes() {
        assert_eq!(kept([offer(1), revoke(1), offer(2), revoke(2)]), ["revoke", "offer"]);
    }
}
