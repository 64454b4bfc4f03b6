//! The CLI in a pseudo-terminal, as the end user.

use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::rc::Rc;

use anteroom_guest_protocol::{CliSpec, LogStream, ServiceEvent, TERMINAL_COLUMNS, TERMINAL_ROWS};
use anyhow::{Context, Result, bail};
use nix::pty::{Winsize, openpty};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::printed::{Printed, WHOLE};
use super::terminal::Terminal;
use crate::credential::watch::Watched;
use crate::desktop::opener::{BROWSER, SOCKET_ENV};
use crate::guest::Guest;
use crate::redact::Secrets;
use crate::report::Reporter;
use crate::supervise::{self, Lines, Process, Reaper};

/// The size of its terminal.
const SIZE: Winsize =
    Winsize { ws_row: TERMINAL_ROWS, ws_col: TERMINAL_COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };

/// Variables that name a bundle of certificate authorities: OpenSSL and Go, Node.js, Python's
/// requests, curl, git, the AWS and Google CLIs, pip, Cargo, Deno, gRPC, Perl, Codex.
const BUNDLE_VARIABLES: [&str; 13] = [
    "SSL_CERT_FILE",
    "NODE_EXTRA_CA_CERTS",
    "REQUESTS_CA_BUNDLE",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "AWS_CA_BUNDLE",
    "CLOUDSDK_CORE_CUSTOM_CA_CERTS_FILE",
    "PIP_CERT",
    "CARGO_HTTP_CAINFO",
    "DENO_CERT",
    "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH",
    "PERL_LWP_SSL_CA_FILE",
    "CODEX_CA_CERTIFICATE",
];

/// What the CLI needs to reach the world.
pub struct CliContext {
    /// `http://127.0.0.1:port` of the guest's proxy.
    pub proxy: String,
    /// Socket of [`crate::desktop::opener`].
    pub opener_socket: PathBuf,
    /// Bundle of certificate authorities, with the session's own; `None` for the image's default.
    pub ca_bundle: Option<PathBuf>,
    /// The X display, `:1`.
    pub display: String,
    /// Address of the session bus, where there is one.
    pub session_bus: Option<String>,
    /// Where it runs.
    pub guest: Guest,
}

/// The command that a provider names, in the sandbox and with what the CLI needs.
pub fn command(spec: &CliSpec, context: &CliContext) -> Result<Command> {
    let [program, arguments @ ..] = spec.command.as_slice() else {
        bail!("the provider file names no program")
    };
    let mut command = context.guest.command(program);
    command.args(arguments);
    set_environment(&mut command, spec, context);
    Ok(command)
}

/// Who sees the CLI's terminal output.
pub struct Seen {
    /// What is looked for in it.
    pub printed: Printed,
    /// Whose files are looked at when an address is in it.
    pub watched: Rc<Watched>,
}

/// What is in every address.
const ADDRESS: &[u8] = b"://";

/// Starts the CLI; its terminal output is logged line by line, without secrets and what is printed.
pub fn start(
    mut command: Command,
    reaper: &Reaper,
    reporter: &Reporter,
    seen: Seen,
) -> Result<(Process, Terminal)> {
    let program = command.get_program().to_string_lossy().into_owned();
    let pty = openpty(&SIZE, None).context("opening a terminal failed")?;
    attach_terminal(&mut command, pty.slave)?;
    supervise::end_with_agent(&mut command);
    let child = command.spawn().with_context(|| format!("starting {program} failed"))?;
    // The command holds the terminal's other end; once dropped, the CLI's end is the terminal's.
    drop(command);
    let process = Process::adopt("cli", &child, reaper);
    let (terminal, output) = Terminal::new(pty.master)?;
    let (reporter, secrets) = (reporter.clone(), reporter.secrets().clone());
    let reading = read(output, terminal.clone(), &process, reporter, secrets, seen);
    tokio::task::spawn_local(reading);
    Ok((process, terminal))
}

