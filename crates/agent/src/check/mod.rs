//! Questions of a host that verifies the image: each answered from what is looked at just then.

mod opened;
mod system;

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use anteroom_guest_link::{LinkStream, read_message, write_message};
use anteroom_guest_protocol::{
    Check, Checked, MAX_CONTROL_MESSAGE, MAX_OPENED_FILES, PageFacts, ServiceEvent, Then,
};
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use tokio::io::AsyncReadExt;
use tokio::net::UnixStream;
use tokio::sync::watch;

pub use opened::OpenedFiles;

use crate::desktop::display::server::VNC_SOCKET;
use crate::guest::Guest;
use crate::supervise::{self, Failure, Output, Process, Supervisor};

/// How long the browser's page may take to find what it looks for.
const PAGE: Duration = Duration::from_secs(120);

/// How long the VNC server may take to greet.
const GREETING: Duration = Duration::from_secs(10);

/// What the questions are answered from.
pub struct Checker {
    pub guest: Guest,
    pub supervisor: Supervisor,
    /// What the browser's page found, once it has.
    pub page: watch::Receiver<Option<PageFacts>>,
    pub opened: OpenedFiles,
}

impl Checker {
    /// Answers the question that comes on a stream.
    pub async fn serve(&self, stream: &mut LinkStream) -> Result<()> {
        let Some(check) = read_message(stream, MAX_CONTROL_MESSAGE).await? else { return Ok(()) };
        let checked = match self.answer(check).await {
            Ok(checked) => checked,
            Err(error) => Checked::Failed { cause: format!("{error:#}") },
        };
        write_message(stream, &checked, MAX_CONTROL_MESSAGE).await?;
        Ok(())
    }

    async fn answer(&self, check: Check) -> Result<Checked> {
        Ok(match check {
            Check::Run { name, command, env, seconds } => {
                let (first_lines, event) = self.ran(&name, &command, &env, seconds).await?;
                Checked::Ran { first_lines, event }
            }
            Check::System {} => Checked::System(system::facts()?),
            Check::Page {} => Checked::Page(self.page().await?),
            Check::VncGreeting {} => {
                let greeting = tokio::time::timeout(GREETING, self.vnc_greeting());
                let text = greeting.await.context("the VNC server sent no greeting")??;
                Checked::VncGreeting { text }
            }
            Check::OpenedFiles { skip } => {
                let skip = usize::try_from(skip).unwrap_or(usize::MAX);
                let (paths, more) = self.opened.after(skip, MAX_OPENED_FILES)?;
                Checked::OpenedFiles { paths, more }
            }
        })
    }

    /// Runs a program to its end, as the end user.
    async fn ran(
        &self,
        name: &str,
        command: &[String],
        env: &BTreeMap<String, String>,
        seconds: u32,
    ) -> Result<(Vec<String>, ServiceEvent)> {
        let [program, arguments @ ..] = command else { bail!("the command is empty") };
        let mut command: Command = self.guest.command(program);
        command.args(arguments).envs(env);
        if let Err(failure) = supervise::check(&command) {
            return Ok((Vec::new(), failure.into_event(Vec::new())));
        }
        let Supervisor { reaper, reporter, .. } = &self.supervisor;
        let mut process = Process::start(name, command, Output::default(), reaper, reporter)?;
        let most = Duration::from_secs(seconds.into());
        let death = tokio::time::timeout(most, process.died()).await;
        let event = match death {
            Ok(death) => death.into_event(process.last_lines(), 1, Then::Nothing {}),
            Err(_) => too_long(&mut process, most).await,
        };
        Ok((process.tail.borrow().first_lines().to_vec(), event))
    }

    async fn page(&self) -> Result<PageFacts> {
        let mut page = self.page.clone();
        let found = tokio::time::timeout(PAGE, page.wait_for(Option::is_some));
        let found = found.await.with_context(|| {
            format!("the browser's page ran no script within {} s", PAGE.as_secs())
        })??;
        found.clone().context("the page reported nothing")
    }

    async fn vnc_greeting(&self) -> Result<String> {
        let path = self.guest.home.join(VNC_SOCKET);
        let stream = UnixStream::connect(&path).await;
        let stream = stream.with_context(|| format!("connecting to {} failed", path.display()))?;
        let mut said = [0; 12];
        stream.take(12).read_exact(&mut said).await.context("reading the greeting failed")?;
        Ok(String::from_utf8_lossy(&said).trim_end().to_owned())
    }
}

/// Ends a program that takes too long; the event says what it was doing.
async fn too_long(process: &mut Process, most: Duration) -> ServiceEvent {
    let stall = supervise::look_at_stall(process.pid, String::new(), most, false);
    process.signal(Signal::SIGKILL);
    process.died().await;
    let failure = Failure::DidNotEnd { after: most, stall: Box::new(stall) };
    failure.into_event(process.last_lines())
}
