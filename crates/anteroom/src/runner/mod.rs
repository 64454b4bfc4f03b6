//! `anteroom session`: one process a session, between the controller and a hostile guest.
//!
//! It owns the VM, the guest link, the egress gate and the viewer's media; it holds no key and no
//! credential in clear. Once its VM runs it confines itself ([`confine`]). It ends when the guest is
//! done, when something fails, when the controller says so or is gone; whatever the way, the VM ends
//! with it.

mod channels;
mod confine;
mod controller_link;
mod egress;
pub(crate) mod egress_gate;
mod media;
mod session;
mod sign_in_spec;
mod terminal;

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use anyhow::{Context, Result};

use crate::runner_protocol::{CHANNELS_FD_ENV, CONTROL_FD_ENV, MEDIA_FD_ENV, SESSION_ENV};

/// Runs a session with the sockets that the controller left open for this process.
///
/// # Errors
/// When the sockets are missing or the controller cannot be reached any more. Whatever happens to the
/// session itself is reported to the controller, and is not an error here.
pub fn run() -> Result<()> {
    // Ctrl-C in the operator's terminal is the controller's to handle, and within one kernel session
    // anybody may continue anybody (kill(2)).
    nix::unistd::setsid().context("leaving the controller's terminal failed")?;
    crate::logging::start_as_configured();
    let session = std::env::var(SESSION_ENV).unwrap_or_default();
    let _span = tracing::info_span!("runner", session).entered();
    let sockets = Sockets {
        control: inherited(CONTROL_FD_ENV)?.into(),
        media: inherited(MEDIA_FD_ENV)?.into(),
        channels: inherited(CHANNELS_FD_ENV)?.into(),
    };
    // One thread: the VMM's parent-death signal is tied to the thread that starts it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("starting the runner's event loop failed")?;
    tokio::task::LocalSet::new().block_on(&runtime, session::run(sockets))
}

/// What the controller passed.
struct Sockets {
    control: std::os::unix::net::UnixStream,
    media: std::os::unix::net::UnixDatagram,
    channels: std::os::unix::net::UnixStream,
}

fn inherited(variable: &str) -> Result<OwnedFd> {
    let number: RawFd =
        std::env::var(variable).ok().and_then(|text| text.parse().ok()).with_context(|| {
            format!("{variable} names no socket; `anteroom session` is started by `anteroom serve`")
        })?;
    nix::fcntl::fcntl(
        // SAFETY: only asks whether the descriptor is open.
        #[expect(unsafe_code, reason = "the number comes from the environment")]
        unsafe {
            std::os::fd::BorrowedFd::borrow_raw(number)
        },
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    )
    .with_context(|| format!("{variable} names a descriptor that is not open"))?;
    // SAFETY: the controller passed this descriptor to this process for this use; nothing else here
    // takes it.
    #[expect(unsafe_code, reason = "an inherited descriptor has no safe constructor")]
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
