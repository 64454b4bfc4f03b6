//! Addresses that no guest may reach, whatever name led there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An address in a range that is not the public internet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is in a range that no sandbox may reach ({range})")]
pub struct RefusedRange {
    /// The address.
    pub address: IpAddr,
    /// The range's purpose.
    pub range: &'static str,
}

/// Ranges of IPv4 that are not the public internet (IANA special-purpose registry, RFC 6890 and
/// later): network, prefix length, purpose. Cloud metadata (169.254.169.254) is link-local.
const V4: [([u8; 4], u32, &str); 16] = [
    ([0, 0, 0, 0], 8, "this network"),
    ([10, 0, 0, 0], 8, "private"),
    ([100, 64, 0, 0], 10, "carrier-grade NAT"),
    ([127, 0, 0, 0], 8, "loopback"),
    ([168, 63, 129, 16], 32, "cloud platform"),
    ([169, 254, 0, 0], 16, "link-local and metadata"),
    ([172, 16, 0, 0], 12, "private"),
    ([192, 0, 0, 0], 24, "protocol assignments"),
    ([192, 0, 2, 0], 24, "documentation"),
    ([192, 88, 99, 0], 24, "6to4 relays"),
    ([192, 168, 0, 0], 16, "private"),
    ([198, 18, 0, 0], 15, "benchmarking"),
    ([198, 51, 100, 0], 24, "documentation"),
    ([203, 0, 113, 0], 24, "documentation"),
    ([224, 0, 0, 0], 4, "multicast"),
    ([240, 0, 0, 0], 4, "reserved"),
];

/// Whether a guest may be connected to `address`.
///
/// # Errors
/// With the range when it may not.
pub fn address_allowed(address: IpAddr) -> Result<(), RefusedRange> {
    let range = match address {
        IpAddr::V4(v4) => refused_v4(v4),
        IpAddr::V6(v6) => refused_v6(v6),
    };
    match range {
        Some(range) => Err(RefusedRange { address, range }),
        None => Ok(()),
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    V4.iter()
        .find(|(network, length, _)| {
            let shift = 32 - length;
            u32::from(address) >> shift == u32::from(Ipv4Addr::from(*network)) >> shift
        })
        .map(|(_, _, purpose)| *purpose)
}

/// Only global unicast (2000::/3) is the internet; within it, and beside it, what carries an IPv4
/// address is refused, since some gateway may unwrap it behind our back.
fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    if address.to_ipv4_mapped().is_some() {
        return Some("IPv4-mapped");
    }
    match segments {
        [0x64, 0xff9b, ..] => Some("NAT64"),
        [0x2002, ..] => Some("6to4"),
        [0x2001, 0, ..] => Some("Teredo"),
        [0x2001, second, ..] if second < 0x200 => Some("protocol assignments"),
        [0x2001, 0xdb8, ..] => Some("documentation"),
        [0x3fff, second, ..] if second < 0x1000 => Some("documentation"),
        [first, ..] if first & 0xe000 != 0x2000 => Some("not global unicast"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn special_ranges_are_refused_and_their_neighbours_are_not() {
        let refused = [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.255.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "192.0.0.8",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "168.63.129.16",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:8.8.8.8",
            "::127.0.0.1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "fec0::1",
            "ff02::1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "100::1",
            "3fff::1",
        ];
        for text in refused {
            assert!(address_allowed(text.parse().unwrap()).is_err(), "{text}");
        }
        let allowed = [
            "1.1.1.1",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.0.0.1",
            "128.0.0.1",
            "172.15.255.255",
            "172.32.0.0",
            "192.167.255.255",
            "198.17.0.1",
            "198.20.0.0",
            "223.255.255.255",
            "2606:4700::1111",
            "2a00:1450:4001::1",
        ];
        for text in allowed {
            assert_eq!(address_allowed(text.parse().unwrap()), Ok(()), "{text}");
        }
    }

    proptest! {
        /// The standard library knows fewer ranges; whatever it calls special must be refused here.
        #[test]
        fn nothing_the_standard_library_calls_special_is_allowed(bits: u32) {
            let address = Ipv4Addr::from(bits);
            if address.is_private() || address.is_loopback() || address.is_link_local()
                || address.is_multicast() || address.is_broadcast() || address.is_documentation()
                || address.is_unspecified()
            {
                prop_assert!(address_allowed(address.into()).is_err());
                prop_assert!(address_allowed(address.to_ipv6_mapped().into()).is_err());
            }
        }
    }
}
