//! Each peer's share of the connections, and the pace at which it is answered while nobody knows it.
//!
//! A peer is an IPv4 address, or the /64 of an IPv6 one: a host has all of that. A proxy that the
//! operator names has no share, since behind it are many.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use leaky_bucket::RateLimiter;

use anteroom_guest_session::pace;

/// Answers a second to a peer's requests that carry no right: who only asks whether this lives, or
/// tries keys, costs no more than this.
const UNKNOWN_PER_SECOND: usize = 500;

/// How many of them at once, before that counts: a page and its files, many times over.
const UNKNOWN_AT_ONCE: usize = 1000;

/// From how many peers on those are forgotten that have no connection.
const REMEMBERED: usize = 1024;

/// The peers that are there. Cheap to clone.
#[derive(Clone)]
pub struct Shares(Arc<Inner>);

struct Inner {
    per_peer: usize,
    proxies: BTreeSet<IpAddr>,
    peers: Mutex<HashMap<IpAddr, Peer>>,
}

struct Peer {
    connections: usize,
    pace: Arc<RateLimiter>,
}

/// A connection that has a place in its peer's share, until this is dropped.
pub struct Place {
    shares: Arc<Inner>,
    /// None of a proxy.
    peer: Option<(IpAddr, Arc<RateLimiter>)>,
}

impl Shares {
    /// So many connections for each peer, but for the named proxies.
    pub fn new(per_peer: usize, proxies: impl IntoIterator<Item = IpAddr>) -> Self {
        let proxies = proxies.into_iter().map(|ip| ip.to_canonical()).collect();
        Self(Arc::new(Inner { per_peer, proxies, peers: Mutex::default() }))
    }

    /// A place for a connection of this address; `None` when its share is used up.
    pub fn enter(&self, address: IpAddr) -> Option<Place> {
        let address = address.to_canonical();
        if self.0.proxies.contains(&address) {
            return Some(Place { shares: Arc::clone(&self.0), peer: None });
        }
        let key = peer_of(address);
        let mut peers = self.0.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if peers.len() >= REMEMBERED {
            // Its pace is forgotten with it, so only while there are too many.
            peers.retain(|_, peer| peer.connections > 0);
        }
        let peer = peers.entry(key).or_insert_with(|| Peer {
            connections: 0,
            pace: Arc::new(pace(UNKNOWN_PER_SECOND, UNKNOWN_AT_ONCE)),
        });
        if peer.connections >= self.0.per_peer {
            return None;
        }
        peer.connections += 1;
        let pace = Arc::clone(&peer.pace);
        Some(Place { shares: Arc::clone(&self.0), peer: Some((key, pace)) })
    }
}

impl Place {
    /// Comes when a request that carried no right may be answered.
    pub async fn turn(&self) {
        if let Some((_, pace)) = &self.peer {
            pace.acquire_one().await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some((key, _)) = &self.peer else { return };
        let mut peers = self.shares.peers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(peer) = peers.get_mut(key) {
            peer.connections = peer.connections.saturating_sub(1);
        }
    }
}

fn peer_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[tokio::test]
    async fn one_peer_takes_no_place_of_another_and_gets_its_own_back() {
        let shares = Shares::new(2, []);
        let first = shares.enter(ip("192.0.2.1")).unwrap();
        let _second = shares.enter(ip("::ffff:192.0.2.1")).unwrap();
        assert!(shares.enter(ip("192.0.2.1")).is_none());
        assert!(shares.enter(ip("192.0.2.2")).is_some());
        drop(first);
        assert!(shares.enter(ip("192.0.2.1")).is_some());
    }

    #[tokio::test]
    async fn the_addresses_of_a_64_are_one_peer() {
        let shares = Shares::new(1, []);
        let _there = shares.enter(ip("2001:db8:0:1::1")).unwrap();
        assert!(shares.enter(ip("2001:db8:0:1:ffff::2")).is_none());
        assert!(shares.enter(ip("2001:db8:0:2::1")).is_some());
    }

    #[tokio::test]
    async fn a_named_proxy_has_no_share() {
        let shares = Shares::new(1, [ip("::ffff:127.0.0.1")]);
        let all: Vec<_> = (0..10).map(|_| shares.enter(ip("127.0.0.1"))).collect();
        assert!(all.iter().all(Option::is_some));
    }

    #[tokio::test]
    async fn peers_that_left_are_forgotten_when_there_are_many() {
        let shares = Shares::new(1, []);
        let _stays = shares.enter(ip("10.0.0.1")).unwrap();
        for n in 0..REMEMBERED * 2 {
            let [_, _, high, low] = u32::try_from(n).unwrap().to_be_bytes();
            shares.enter(IpAddr::from([192, 0, high, low])).unwrap();
        }
        assert!(shares.0.peers.lock().unwrap().len() <= REMEMBERED);
        assert!(shares.enter(ip("10.0.0.1")).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_unknown_is_answered_at_a_pace() {
        let shares = Shares::new(1, []);
        let place = shares.enter(ip("192.0.2.1")).unwrap();
        let began = tokio::time::Instant::now();
        for _ in 0..UNKNOWN_AT_ONCE + UNKNOWN_PER_SECOND {
            place.turn().await;
        }
        let took = began.elapsed();
        assert!((0.9..1.2).contains(&took.as_secs_f64()), "{took:?}");
    }
}
