//! The virtio-serial port as an async byte stream.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::pin::Pin;
use std::task::{Context as TaskContext, Poll, ready};

use anteroom_guest_protocol::VIRTIO_PORT_NAME;
use anyhow::{Context, Result, bail};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The open port. A read of 0 bytes means that the host's side is away, not that the stream ended:
/// then it waits for the next edge.
#[derive(Debug)]
pub struct LinkPort(AsyncFd<File>);

/// Finds the port by its name and opens it.
pub fn open_link_port() -> Result<LinkPort> {
    let path = find_port()?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(&path)
        .with_context(|| format!("opening {} failed", path.display()))?;
    // SAFETY: the File owns the descriptor, and LinkPort neither replaces nor closes it.
    #[expect(unsafe_code, reason = "AsyncFd has no safe constructor")]
    let watched = unsafe { AsyncFd::register(file) };
    Ok(LinkPort(watched.context("watching the port failed")?))
}

fn find_port() -> Result<PathBuf> {
    let ports =
        fs::read_dir("/sys/class/virtio-ports").context("the kernel has no virtio ports")?;
    for port in ports {
        let port = port?;
        let name = fs::read_to_string(port.path().join("name")).unwrap_or_default();
        if name.trim() == VIRTIO_PORT_NAME {
            return Ok(PathBuf::from("/dev").join(port.file_name()));
        }
    }
    bail!("there is no virtio port named {VIRTIO_PORT_NAME}")
}

impl AsyncRead for LinkPort {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.0.poll_read_ready(cx))?;
            let result = ready.try_io(|file| file.get_ref().read(buffer.initialize_unfilled()));
            match result {
                Ok(Ok(0)) => ready.clear_ready(),
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

impl AsyncWrite for LinkPort {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut TaskContext<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.0.poll_write_ready(cx))?;
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
