//! The guest's interfaces: loopback, and a dummy with the session's address.
//!
//! There is no network card. The dummy is there because Chromium calls itself offline
//! (`navigator.onLine`) when only loopback has an address.

use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// Constants of the kernel's interface, in the width of the fields they go into.
const AF_INET: libc::sa_family_t = 2;
const IFF_UP: libc::c_short = 0x1;
const IFF_RUNNING: libc::c_short = 0x40;

/// Brings up `lo` and `dummy0`, the latter with `address`/16.
pub fn bring_up(address: Ipv4Addr) -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .context("opening a socket to set up interfaces failed")?;
    loopback(&socket)?;
    set_address(&socket, "dummy0", address, Ipv4Addr::new(255, 255, 0, 0))?;
    set_up(&socket, "dummy0")
}

/// Brings up `lo` alone.
pub fn bring_up_loopback() -> Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)
        .context("opening a socket to set up loopback failed")?;
    loopback(&socket)
}

fn loopback(socket: &OwnedFd) -> Result<()> {
    set_address(socket, "lo", Ipv4Addr::LOCALHOST, Ipv4Addr::new(255, 0, 0, 0))?;
    set_up(socket, "lo")
}

fn set_address(socket: &OwnedFd, interface: &str, address: Ipv4Addr, mask: Ipv4Addr) -> Result<()> {
    for (request, value) in [(libc::SIOCSIFADDR, address), (libc::SIOCSIFNETMASK, mask)] {
        let mut ifreq = request_for(interface);
        let address = libc::sockaddr_in {
            sin_family: AF_INET,
            sin_port: 0,
            sin_addr: libc::in_addr { s_addr: u32::from(value).to_be() },
            sin_zero: [0; 8],
        };
        // SAFETY: sockaddr_in and sockaddr are both 16 bytes, and the kernel reads the union as a
        // sockaddr_in for this family.
        #[expect(unsafe_code, reason = "ifreq is a C union")]
        unsafe {
            ifreq.ifr_ifru.ifru_addr =
                std::mem::transmute::<libc::sockaddr_in, libc::sockaddr>(address);
        }
        call(socket, request, &mut ifreq)
            .with_context(|| format!("setting address {value} of interface {interface} failed"))?;
    }
    Ok(())
}

fn set_up(socket: &OwnedFd, interface: &str) -> Result<()> {
    let mut ifreq = request_for(interface);
    ifreq.ifr_ifru.ifru_flags = IFF_UP | IFF_RUNNING;
    call(socket, libc::SIOCSIFFLAGS, &mut ifreq)
        .with_context(|| format!("bringing interface {interface} up failed"))
}

fn request_for(interface: &str) -> libc::ifreq {
    // SAFETY: ifreq is plain data; all zeroes is a valid value.
    #[expect(unsafe_code, reason = "ifreq has no other constructor")]
    let mut ifreq: libc::ifreq = unsafe { std::mem::zeroed() };
    // One byte stays zero: the name is NUL-terminated.
    for (to, from) in ifreq.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(interface.bytes()) {
        *to = from as libc::c_char;
    }
    ifreq
}

fn call(socket: &OwnedFd, request: libc::Ioctl, ifreq: &mut libc::ifreq) -> std::io::Result<()> {
    // SAFETY: the request numbers above take a pointer to an ifreq, which lives through the call.
    #[expect(unsafe_code, reason = "these ioctls have no safe wrapper")]
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, std::ptr::from_mut(ifreq)) };
    if result == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
