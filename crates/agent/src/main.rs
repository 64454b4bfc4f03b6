//! The agent: PID 1 of the guest (or, under the `host` driver, a process on the host).
//!
//! 1. As PID 1: mount, load modules, move into the image with an overlay in memory ([`pid1`]).
//! 2. Answer the host's handshake, say hello, take the configuration ([`session`]).
//! 3. Take injected files, confirm each by its hash ([`files`]).
//! 4. Start X, window manager, browser and CLI, each supervised on its own ([`supervise`]).
//! 5. Send damaged pixels and take input ([`desktop`]), carry the guest's connections to the host
//!    ([`egress`]), run the sign-in ([`sign_in`]) and seal what it leaves ([`credential`]); where an
//!    image is verified, answer the host's questions instead ([`check`]).
//!
//! Started under the name of a browser opener (`xdg-open` and the like) the same binary hands the
//! URL to the running agent and exits ([`desktop::opener`]).

mod check;
mod cpu;
mod credential;
mod desktop;
mod egress;
mod files;
mod guest;
mod pid1;
mod random;
mod redact;
mod report;
mod session;
mod sign_in;
mod supervise;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};

use crate::guest::Guest;

fn main() -> ExitCode {
    abort_when_panicking();
    let mut arguments = std::env::args();
    let program = arguments.next().unwrap_or_default();
    if desktop::opener::is_opener(&program) {
        return desktop::opener::hand_over(&program, &arguments.collect::<Vec<_>>());
    }
    let mut arguments = arguments.peekable();
    if arguments.next_if(|first| first == supervise::CORE_ARGUMENT).is_some() {
        return supervise::look_at_core(&arguments.next().unwrap_or_default());
    }
    if arguments.next_if(|first| first == credential::portability::ARGUMENT).is_some() {
        return credential::portability::run(&arguments.next().unwrap_or_default());
    }
    let as_init = std::process::id() == 1;
    let outcome = if as_init { run_as_init() } else { run_on_host(arguments) };
    if let Err(error) = &outcome {
        // The console (guest) or the driver's log (host) is the last place left to report to.
        eprintln!("anteroom-agent: {error:#}");
    }
    if as_init {
        pid1::power_off();
    }
    if outcome.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// A panic of any thread ends the agent, in every profile: what goes on without one of its tasks would
/// only fall silent.
fn abort_when_panicking() {
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
}

fn run_as_init() -> Result<()> {
    pid1::enter_image().context("entering the golden image failed")?;
    let guest = Guest::in_vm();
    desktop::opener::place(&guest)?;
    let runtime = current_thread_runtime()?;
    let link = {
        let _in_runtime = runtime.enter();
        pid1::open_link().context("opening the guest link failed")?
    };
    tokio::task::LocalSet::new().block_on(&runtime, session::run(link, guest))
}

impl session::Carrier for tokio::net::UnixStream {
    fn await_another_host(&mut self) -> Result<()> {
        bail!("without a VM the agent cannot be frozen")
    }

    async fn of_another_host(self) -> Result<Self> {
        Ok(self)
    }
}

/// `anteroom-agent --host-driver --link-fd N`: the agent without a VM, for tests and benchmarks.
fn run_on_host(arguments: impl Iterator<Item = String>) -> Result<()> {
    let arguments: Vec<String> = arguments.collect();
    let link_fd = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--host-driver", "--link-fd", number] => {
            number.parse::<RawFd>().context("--link-fd takes the number of an open socket")?
        }
        _ => bail!(
            "this program is PID 1 of an Anteroom guest; it is started by `anteroom`, not by hand"
        ),
    };
    nix::sys::prctl::set_child_subreaper(true).context("becoming the subreaper failed")?;
    let guest = Guest::on_host()?;
    desktop::opener::place(&guest)?;
    let runtime = current_thread_runtime()?;
    let link = {
        let _in_runtime = runtime.enter();
        // SAFETY: the driver passes this descriptor to us alone; nothing else in this process has it.
        #[expect(unsafe_code, reason = "an inherited descriptor has no safe constructor")]
        let fd = unsafe { OwnedFd::from_raw_fd(link_fd) };
        let stream = std::os::unix::net::UnixStream::from(fd);
        stream.set_nonblocking(true)?;
        tokio::net::UnixStream::from_std(stream)?
    };
    tokio::task::LocalSet::new().block_on(&runtime, session::run(link, guest))
}

fn current_thread_runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the agent's event loop failed")
}
