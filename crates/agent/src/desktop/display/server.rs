//! Xvnc: a private X server, reachable with a cookie only. It is ready when it has written its
//! display number and takes connections.
//!
//! The number is ours to choose, so X clients may start as soon as the server's socket is there:
//! they wait in its queue. Under emulation its start takes seconds, in which the browser loads.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_guest_protocol::ScreenSize;
use anyhow::{Context, Result, bail};
use nix::fcntl::{FcntlArg, FdFlag, OFlag};
use tokio::io::AsyncReadExt;
use x11rb::rust_connection::{DefaultStream, RustConnection};

use crate::guest::{Guest, GuestKind};
use crate::random::drawn;

const COOKIE_NAME: &[u8] = b"MIT-MAGIC-COOKIE-1";

/// The display of a guest.
const GUEST_DISPLAY: u32 = 1;

/// The displays of sandboxes on a host: far from those of users, and so many that two sessions hardly
/// ever choose one. X takes numbers up to 59535.
const HOST_DISPLAYS: std::ops::Range<u32> = 1000..50_000;

/// The server's VNC socket, in the end user's home.
pub const VNC_SOCKET: &str = ".vnc.sock";

/// How often the server's socket is looked for. There is no event to wait for before it exists.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// How to reach the X server. Cheap to clone.
#[derive(Clone, Debug)]
pub struct DisplayAddress {
    /// The number after the colon.
    pub number: u32,
    cookie: Arc<Mutex<[u8; 16]>>,
}

/// A server that is being started.
pub struct ServerStarting {
    address: DisplayAddress,
    number: tokio::net::unix::pipe::Receiver,
}

/// Writes the access cookie and makes the command, which holds the end of a pipe that the server writes
/// its display number to.
pub fn prepare(guest: &Guest, screen: ScreenSize) -> Result<(Command, ServerStarting)> {
    let cookie = drawn()?;
    write_xauthority(guest, &cookie)?;
    let address =
        DisplayAddress { number: choose_number(guest)?, cookie: Arc::new(Mutex::new(cookie)) };
    let (number, writer) =
        nix::unistd::pipe2(OFlag::O_NONBLOCK | OFlag::O_CLOEXEC).context("making a pipe failed")?;
    let mut command = guest.command("Xvnc");
    command
        .arg(address.name())
        .arg("-displayfd")
        .arg(writer.as_raw_fd().to_string())
        .arg("-geometry")
        .arg(format!("{}x{}", screen.width, screen.height))
        .arg("-auth")
        .arg(guest.xauthority())
        .args(["-depth", "24", "-SecurityTypes", "None", "-rfbport", "-1"])
        .arg("-rfbunixpath")
        .arg(guest.home.join(VNC_SOCKET))
        .args(["-rfbunixmode", "0600", "-nolisten", "tcp", "-AlwaysShared", "-noreset"])
        // Nothing asks it for GLX: Chromium draws by itself. Its drivers and their compiler took some 50 MiB.
        .args(["-extension", "GLX"])
        // Nothing of the desktop's text leaves by a VNC client that nobody asked for.
        .args(["-SendCutText=0", "-AcceptCutText=0", "-desktop", "Anteroom"]);
    inherit(&mut command, writer);
    let number = tokio::net::unix::pipe::Receiver::from_owned_fd(number)?;
    Ok((command, ServerStarting { address, number }))
}

/// Has the child keep a descriptor, which is closed here with the command.
fn inherit(command: &mut Command, fd: OwnedFd) {
    // SAFETY: fcntl is async-signal-safe, and the closure owns the descriptor.
    #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
    unsafe {
        command.pre_exec(move || {
            nix::fcntl::fcntl(&fd, FcntlArg::F_SETFD(FdFlag::empty()))?;
            Ok(())
        });
    }
}

impl ServerStarting {
    /// Waits until clients can be started.
    pub async fn takes_clients(&self) -> DisplayAddress {
        while UnixStream::connect(self.address.socket()).is_err() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
        self.address.clone()
    }

    /// Waits until the server has written its number and answers.
    pub async fn ready(mut self) -> Result<DisplayAddress> {
        let mut text = String::new();
        let mut byte = [0; 1];
        while self.number.read(&mut byte).await.context("reading the display number failed")? == 1 {
            if byte[0] == b'\n' {
                self.address.connect()?;
                return Ok(self.address);
            }
            text.push(char::from(byte[0]));
            if text.len() > 16 {
                break;
            }
        }
        bail!("the X server did not write a display number")
    }
}

/// On a host it is written down before there is anything of it: a server that is killed leaves its
/// socket, which the driver then removes.
fn choose_number(guest: &Guest) -> Result<u32> {
    match guest.kind {
        GuestKind::Vm => Ok(GUEST_DISPLAY),
        GuestKind::Host => {
            let number = rand::random_range(HOST_DISPLAYS);
            let path = guest.display_file();
            std::fs::write(&path, number.to_string())
                .with_context(|| format!("writing {} failed", path.display()))?;
            Ok(number)
        }
    }
}

impl DisplayAddress {
    /// As in `DISPLAY`.
    pub fn name(&self) -> String {
        format!(":{}", self.number)
    }

    fn socket(&self) -> String {
        format!("/tmp/.X11-unix/X{}", self.number)
    }

    /// Has whoever connects from now on do so by another cookie. The server reads the file again when it
    /// has changed (`CheckAuthorization` of X.Org's os/auth.c), and goes on to know the old one.
    pub fn change_cookie(&self, guest: &Guest) -> Result<()> {
        let cookie = drawn()?;
        write_xauthority(guest, &cookie)?;
        *self.cookie.lock().unwrap_or_else(PoisonError::into_inner) = cookie;
        Ok(())
    }

    /// A connection and the number of its screen.
    pub fn connect(&self) -> Result<RustConnection> {
        let path = self.socket();
        let socket =
            UnixStream::connect(&path).with_context(|| format!("connecting to {path} failed"))?;
        let (stream, _) =
            DefaultStream::from_unix_stream(socket).context("preparing the X connection failed")?;
        RustConnection::connect_to_stream_with_auth_info(
            stream,
            0,
            COOKIE_NAME.to_vec(),
            self.cookie.lock().unwrap_or_else(PoisonError::into_inner).to_vec(),
        )
        .context("the X server refused the connection")
    }
}

/// One entry for any address and display (format: Xau's `.Xauthority`, lengths as big-endian u16).
fn write_xauthority(guest: &Guest, cookie: &[u8]) -> Result<()> {
    const FAMILY_WILD: u16 = 0xffff;
    let mut entry = FAMILY_WILD.to_be_bytes().to_vec();
    for field in [&b""[..], b"", COOKIE_NAME, cookie] {
        let length = u16::try_from(field.len()).context("an authority field is too long")?;
        entry.extend(length.to_be_bytes());
        entry.extend(field);
    }
    let path = guest.xauthority();
    let mut file: File = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&path)
        .context("creating the X authority file failed")?;
    file.write_all(&entry).context("writing the X authority file failed")?;
    guest.give_to_end_user(&path).context("giving the X authority file to the end user failed")
}
