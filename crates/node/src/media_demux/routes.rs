//! Which session a media packet is for. Pure.
//!
//! A viewer's STUN binding requests name the session, by the ICE user fragment that its answer gave
//! out: they are routed by it, packet by packet. Its other packets are routed by their address, once
//! the session's runner has said that a request from there was authentic (message integrity, RFC 8445,
//! 7.3): anyone may send a fragment, or forge an address.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anteroom_session::SessionId;

/// Addresses of a session that are known, and as many that it was asked from: a browser has one for
/// each of its networks.
const MAX_ADDRESSES: usize = 16;

/// The longest user fragment, in bytes.
const MAX_FRAGMENT: usize = 256;

/// Requests a second that a runner gets from addresses that it has not authenticated.
const MAX_UNKNOWN: u32 = 64;

/// How long an address stays a session's after it was last authenticated there, whoever else claims
/// it: as long as a viewer's consent lasts (RFC 7675, 5.1).
const HELD: Duration = Duration::from_secs(30);

/// Where the packets of all sessions go, each to its runner `R`.
#[derive(Debug)]
pub struct Routes<R> {
    sessions: HashMap<SessionId, Session<R>>,
    fragments: HashMap<String, SessionId>,
    addresses: HashMap<SocketAddr, SessionId>,
}

#[derive(Debug)]
struct Session<R> {
    runner: R,
    fragment: Option<String>,
    /// Those in `addresses` that are its own, and when each was last authenticated.
    known: Recent,
    /// From where its fragment came, not authenticated.
    asked: Recent,
    unknown: Allowance,
}

/// So many addresses, each with the moment it was last of use; that of the longest ago goes first.
#[derive(Debug, Default)]
struct Recent(Vec<(SocketAddr, Instant)>);

/// What was used of [`MAX_UNKNOWN`] in this second.
#[derive(Debug, Default)]
struct Allowance {
    second: Option<Instant>,
    used: u32,
}

impl<R> Default for Routes<R> {
    fn default() -> Self {
        let (sessions, fragments, addresses) = Default::default();
        Self { sessions, fragments, addresses }
    }
}

impl<R> Routes<R> {
    /// Adds a session whose packets go to `runner`.
    pub fn add_session(&mut self, session: SessionId, runner: R) {
        self.remove_session(session);
        let (known, asked, unknown) = Default::default();
        self.sessions.insert(session, Session { runner, fragment: None, known, asked, unknown });
    }

    /// A session's viewer has this fragment now; the one before is gone, and its addresses with it.
    /// Whether it can have it: another session's it cannot, nor one that no agent would take (RFC 8839,
    /// 5.4). It is the runner's word.
    #[must_use]
    pub fn set_fragment(&mut self, fragment: &str, session: SessionId) -> bool {
        let is_another_s = self.fragments.get(fragment).is_some_and(|holder| *holder != session);
        let Some(entry) = self.sessions.get_mut(&session) else { return false };
        if is_another_s || fragment.len() > MAX_FRAGMENT {
            return false;
        }
        for (address, _) in entry.known.0.drain(..) {
            self.addresses.remove(&address);
        }
        entry.asked.0.clear();
        if let Some(before) = entry.fragment.replace(fragment.to_owned()) {
            self.fragments.remove(&before);
        }
        self.fragments.insert(fragment.to_owned(), session);
        true
    }

    /// Forgets a session.
    pub fn remove_session(&mut self, session: SessionId) {
        self.sessions.remove(&session);
        self.fragments.retain(|_, of| *of != session);
        self.addresses.retain(|_, of| *of != session);
    }

    /// Whose packet this is, if anybody's.
    pub fn route(&mut self, packet: &[u8], from: SocketAddr, now: Instant) -> Option<&R> {
        let Some(fragment) = stun_fragment(packet) else {
            return self.sessions.get(self.addresses.get(&from)?).map(|entry| &entry.runner);
        };
        let session = *self.fragments.get(fragment)?;
        let entry = self.sessions.get_mut(&session)?;
        if self.addresses.get(&from) != Some(&session) {
            if !entry.unknown.take(now) {
                return None;
            }
            entry.asked.touch(from, now);
        }
        Some(&entry.runner)
    }

