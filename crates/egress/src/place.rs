//! Where something is asked for, as an entry of the list names it.

use std::fmt;

use crate::policy::USUAL_PORTS;
use crate::request::authority;

/// A host, and its port where that is none of the usual.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    host: String,
    port: Option<u16>,
}

impl Place {
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

    /// Its port, where that is none of the usual.
    #[must_use]
    pub fn port(&self) -> Option<u16> {
        self.port
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}:{port}", self.host),
            None => f.write_str(&self.host),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_stands_where_it_is_none_of_the_usual() {
        for (text, written) in [
            ("ACME.okta.example.", "acme.okta.example"),
            ("acme.okta.example:443", "acme.okta.example"),
            ("acme.okta.example:8443", "acme.okta.example:8443"),
            ("[2001:db8::1]:8443", "[2001:db8::1]:8443"),
        ] {
            assert_eq!(Place::parse(text).unwrap().to_string(), written);
        }
        assert_eq!(Place::new("a.example", 80), Place::new("a.example", 443));
        for bad in ["", "a b", "a.example:", "a.example:x", "a.example/"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }
}
