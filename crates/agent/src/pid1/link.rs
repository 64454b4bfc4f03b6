//! The guest link as an async byte stream: a virtio-serial port, or vsock where the VMM has no such port.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use anteroom_guest_protocol::{VIRTIO_PORT_NAME, VSOCK_PORT};
use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, VsockAddr, accept4, bind, connect, listen, socket,
};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::port::Port;
use super::watched::watched;
use crate::session::Carrier;

/// The open link.
#[derive(Debug)]
pub enum Link {
    /// It has no end: another host is heard on the same.
    Port(Port),
    /// A connection, which ends; and where a host connects that this guest outlives it for.
    Vsock { connection: AsyncFd<File>, listener: Option<AsyncFd<OwnedFd>> },
}

/// Opens the port with the link's name; where there is none, connects to the host by vsock.
pub fn open() -> Result<Link> {
    match find_port()? {
        Some(path) => Ok(Link::Port(Port::open(&path)?)),
        None => Link::connected(connect_to_host()?),
    }
}

impl Link {
    fn connected(connection: File) -> Result<Self> {
        let connection = watched(connection).context("watching the link failed")?;
        Ok(Self::Vsock { connection, listener: None })
    }
}

impl Carrier for Link {
    fn await_another_host(&mut self) -> Result<()> {
        if let Self::Vsock { listener, .. } = self {
            *listener = Some(listen_for_host()?);
        }
        Ok(())
    }

    async fn of_another_host(self) -> Result<Self> {
        let Self::Vsock { listener: Some(listener), .. } = &self else { return Ok(self) };
        Self::connected(accept(listener).await.context("taking the host's connection failed")?)
    }
}

fn find_port() -> Result<Option<PathBuf>> {
    // Not there without the bus.
    let Ok(ports) = fs::read_dir("/sys/class/virtio-ports") else { return Ok(None) };
    for port in ports {
        let port = port?;
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim() == VIRTIO_PORT_NAME {
            return Ok(Some(PathBuf::from("/dev").join(port.file_name())));
        }
    }
    Ok(None)
}

/// The host listens before the guest runs: a refusal is one.
fn connect_to_host() -> Result<File> {
    if !Path::new("/dev/vsock").exists() {
        bail!("there is neither a virtio port named {VIRTIO_PORT_NAME} nor a vsock device");
    }
    let socket = socket(AddressFamily::Vsock, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)
        .context("opening a vsock socket failed")?;
    let host = VsockAddr::new(libc::VMADDR_CID_HOST, VSOCK_PORT);
    connect(socket.as_raw_fd(), &host)
        .with_context(|| format!("connecting to port {VSOCK_PORT} of the host by vsock failed"))?;
    let socket = File::from(socket);
    let flags = rustix::fs::fcntl_getfl(&socket)? | rustix::fs::OFlags::NONBLOCK;
    rustix::fs::fcntl_setfl(&socket, flags).context("making the link non-blocking failed")?;
    Ok(socket)
}

/// Connections do not outlive a saved VM, and those who listen do: there the host connects.
fn listen_for_host() -> Result<AsyncFd<OwnedFd>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Vsock, SockType::Stream, flags, None)
        .context("opening a vsock socket failed")?;
    let here = VsockAddr::new(libc::VMADDR_CID_ANY, VSOCK_PORT);
    bind(socket.as_raw_fd(), &here)
        .and_then(|()| listen(&socket, Backlog::new(1)?))
        .with_context(|| format!("listening on vsock port {VSOCK_PORT} failed"))?;
    watched(socket).context("watching the vsock port failed")
}

async fn accept(listener: &AsyncFd<OwnedFd>) -> io::Result<File> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    loop {
        let mut ready = listener.readable().await?;
        let accepted =
            ready.try_io(|listener| accept4(listener.as_raw_fd(), flags).map_err(io::Error::from));
        if let Ok(accepted) = accepted {
            let number = accepted?;
            // SAFETY: the descriptor is new, and nothing else has it.
            #[expect(unsafe_code, reason = "nix gives the number alone")]
            return Ok(unsafe { File::from_raw_fd(number) });
        }
    }
}

impl AsyncRead for Link {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let connection = match self.get_mut() {
            Self::Port(port) => return port.poll_read(cx, buffer),
            Self::Vsock { connection, .. } => connection,
        };
        loop {
            let mut ready = ready!(connection.poll_read_ready(cx))?;
            match ready.try_io(|file| file.get_ref().read(buffer.initialize_unfilled())) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Link {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let connection = match self.get_mut() {
            Self::Port(port) => return port.poll_write(cx, bytes),
            Self::Vsock { connection, .. } => connection,
        };
        loop {
            let mut ready = ready!(connection.poll_write_ready(cx))?;
            match ready.try_io(|file| file.get_ref().write(bytes)) {
                Ok(Ok(0)) => ready.clear_ready(),
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}