    /// Whether packets from this address are for this session: those to it may then come from there.
    pub fn leads(&self, address: SocketAddr, session: SessionId) -> bool {
        self.addresses.get(&address) == Some(&session)
    }

    /// A session's runner has authenticated a request from this address. Counts only where one with
    /// the session's fragment came from there: a runner cannot claim what it was never sent.
    pub fn authenticated(&mut self, session: SessionId, address: SocketAddr, now: Instant) {
        let holder = self.addresses.get(&address).copied();
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        if holder == Some(session) {
            entry.known.touch(address, now);
            return;
        }
        if !entry.asked.has(address) {
            return;
        }
        if let Some(other) = holder.and_then(|holder| self.sessions.get_mut(&holder))
            && !other.known.remove_if_older(address, HELD, now)
        {
            return;
        }
        let Some(entry) = self.sessions.get_mut(&session) else { return };
        entry.asked.0.retain(|(of, _)| *of != address);
        if let Some(oldest) = entry.known.touch(address, now) {
            self.addresses.remove(&oldest);
        }
        self.addresses.insert(address, session);
    }
}

impl Recent {
    fn has(&self, address: SocketAddr) -> bool {
        self.0.iter().any(|(of, _)| *of == address)
    }

    /// It is of use now; gives the one that had to go for it.
    fn touch(&mut self, address: SocketAddr, now: Instant) -> Option<SocketAddr> {
        self.0.retain(|(of, _)| *of != address);
        let gone = (self.0.len() == MAX_ADDRESSES).then(|| self.0.remove(0).0);
        self.0.push((address, now));
        gone
    }

    /// Whether it was there and last of use so long ago; then it is removed.
    fn remove_if_older(&mut self, address: SocketAddr, age: Duration, now: Instant) -> bool {
        let before = self.0.len();
        self.0.retain(|(of, at)| *of != address || now.saturating_duration_since(*at) < age);
        self.0.len() < before
    }
}

impl Allowance {
    fn take(&mut self, now: Instant) -> bool {
        let is_over = |second| now.saturating_duration_since(second) >= Duration::from_secs(1);
        if self.second.is_none_or(is_over) {
            *self = Self { second: Some(now), used: 0 };
        }
        self.used += 1;
        self.used <= MAX_UNKNOWN
    }
}

/// The receiver's user fragment in a STUN binding request (RFC 8489; RFC 8445, 7.2.2: the user name
/// is `receiver:sender`).
fn stun_fragment(packet: &[u8]) -> Option<&str> {
    const BINDING_REQUEST: [u8; 2] = [0, 1];
    const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
    const USERNAME: u16 = 6;
    let (header, mut attributes) = packet.split_at_checked(20)?;
    if header[..2] != BINDING_REQUEST || header[4..8] != COOKIE {
        return None;
    }
    while let Some((head, rest)) = attributes.split_at_checked(4) {
        let kind = u16::from_be_bytes([head[0], head[1]]);
        let length = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let value = rest.get(..length)?;
        if kind == USERNAME {
            return std::str::from_utf8(value).ok()?.split(':').next();
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// A binding request for this user name, without integrity, as anybody can make one.
#[cfg(test)]
pub fn binding_request(user: &str) -> Vec<u8> {
    let mut packet = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
    packet.extend([0; 12]);
    packet.extend([0x80, 0x22, 0, 3, b'a', b'b', b'c', 0]);
    packet.extend([0, 6]);
    packet.extend(u16::try_from(user.len()).unwrap().to_be_bytes());
    packet.extend(user.as_bytes());
    packet
}

#[cfg(test)]
mod tests;
