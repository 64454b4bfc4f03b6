//! Names of hosts, and which of them a session may be led to.

use std::fmt;

use serde::{Deserialize, Serialize};
use url::Host;

/// Ports that need not be written.
pub const USUAL_PORTS: [u16; 2] = [80, 443];

/// Whether a name (in lower case, no address) is a network's own, as those of cloud machines' metadata
/// are: no resolver is asked for it (RFC 6761, 6762, 8375, and what ICANN keeps for private use).
#[must_use]
pub fn is_local_name(host: &str) -> bool {
    const LOCAL: [&str; 8] =
        ["local", "localhost", "localdomain", "internal", "intranet", "lan", "home.arpa", "onion"];
    let is_in = |zone: &&str| {
        host.strip_suffix(*zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    !host.contains('.') || LOCAL.iter().any(is_in)
}

/// Why there is no connection to a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostRefused {
    /// It is not on the list, and may be written there.
    #[error("it is not on the list of hosts that this sign-in may reach")]
    NotListed,
    /// It is an address.
    #[error("it is an address, and hosts can be reached only by name")]
    Address,
    /// It is a name of a network's own.
    #[error(
        "it is a name inside a private network, which can be reached only if the list has it and a map gives its address"
    )]
    LocalName,
}

/// Why a list alone never leads to this (normalised) host, unless it may.
#[must_use]
pub fn unlistable(host: &str) -> Option<HostRefused> {
    match Host::parse(host) {
        Ok(Host::Domain(_)) => is_local_name(host).then_some(HostRefused::LocalName),
        _ => Some(HostRefused::Address),
    }
}

/// A host name in its one spelling: lower case, IDNA as punycode, no trailing dot; an IP address in
/// its usual form. `None` for anything else.
#[must_use]
pub fn normalise_host(text: &str) -> Option<String> {
    let text = text.strip_suffix('.').unwrap_or(text);
    if text.is_empty() || text.len() > 253 {
        return None;
    }
    match Host::parse(text).ok()? {
        Host::Domain(name) if !name.contains('*') => Some(name),
        Host::Domain(_) => None,
        Host::Ipv4(v4) => Some(v4.to_string()),
        Host::Ipv6(v6) => Some(format!("[{v6}]")),
    }
}

/// Normalised host, and port if there is one, of `host` or `host:port`.
#[must_use]
pub fn authority(text: &str) -> Option<(String, Option<u16>)> {
    // The colons within an address's brackets are its own.
    let after_address = text.rfind(']').map_or(0, |end| end + 1);
    let (host, port) = match text[after_address..].find(':') {
        Some(at) => {
            let (host, port) = text.split_at(after_address + at);
            (host, Some(port_of(&port[1..])?))
        }
        None => (text, None),
    };
    Some((normalise_host(host)?, port))
}

/// A port in digits; Rust would take a sign.
#[must_use]
pub fn port_of(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| digits)
}

/// A host, and its port where that is not a usual one. A text on the wire.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct HostPort {
    host: String,
    port: Option<u16>,
}

impl HostPort {
    /// Of a (normalised) host and the port that was asked for.
    #[must_use]
    pub fn new(host: &str, port: u16) -> Self {
        let port = Some(port).filter(|port| !USUAL_PORTS.contains(port));
        Self { host: host.to_owned(), port }
    }

    /// Reads `example.com` or `example.com:8443`; `None` when it is neither.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (host, port) = authority(text)?;
        Some(Self::new(&host, port.unwrap_or(USUAL_PORTS[0])))
    }

    /// Its host, normalised.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Its port, where that is not a usual one.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

/// A text that is neither a host nor a host and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this is not a host with an optional port")]
pub struct InvalidHostPort;

impl TryFrom<String> for HostPort {
    type Error = InvalidHostPort;

    fn try_from(text: String) -> Result<Self, InvalidHostPort> {
        Self::parse(&text).ok_or(InvalidHostPort)
    }
}

impl From<HostPort> for String {
    fn from(host: HostPort) -> Self {
        host.to_string()
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_port_stands_where_it_is_none_of_the_usual() {
        for (text, written) in [
            ("ACME.okta.example.", "acme.okta.example"),
            ("acme.okta.example:443", "acme.okta.example"),
            ("acme.okta.example:8443", "acme.okta.example:8443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ] {
            assert_eq!(HostPort::parse(text).unwrap().to_string(), written);
            let json = serde_json::to_string(&HostPort::parse(text).unwrap()).unwrap();
            assert_eq!(json, format!("{written:?}"));
            assert_eq!(serde_json::from_str::<HostPort>(&json).unwrap().to_string(), written);
        }
        assert_eq!(HostPort::new("a.example", 80), HostPort::new("a.example", 443));
        for bad in ["", "a b", "a.example:", "a.example:x", "a.example/"] {
            assert_eq!(HostPort::parse(bad), None, "{bad}");
            assert!(serde_json::from_value::<HostPort>(bad.into()).is_err(), "{bad}");
        }
    }

    #[test]
    fn hosts_have_one_spelling() {
        assert_eq!(normalise_host("Example.COM.").as_deref(), Some("example.com"));
        assert_eq!(normalise_host("bücher.test").as_deref(), Some("xn--bcher-kva.test"));
        assert_eq!(normalise_host("0x7f.1").as_deref(), Some("127.0.0.1"));
        for bad in ["", ".", "a b", "a/b", "*", &"a".repeat(254)] {
            assert_eq!(normalise_host(bad), None, "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,300}") {
            let _ = (normalise_host(&text), authority(&text), unlistable(&text));
        }
    }
}
