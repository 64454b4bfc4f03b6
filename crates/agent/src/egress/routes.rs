//! A route that makes every address one of this guest's own: `ip route add local default dev lo`. What
//! a program sends anywhere arrives here, as if to the address that it was sent to; there is no
//! network card that it could leave by.

use anyhow::{Context, Result, bail};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use std::os::fd::AsRawFd;

/// Constants of linux/netlink.h and linux/rtnetlink.h.
const RTM_NEWROUTE: u16 = 24;
const NLM_F_REQUEST: u16 = 0x1;
const NLM_F_ACK: u16 = 0x4;
const NLM_F_REPLACE: u16 = 0x100;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const RT_TABLE_LOCAL: u8 = 255;
const RTPROT_BOOT: u8 = 3;
const RT_SCOPE_HOST: u8 = 254;
const RTN_LOCAL: u8 = 2;
const RTA_OIF: u16 = 4;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

/// Adds the route, for IPv6 too where the kernel has it.
pub fn make_every_address_ours() -> Result<()> {
    let lo =
        nix::net::if_::if_nametoindex("lo").context("finding the loopback interface failed")?;
    add_default(AF_INET, lo).context("making every IPv4 address local failed")?;
    // Without IPv6 in the kernel nothing can be sent by it either.
    let _ = add_default(AF_INET6, lo);
    Ok(())
}

fn add_default(family: u8, interface: u32) -> Result<()> {
    let socket = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkRoute,
    )?;
    let fd = socket.as_raw_fd();
    sendto(fd, &request(family, interface), &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    let mut answer = [0; 512];
    let length = recv(fd, &mut answer, MsgFlags::empty())?;
    // struct nlmsghdr (16 bytes), then struct nlmsgerr, whose first field is 0 or a negative errno.
    let kind = answer[..length].get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let error = answer[..length]
        .get(16..20)
        .map(|bytes| i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
    match (kind, error) {
        (Some(NLMSG_ERROR), Some(0)) => Ok(()),
        (Some(NLMSG_ERROR), Some(error)) => {
            Err(std::io::Error::from_raw_os_error(-error)).context("the kernel refused the route")
        }
        _ => bail!("the kernel's answer was not understood"),
    }
}

/// struct nlmsghdr, struct rtmsg, and one attribute: the interface.
fn request(family: u8, interface: u32) -> Vec<u8> {
    const LENGTH: u32 = 16 + 12 + 8;
    let flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
    let mut bytes = Vec::new();
    bytes.extend(LENGTH.to_ne_bytes());
    bytes.extend(RTM_NEWROUTE.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    // Sequence number, and the kernel's port.
    bytes.extend(1_u32.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    // Destination of no bits (all), no source, no type of service.
    bytes.extend([family, 0, 0, 0, RT_TABLE_LOCAL, RTPROT_BOOT, RT_SCOPE_HOST, RTN_LOCAL]);
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(8_u16.to_ne_bytes());
    bytes.extend(RTA_OIF.to_ne_bytes());
    bytes.extend(interface.to_ne_bytes());
    bytes
}
