//! `anteroom session`: one process a session, between the controller and a hostile guest.
//!
//! It owns the VM, the guest link, the egress gate and the viewer's media; it holds no key and no
//! credential in clear. Once its VM runs it confines itself (`confine`). It ends when the guest is
//! done, when something fails, when the controller says so or is gone; whatever the way, the VM ends
//! with it.

mod channels;
mod config;
mod confine;
mod controller_link;
mod egress;
mod egress_gate;
mod error;
mod media;
mod session;
mod sign_in_spec;
mod terminal;

use std::fmt::Display;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use anteroom_guest_session::{ImageFiles, TemplateFiles, VmFiles};
use anteroom_runner_protocol::{
    CHANNELS_FD_ENV, CONTROL_FD_ENV, IMAGE_KERNEL_FD_ENV, IMAGE_MODULES_FD_ENV, IMAGE_ROOT_FD_ENV,
    MEDIA_FD_ENV, TEMPLATE_MEMORY_FD_ENV, TEMPLATE_STATE_FD_ENV,
};

pub use egress_gate::mappings;
pub use error::RunnerError;

/// Runs a session with the sockets that the controller left open for this process; `agent` gives the
/// agent's program, for a VM.
///
/// # Errors
/// When the sockets are missing or the controller cannot be reached any more. Whatever happens to the
/// session itself is reported to the controller, and is not an error here.
pub fn run<E: Display>(agent: fn() -> Result<&'static [u8], E>) -> Result<(), RunnerError> {
    // Ctrl-C in the operator's terminal is the controller's to handle, and within one kernel session
    // anybody may continue anybody (kill(2)).
    nix::unistd::setsid().map_err(RunnerError::system("leaving the controller's terminal"))?;
    // The sandbox's name once it is read, which is its session's id.
    let _span = tracing::info_span!("runner", session = tracing::field::Empty).entered();
    let sockets = Sockets {
        control: inherited(CONTROL_FD_ENV)?.into(),
        media: inherited(MEDIA_FD_ENV)?.into(),
        channels: inherited(CHANNELS_FD_ENV)?.into(),
    };
    let files = vm_files()?;
    // One thread: the VMM's parent-death signal is tied to the thread that starts it.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(RunnerError::system("starting the runner's event loop"))?;
    tokio::task::LocalSet::new().block_on(&runtime, session::run(sockets, files, agent))
}

/// What the controller passed.
struct Sockets {
    control: std::os::unix::net::UnixStream,
    media: std::os::unix::net::UnixDatagram,
    channels: std::os::unix::net::UnixStream,
}

/// The files of a VM, where it is one.
fn vm_files() -> Result<Option<VmFiles>, RunnerError> {
    let is_there = |variable| std::env::var_os(variable).is_some();
    let file = |variable| inherited(variable).map(Arc::new);
    if !is_there(IMAGE_ROOT_FD_ENV) {
        return Ok(None);
    }
    let image = ImageFiles {
        root: file(IMAGE_ROOT_FD_ENV)?,
        kernel: file(IMAGE_KERNEL_FD_ENV)?,
        modules: file(IMAGE_MODULES_FD_ENV)?,
    };
    let template = match is_there(TEMPLATE_MEMORY_FD_ENV) {
        true => Some(TemplateFiles {
            memory: file(TEMPLATE_MEMORY_FD_ENV)?,
            state: file(TEMPLATE_STATE_FD_ENV)?,
        }),
        false => None,
    };
    Ok(Some(VmFiles { image, template }))
}

fn inherited(variable: &'static str) -> Result<OwnedFd, RunnerError> {
    let number = std::env::var(variable).ok().and_then(|text| text.parse().ok());
    let number: RawFd = number.ok_or(RunnerError::NoSocket(variable))?;
    nix::fcntl::fcntl(
        // SAFETY: only asks whether the descriptor is open.
        #[expect(unsafe_code, reason = "the number comes from the environment")]
        unsafe {
            std::os::fd::BorrowedFd::borrow_raw(number)
        },
        nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::FD_CLOEXEC),
    )
    .map_err(|error| RunnerError::NotOpen { variable, source: error.into() })?;
    // SAFETY: the controller passed this descriptor to this process for this use; nothing else here
    // takes it.
    #[expect(unsafe_code, reason = "an inherited descriptor has no safe constructor")]
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
