//! The networks that this machine itself is in: what is beside it is not the internet, whatever
//! address it has.

use std::io;
use std::net::IpAddr;

use nix::sys::socket::SockaddrStorage;

use crate::address::{RefusedRange, address_allowed};

/// This machine's addresses, each with its network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNetworks(Vec<Network>);

/// An address and how many of its bits are the network's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Network {
    address: IpAddr,
    prefix: u32,
}

impl HostNetworks {
    /// Reads them of all interfaces.
    ///
    /// # Errors
    /// When the system does not report them.
    pub fn read() -> io::Result<Self> {
        let mut networks = Vec::new();
        for interface in nix::ifaddrs::getifaddrs()? {
            let Some(address) = interface.address.as_ref().and_then(ip) else { continue };
            let mask = interface.netmask.as_ref().and_then(ip);
            networks.push(Network { address, prefix: prefix(mask) });
            // The other end of a line between two.
            if let Some(address) = interface.destination.as_ref().and_then(ip) {
                networks.push(Network { address, prefix: u32::MAX });
            }
        }
        Ok(Self(networks))
    }

    /// These, each an address and how many of its bits are the network's.
    #[must_use]
    pub fn of(networks: &[(IpAddr, u32)]) -> Self {
        Self(networks.iter().map(|&(address, prefix)| Network { address, prefix }).collect())
    }

    /// These, and addresses that are this machine's too.
    #[must_use]
    pub fn with_own(mut self, addresses: &[IpAddr]) -> Self {
        self.0.extend(addresses.iter().map(|&address| Network { address, prefix: u32::MAX }));
        self
    }

    /// Whether a guest may be connected to `address`: it is of the internet, and neither this
    /// machine nor beside it.
    ///
    /// # Errors
    /// With the range when it may not.
    pub fn allow(&self, address: IpAddr) -> Result<(), RefusedRange> {
        address_allowed(address)?;
        match self.0.iter().find(|network| network.has(address)) {
            Some(network) if network.address == address => {
                Err(RefusedRange { address, range: "this machine" })
            }
            Some(_) => Err(RefusedRange { address, range: "this machine's own network" }),
            None => Ok(()),
        }
    }
}

impl Network {
    fn has(self, other: IpAddr) -> bool {
        if self.address == other {
            return true;
        }
        // A network of no bits is everything, and no network.
        match (self.address, other, self.prefix) {
            (_, _, 0) => false,
            (IpAddr::V4(own), IpAddr::V4(other), length @ ..=32) => {
                (u32::from(own) ^ u32::from(other)).leading_zeros() >= length
            }
            (IpAddr::V6(own), IpAddr::V6(other), length @ ..=128) => {
                (u128::from(own) ^ u128::from(other)).leading_zeros() >= length
            }
            _ => false,
        }
    }
}

/// How many bits of a mask are set; without one the address is alone.
fn prefix(mask: Option<IpAddr>) -> u32 {
    match mask {
        Some(IpAddr::V4(mask)) => u32::from(mask).leading_ones(),
        Some(IpAddr::V6(mask)) => u128::from(mask).leading_ones(),
        None => u32::MAX,
    }
}

fn ip(address: &SockaddrStorage) -> Option<IpAddr> {
    let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
    v4.or_else(|| address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip())))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use proptest::prelude::*;

    use super::*;

    fn networks() -> HostNetworks {
        HostNetworks::of(&[
            ("127.0.0.1".parse().unwrap(), 8),
            ("93.184.216.34".parse().unwrap(), 22),
            ("2a01:4f8:1:2::5".parse().unwrap(), 64),
            ("45.33.32.1".parse().unwrap(), 0),
            ("8.8.4.4".parse().unwrap(), u32::MAX),
        ])
    }

    #[test]
    fn the_machine_and_what_is_beside_it_are_refused() {
        for (address, range) in [
            ("93.184.216.34", "this machine"),
            ("93.184.216.1", "this machine's own network"),
            ("93.184.219.255", "this machine's own network"),
            ("2a01:4f8:1:2::5", "this machine"),
            ("2a01:4f8:1:2:ffff::1", "this machine's own network"),
            ("45.33.32.1", "this machine"),
            ("8.8.4.4", "this machine"),
        ] {
            let address = address.parse().unwrap();
            assert_eq!(networks().allow(address), Err(RefusedRange { address, range }));
        }
        for address in
            ["93.184.220.1", "93.184.215.255", "2a01:4f8:1:3::5", "45.33.32.2", "8.8.4.5"]
        {
            assert_eq!(networks().allow(address.parse().unwrap()), Ok(()), "{address}");
        }
        assert!(networks().allow("10.0.0.1".parse().unwrap()).is_err());
    }

    #[test]
    fn this_machine_knows_itself() {
        let read = HostNetworks::read().unwrap();
        let loopback = Network { address: "127.0.0.1".parse().unwrap(), prefix: 8 };
        assert!(read.0.contains(&loopback), "{read:?}");
    }

    proptest! {
        #[test]
        fn a_network_has_what_shares_its_bits(own: u32, other: u32, length in 1u32..=32) {
            let network = Network { address: Ipv4Addr::from(own).into(), prefix: length };
            let shift = 32 - length;
            prop_assert_eq!(
                network.has(Ipv4Addr::from(other).into()),
                own >> shift == other >> shift
            );
        }
    }
}
