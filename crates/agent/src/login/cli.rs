//! The CLI in a pseudo-terminal, as the person.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use anteroom_guest_protocol::{CliSpec, LogStream};
use anyhow::{Context, Result, bail};
use nix::pty::{Winsize, openpty};
use tokio::net::unix::pipe;

use crate::login::opener::SOCKET_ENV;
use crate::report::Reporter;
use crate::room::Room;
use crate::supervise::{self, Process, Reaper};

/// A terminal wide enough that CLIs do not wrap their sign-in URL.
const TERMINAL: Winsize = Winsize { ws_row: 50, ws_col: 500, ws_xpixel: 0, ws_ypixel: 0 };

/// What the CLI needs to reach the world.
pub struct Surroundings<'a> {
    /// `http://127.0.0.1:port` of the guest's proxy.
    pub proxy: &'a str,
    /// Socket of [`crate::login::opener`].
    pub opener_socket: &'a Path,
    /// Bundle of certificate authorities, with the session's own; `None` for the image's default.
    pub ca_bundle: Option<&'a Path>,
    /// The X display, `:1`.
    pub display: &'a str,
}

/// The command that a provider names, in the room and with what the CLI needs.
pub fn command(spec: &CliSpec, around: &Surroundings<'_>, room: &Room) -> Result<Command> {
    let [program, arguments @ ..] = spec.command.as_slice() else {
        bail!("the provider names no program")
    };
    let mut command = room.command(program);
    command.args(arguments);
    set_environment(&mut command, spec, around, room);
    Ok(command)
}

/// Starts the CLI; its terminal output is logged line by line.
pub fn start(mut command: Command, reaper: &Reaper, reporter: &Reporter) -> Result<Process> {
    let program = command.get_program().to_string_lossy().into_owned();
    let pty = openpty(&TERMINAL, None).context("opening a terminal failed")?;
    attach_terminal(&mut command, pty.slave)?;
    supervise::end_with_agent(&mut command);
    let child = command.spawn().with_context(|| format!("starting {program} failed"))?;
    // The command holds the terminal's other end; once dropped, the CLI's end is the terminal's.
    drop(command);
    let process = Process::adopt("cli", &child, reaper);
    log_terminal(pty.master, &process, reporter)?;
    Ok(process)
}

fn set_environment(command: &mut Command, spec: &CliSpec, around: &Surroundings<'_>, room: &Room) {
    command
        .env("TERM", "xterm-256color")
        .env("BROWSER", room.openers().join(super::opener::BROWSER))
        .env("DISPLAY", around.display)
        .env(SOCKET_ENV, around.opener_socket);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env(name, around.proxy);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        command.env(name, "localhost,127.0.0.1,::1");
    }
    if let Some(bundle) = around.ca_bundle {
        for name in
            ["SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "CODEX_CA_CERTIFICATE"]
        {
            command.env(name, bundle);
        }
    }
    command.envs(&spec.env);
}

fn attach_terminal(command: &mut Command, terminal: OwnedFd) -> Result<()> {
    command
        .stdin(Stdio::from(terminal.try_clone()?))
        .stdout(Stdio::from(terminal.try_clone()?))
        .stderr(Stdio::from(terminal));
    // SAFETY: setsid and ioctl are async-signal-safe; descriptor 0 is the terminal by then.
    #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
    unsafe {
        command.pre_exec(|| {
            nix::unistd::setsid()?;
            if libc::ioctl(0, libc::TIOCSCTTY, 0) != 0 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    Ok(())
}

fn log_terminal(master: OwnedFd, process: &Process, reporter: &Reporter) -> Result<()> {
    let receiver = terminal_reader(master)?;
    let (reporter, tail) = (reporter.clone(), process.tail.clone());
    tokio::task::spawn_local(supervise::watch_lines(receiver, move |line| {
        tail.borrow_mut().push(line);
        reporter.log("cli", LogStream::Stdout, line);
    }));
    Ok(())
}

/// A terminal's master is read like a pipe: it is polled, and its end is an error that
/// `watch_lines` takes for one.
fn terminal_reader(master: OwnedFd) -> Result<pipe::Receiver> {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    let flags = OFlag::from_bits_retain(fcntl(&master, FcntlArg::F_GETFL)?);
    fcntl(&master, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
    pipe::Receiver::from_file_unchecked(File::from(master)).context("watching the terminal failed")
}
