//! A VM's devices, written to a file and read from it: what QEMU calls a migration. Its memory is a file
//! already.

use std::fs::OpenOptions;
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use tokio::time::timeout;

use super::conversation::{MonitorError, Questions};
use super::qmp::{Command, short};
use crate::SaveError;
use crate::clone_start::Resumed;
use crate::descriptors::opened_anew;
use crate::held::{Held, Releasing};
use crate::save::{Save, Saving};

/// How long saving or loading may take: it is known to take some milliseconds.
const LIMIT: Duration = Duration::from_secs(120);

/// The longest that is quoted of QEMU's reason, in characters.
const LONGEST_REASON: usize = 400;

/// A VM that is to be saved.
pub struct Template {
    questions: Questions,
    /// Opened while that is allowed: who saves may be confined by then.
    state: Option<OwnedFd>,
}

impl Template {
    /// The state of its devices will be written to this file.
    pub fn new(questions: Questions, state: &OwnedFd) -> io::Result<Self> {
        let state = opened_anew(state, OpenOptions::new().write(true).truncate(true))?;
        Ok(Self { questions, state: Some(state) })
    }
}

impl Save for Template {
    fn save(&mut self) -> Saving<'_> {
        Box::pin(async {
            let state = self.state.take().ok_or(SaveError::Again)?;
            within(LIMIT, "save", save(&self.questions, state)).await?;
            Ok(())
        })
    }
}

async fn save(questions: &Questions, state: OwnedFd) -> Result<(), MonitorError> {
    questions.ask(Command::STOP).await?;
    questions.ask(Command::WITHOUT_MEMORY).await?;
    questions.pass(Command::TAKE_STATE, state).await?;
    questions.ask(Command::SAVE).await?;
    moved(questions, "save").await
}

/// Reads the devices' state by `command`. The guest is paused then, as the saved one was.
pub async fn load(questions: &Questions, command: Command) -> Result<(), MonitorError> {
    let loaded = async {
        questions.ask(Command::WITHOUT_MEMORY).await?;
        questions.ask(command).await?;
        moved(questions, "load").await
    };
    within(LIMIT, "load", loaded).await
}

async fn within(
    limit: Duration,
    what: &'static str,
    migration: impl Future<Output = Result<(), MonitorError>>,
) -> Result<(), MonitorError> {
    let seconds = limit.as_secs();
    timeout(limit, migration).await.map_err(|_| MonitorError::Unfinished { what, seconds })?
}

/// Waits for the migration's end.
async fn moved(questions: &Questions, what: &'static str) -> Result<(), MonitorError> {
    loop {
        // Each step is an event, which is kept when it comes before it is waited for.
        questions.migrates().await;
        let answer = questions.ask(Command::MIGRATION).await?;
        match answer.status.as_deref() {
            Some("completed") => return Ok(()),
            Some("failed" | "cancelled") => {
                let why = answer.error.as_deref().unwrap_or("it gives no reason");
                return Err(MonitorError::NotMoved { what, why: short(why, LONGEST_REASON) });
            }
            _ => {}
        }
    }
}

/// A clone whose state is loaded.
pub struct Loaded(pub Questions);

impl Held for Loaded {
    fn release<'a>(self: Box<Self>) -> Releasing<'a>
    where
        Self: 'a,
    {
        let resume = async move { self.0.ask(Command::CONTINUE).await.map(drop) };
        Box::pin(async { Ok(Resumed::by(resume).await?) })
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use nix::cmsg_space;
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
    use tokio::io::{AsyncWriteExt, Interest};
    use tokio::net::UnixStream;
    use tokio::task::LocalSet;

    use super::super::monitor::Monitor;
    use super::*;
    use crate::descriptors::in_memory;

    const DONE: &str = "{\"return\": {}}\r\n";
    const COMPLETED: &str = "{\"timestamp\": {}, \"event\": \"MIGRATION\", \"data\": {\"status\": \"completed\"}}\r\n{\"return\": {}}\r\n";

    /// A fake QEMU gives these answers in order, as QEMU 7.2 was recorded; how many descriptors came.
    async fn against(answers: &[&str], asks: impl AsyncFnOnce(Questions)) -> usize {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let fake = async {
            let mut came = 0;
            for answer in answers {
                came += receive(&theirs).await;
                theirs.write_all(answer.as_bytes()).await.unwrap();
            }
            came
        };
        let asks = async {
            let monitor = Monitor::watch(ours);
            asks(monitor.questions()).await;
        };
        LocalSet::new().run_until(async { tokio::join!(fake, asks).0 }).await
    }

    /// Reads a command; how many descriptors came with it.
    async fn receive(stream: &UnixStream) -> usize {
        let receive = || {
            let mut text = [0; 4096];
            let mut parts = [std::io::IoSliceMut::new(&mut text)];
            let mut space = cmsg_space!([std::os::fd::RawFd; 4]);
            let socket = std::os::fd::AsRawFd::as_raw_fd(&stream.as_fd());
            let flags = MsgFlags::MSG_DONTWAIT;
            let message = recvmsg::<()>(socket, &mut parts, Some(&mut space), flags)?;
            let rights = message.cmsgs()?.map(|one| match one {
                ControlMessageOwned::ScmRights(descriptors) => descriptors.len(),
                _ => 0,
            });
            Ok(rights.sum())
        };
        stream.async_io(Interest::READABLE, receive).await.unwrap()
    }

    fn template(questions: Questions) -> Template {
        let state = in_memory(&[]).unwrap();
        Template { questions, state: Some(state) }
    }

    #[tokio::test]
    async fn a_template_s_state_is_written_to_a_descriptor_that_qemu_is_given() {
        let completed = "{\"return\": {\"status\": \"completed\"}}\r\n";
        let answers = [DONE, DONE, DONE, DONE, COMPLETED, completed];
        let came = against(&answers, async |questions| {
            let mut template = template(questions);
            template.save().await.unwrap();
            assert!(matches!(template.save().await, Err(SaveError::Again)));
        })
        .await;
        assert_eq!(came, 1);
    }

    #[tokio::test]
    async fn why_qemu_does_not_save_is_reported_as_it_says_it() {
        let failed =
            "{\"return\": {\"status\": \"failed\", \"error-desc\": \"Unable to write\"}}\r\n";
        let refused =
            "{\"error\": {\"class\": \"GenericError\", \"desc\": \"State blocked by x\"}}\r\n";
        for (answers, said) in [
            (
                &[DONE, DONE, DONE, DONE, COMPLETED, failed][..],
                "QEMU did not save the state of the VM's devices: Unable to write",
            ),
            (
                &[DONE, DONE, DONE, DONE, refused],
                "QEMU refused the command migrate: State blocked by x",
            ),
        ] {
            against(answers, async |questions| {
                let error = template(questions).save().await.unwrap_err();
                assert_eq!(error.to_string(), said);
            })
            .await;
        }
    }

    #[tokio::test]
    async fn a_qemu_that_ends_while_it_loads_ends_the_wait() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        LocalSet::new()
            .run_until(async {
                let monitor = Monitor::watch(ours);
                drop(theirs);
                let error = load(&monitor.questions(), Command::load("{}")).await.unwrap_err();
                assert!(matches!(error, MonitorError::Closed { .. }), "{error}");
            })
            .await;
    }

    #[tokio::test]
    async fn a_migration_that_does_not_end_is_given_up() {
        let endless = within(Duration::ZERO, "save", std::future::pending());
        let error = endless.await.unwrap_err();
        assert_eq!(error.to_string(), "QEMU did not save the state of the VM's devices within 0 s");
    }
}