/// Says which of the CLI's ports is taken, if one is: its sign-in could not come back to it.
pub fn taken_port(ports: &[u16]) -> Option<u16> {
    ports.iter().copied().find(|port| {
        std::net::TcpListener::bind(("127.0.0.1", *port))
            .is_err_and(|error| error.kind() == std::io::ErrorKind::AddrInUse)
    })
}

fn set_environment(command: &mut Command, spec: &CliSpec, context: &CliContext) {
    command
        .env("TERM", "xterm-256color")
        .env("BROWSER", context.guest.openers().join(BROWSER))
        .env("DISPLAY", &context.display)
        .env(SOCKET_ENV, &context.opener_socket);
    for name in ["HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"] {
        command.env(name, &context.proxy);
    }
    for name in ["NO_PROXY", "no_proxy"] {
        command.env(name, "localhost,127.0.0.1,::1");
    }
    if let Some(bundle) = &context.ca_bundle {
        for name in BUNDLE_VARIABLES {
            command.env(name, bundle);
        }
    }
    if let Some(bus) = &context.session_bus {
        command.env("DBUS_SESSION_BUS_ADDRESS", bus);
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

/// Passes on what the CLI writes, until it is gone.
fn read(
    mut output: pipe::Receiver,
    terminal: Terminal,
    process: &Process,
    reporter: Reporter,
    secrets: Secrets,
    seen: Seen,
) -> impl Future<Output = ()> + use<> {
    let (tail, reported) = (process.tail.clone(), reporter.clone());
    async move {
        let clean = secrets.clone();
        let lines = Lines::new(move |line| {
            let line = clean.redact_row(line);
            tail.borrow_mut().push(&line);
            reporter.log("cli", LogStream::Stdout, &line);
        });
        let mut passing = Passing { terminal, lines, secrets, seen, held: Vec::new(), still: 0 };
        let mut buffer = [0; 4096];
        let mut is_ready = false;
        loop {
            let read = output.read(&mut buffer);
            let read = match passing.held.is_empty() {
                true => Ok(read.await),
                false => tokio::time::timeout(WHOLE, read).await,
            };
            match read {
                Ok(Ok(count @ 1..)) => {
                    if !std::mem::replace(&mut is_ready, true) {
                        reported.service("cli", ServiceEvent::Ready {}).await;
                    }
                    passing.wrote(&buffer[..count]);
                }
                // A terminal answers EIO when its last program is gone.
                Ok(_) => break,
                Err(_) => passing.is_still(),
            }
        }
        passing.log_held();
    }
}

/// So many bytes are kept back at most.
const MAX_HELD: usize = 256 * 1024;

/// How many times [`WHOLE`] what began like a secret may take to become one, until it is passed on.
const NONE_AFTER: u32 = 10;

/// What a CLI writes on its way to the host and to the log.
struct Passing<F: FnMut(&str)> {
    terminal: Terminal,
    lines: Lines<F>,
    secrets: Secrets,
    seen: Seen,
    /// Kept back, since a secret has begun on the screen.
    held: Vec<u8>,
    /// How often nothing came since.
    still: u32,
}

impl<F: FnMut(&str)> Passing<F> {
    fn wrote(&mut self, bytes: &[u8]) {
        if bytes.windows(ADDRESS.len()).any(|part| part == ADDRESS) {
            self.seen.watched.address_shown();
        }
        if !self.seen.printed.see(bytes) && self.held.is_empty() {
            self.terminal.wrote(bytes);
            self.lines.feed(bytes);
            return;
        }
        self.still = 0;
        self.terminal.wrote_in_secret();
        self.held.extend_from_slice(bytes);
        if self.held.len() > MAX_HELD {
            self.log_held();
        }
    }

    /// Nothing has come for [`WHOLE`].
    fn is_still(&mut self) {
        self.still += 1;
        let is_secret = !self.seen.printed.take().is_empty();
        if !is_secret && self.still < NONE_AFTER {
            return;
        }
        if !is_secret {
            self.terminal.wrote(&self.held);
        }
        self.log_held();
    }

    /// Logs what was kept back, without secrets.
    fn log_held(&mut self) {
        for secret in self.seen.printed.take() {
            self.secrets.add(&secret);
        }
        self.lines.feed(&std::mem::take(&mut self.held));
    }
}
