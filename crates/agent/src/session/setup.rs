//! From the configuration to a guest that is ready for services.

use anteroom_guest_protocol::{ConfigureSandbox, GuestMessage, Preferences};
use anyhow::{Context, Result, anyhow};
use base64::Engine;

use super::{clock, identity};
use crate::desktop::browser::{Trust, trust_extra_authorities};
use crate::guest::{Guest, GuestKind, RUNTIME};
use crate::pid1;

/// Who this agent is, and whether its guest is a clone.
pub fn hello(is_clone: bool) -> Result<GuestMessage> {
    let uname = nix::sys::utsname::uname().context("reading the kernel's version failed")?;
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Ok(GuestMessage::Hello {
        agent_version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: uname.release().to_string_lossy().into_owned(),
        boot_id: boot_id.trim().to_owned(),
        is_clone,
        cpu: crate::cpu::read(),
    })
}

/// Sets clock, entropy, network (in a VM) and trust.
pub fn set_up(configuration: &ConfigureSandbox, guest: &Guest) -> Result<Trust> {
    if guest.kind == GuestKind::Vm {
        clock::set(configuration.now_unix_ms)?;
        credit_entropy(&configuration.entropy_base64)?;
        pid1::bring_up_network(configuration.browser_ip)?;
    }
    identity::own_machine_id(guest)?;
    identity::usual_locales(guest)?;
    let user_runtime = guest.home.join(RUNTIME);
    std::fs::create_dir_all(&user_runtime)
        .context("creating the end user's runtime folder failed")?;
    guest.give_to_end_user(&user_runtime)?;
    trust_extra_authorities(&configuration.extra_ca_pem, guest)
}

/// Has the programs that are started from now on know what the end user prefers. Once.
pub fn welcome(preferences: Preferences, guest: &Guest) -> Result<()> {
    if let Some(locale) = &preferences.locale {
        identity::end_users_locale(locale, guest)?;
    }
    let known = guest.preferences.set(preferences);
    known.map_err(|_| anyhow!("the host began a second sign-in"))
}

/// Mixes the host's random bytes in and credits them: writing to /dev/urandom alone credits none.
pub fn credit_entropy(base64: &str) -> Result<()> {
    use std::os::fd::AsRawFd;

    /// `struct rand_pool_info` of linux/random.h with space for 32 bytes.
    #[repr(C)]
    struct RandPoolInfo {
        entropy_bits: libc::c_int,
        buffer_bytes: libc::c_int,
        buffer: [u8; 32],
    }
    /// `_IOW('R', 0x03, int[2])` and `_IO('R', 0x07)` of linux/random.h.
    const RNDADDENTROPY: libc::Ioctl = 0x4008_5203;
    const RNDRESEEDCRNG: libc::Ioctl = 0x5207;

    let bytes = base64::engine::general_purpose::STANDARD
        .decode(base64)
        .ok()
        .and_then(|bytes| <[u8; 32]>::try_from(bytes).ok())
        .context("the host's entropy is not 32 bytes in base64")?;
    let random = std::fs::File::open("/dev/random").context("opening /dev/random failed")?;
    let pool = RandPoolInfo { entropy_bits: 256, buffer_bytes: 32, buffer: bytes };
    // SAFETY: the first request reads a rand_pool_info with buffer_bytes bytes after it, which
    // `pool` is; the second takes no argument.
    #[expect(unsafe_code, reason = "these ioctls have no safe wrapper")]
    let done = unsafe {
        libc::ioctl(random.as_raw_fd(), RNDADDENTROPY, std::ptr::from_ref(&pool)) == 0
            && libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG) == 0
    };
    if done {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error()).context("seeding the guest's random numbers failed")
    }
}
