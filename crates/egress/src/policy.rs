//! Which hosts a session may reach, by name. Pure.

use std::net::SocketAddr;

use anteroom_session::{HostPort, HostRefused, USUAL_PORTS, normalise_host, port_of, unlistable};

/// What a session may reach.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    allow: Allowed,
    map: Vec<Mapping>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    /// These.
    Listed(Vec<HostPattern>),
    /// Every name and port; addresses are refused as ever.
    AllNames,
}

/// An entry of the allow-list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPattern {
    host: String,
    subdomains_only: bool,
    port: Option<u16>,
}

/// A name that leads to a fixed address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapping {
    /// Host name, exact.
    pub host: String,
    /// Port as the guest sees it.
    pub port: u16,
    /// Where the connection goes.
    pub to: SocketAddr,
}

/// What is decided on a host and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Resolve the name, check each address, connect.
    Resolve,
    /// Connect to this address, whatever DNS says.
    Mapped(SocketAddr),
    /// No connection.
    Refused(HostRefused),
}

/// A text that is no entry of an allow-list.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a valid host name; write example.com, *.example.com or example.com:8443")]
pub struct InvalidPattern(pub String);

impl Policy {
    /// A policy from an allow-list and mappings, as a provider file has them.
    ///
    /// # Errors
    /// When a name is none.
    pub fn new(allow: &[String], map: &[Mapping]) -> Result<Self, InvalidPattern> {
        let allow = allow.iter().map(|text| HostPattern::parse(text)).collect::<Result<_, _>>()?;
        Ok(Self { allow: Allowed::Listed(allow), map: mapped(map)? })
    }

    /// A policy that refuses no name, to find out which a sign-in asks for. Addresses inside are
    /// refused all the same, and names that are addresses.
    ///
    /// # Errors
    /// When a mapped name is none.
    pub fn learning(map: &[Mapping]) -> Result<Self, InvalidPattern> {
        Ok(Self { allow: Allowed::AllNames, map: mapped(map)? })
    }

    /// Allows a host.
    ///
    /// # Errors
    /// For an address and a name of a network's own, for which nothing changes.
    pub fn allow(&mut self, destination: &HostPort) -> Result<(), HostRefused> {
        if let Some(refused) = unlistable(destination.host()) {
            return Err(refused);
        }
        if let Allowed::Listed(list) = &mut self.allow {
            let (host, port) = (destination.host().to_owned(), destination.port());
            list.push(HostPattern { host, subdomains_only: false, port });
        }
        Ok(())
    }

    /// Decides on a host (normalised, see [`normalise_host`]) and port.
    #[must_use]
    pub fn decide(&self, host: &str, port: u16) -> Decision {
        let allowed = match &self.allow {
            Allowed::Listed(list) => list.iter().any(|pattern| pattern.matches(host, port)),
            Allowed::AllNames => matches!(url::Host::parse(host), Ok(url::Host::Domain(_))),
        };
        let mapped = self.map.iter().find(|mapping| mapping.host == host && mapping.port == port);
        match (mapped, unlistable(host)) {
            (Some(mapping), _) if allowed => Decision::Mapped(mapping.to),
            (_, Some(refused)) => Decision::Refused(refused),
            (_, None) if !allowed => Decision::Refused(HostRefused::NotListed),
            (_, None) => Decision::Resolve,
        }
    }
}

fn mapped(map: &[Mapping]) -> Result<Vec<Mapping>, InvalidPattern> {
    let one = |mapping: &Mapping| {
        let host =
            normalise_host(&mapping.host).ok_or_else(|| InvalidPattern(mapping.host.clone()))?;
        Ok(Mapping { host, ..*mapping })
    };
    map.iter().map(one).collect()
}

impl HostPattern {
    /// Reads `example.com`, `*.example.com` (subdomains, not itself) or `example.com:8443`.
    ///
    /// # Errors
    /// When it is anything else.
    pub fn parse(text: &str) -> Result<Self, InvalidPattern> {
        let invalid = || InvalidPattern(text.to_owned());
        let (name, port) = match text.rsplit_once(':') {
            Some((name, port)) => (name, Some(port_of(port).ok_or_else(invalid)?)),
            None => (text, None),
        };
        let (name, subdomains_only) = match name.strip_prefix("*.") {
            Some(rest) => (rest, true),
            None => (name, false),
        };
        let host = normalise_host(name).ok_or_else(invalid)?;
        Ok(Self { host, subdomains_only, port })
    }

    fn matches(&self, host: &str, port: u16) -> bool {
        let port_fits = match self.port {
            Some(only) => only == port,
            None => USUAL_PORTS.contains(&port),
        };
        let name_fits = match host.strip_suffix(self.host.as_str()) {
            Some("") => !self.subdomains_only,
            Some(rest) => self.subdomains_only && rest.ends_with('.') && rest.len() > 1,
            None => false,
        };
        port_fits && name_fits
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(allow: &[&str]) -> Policy {
        Policy::new(&allow.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>(), &[]).unwrap()
    }

    #[test]
    fn names_match_whole_labels_only() {
        let policy = policy(&["example.com", "*.cdn.test", "odd.test:8443"]);
        let allowed = |host: &str, port| policy.decide(host, port) == Decision::Resolve;
        assert!(allowed("example.com", 443) && allowed("example.com", 80));
        assert!(allowed("a.cdn.test", 443) && allowed("a.b.cdn.test", 443));
        assert!(allowed("odd.test", 8443));
        for (host, port) in [
            ("www.example.com", 443),
            ("notexample.com", 443),
            ("example.com.evil.test", 443),
            ("cdn.test", 443),
            ("xcdn.test", 443),
            (".cdn.test", 443),
            ("example.com", 22),
            ("odd.test", 443),
            ("127.0.0.1", 443),
        ] {
            assert!(!allowed(host, port), "{host}:{port}");
        }
    }

    #[test]
    fn a_mapping_leads_only_where_the_list_allows() {
        let mapping =
            Mapping { host: "A.test".into(), port: 443, to: "127.0.0.1:9".parse().unwrap() };
        let with = Policy::new(&["a.test".into()], std::slice::from_ref(&mapping)).unwrap();
        assert_eq!(with.decide("a.test", 443), Decision::Mapped(mapping.to));
        assert_eq!(with.decide("a.test", 80), Decision::Resolve);
        let without = Policy::new(&[], &[mapping]).unwrap();
        assert_eq!(without.decide("a.test", 443), Decision::Refused(HostRefused::NotListed));
    }

    #[test]
    fn a_host_is_allowed_on_its_port_and_what_no_list_leads_to_is_not() {
        let mut policy = policy(&[]);
        let mut allow = |text: &str| policy.allow(&HostPort::parse(text).unwrap());
        assert_eq!(allow("a.test:8443"), Ok(()));
        assert_eq!(allow("[2001:db8::1]"), Err(HostRefused::Address));
        assert_eq!(allow("adfs.corp.local"), Err(HostRefused::LocalName));
        assert_eq!(policy.decide("a.test", 8443), Decision::Resolve);
        assert_eq!(policy.decide("a.test", 443), Decision::Refused(HostRefused::NotListed));
    }

    #[test]
    fn a_learning_policy_takes_names_and_no_addresses() {
        let policy = Policy::learning(&[]).unwrap();
        assert_eq!(policy.decide("anything.test", 8443), Decision::Resolve);
        let refused = Decision::Refused(HostRefused::Address);
        assert_eq!(policy.decide("192.0.2.1", 443), refused);
        assert_eq!(policy.decide("[2001:db8::1]", 443), refused);
    }

    #[test]
    fn names_of_a_network_are_reached_only_where_they_are_mapped() {
        let local = [
            "localhost",
            "metadata",
            "metadata.google.internal",
            "printer.local",
            "router.home.arpa",
            "x.localhost",
        ];
        let mapping =
            Mapping { host: "idp.internal".into(), port: 443, to: "127.0.0.1:9".parse().unwrap() };
        let learning = Policy::learning(std::slice::from_ref(&mapping)).unwrap();
        let refused = Decision::Refused(HostRefused::LocalName);
        for host in local {
            assert_eq!(learning.decide(host, 443), refused, "{host}");
            assert_eq!(policy(&[host]).decide(host, 443), refused, "{host}");
        }
        assert_eq!(learning.decide("idp.internal", 443), Decision::Mapped(mapping.to));
        assert_eq!(learning.decide("notlocal.test", 443), Decision::Resolve);
        assert_eq!(learning.decide("notinternal", 443), refused);
        assert_eq!(learning.decide("x.notinternal", 443), Decision::Resolve);
    }

    #[test]
    fn a_port_is_of_digits() {
        for bad in ["a.test:", "a.test:+443", "a.test:65536", "a.test: 443"] {
            assert!(HostPattern::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in ".{0,300}", port: u16) {
            let _ = HostPattern::parse(&text);
            if let Some(host) = normalise_host(&text) {
                prop_assert_eq!(policy(&["example.com"]).decide(&host, port) == Decision::Resolve,
                    host == "example.com" && (port == 80 || port == 443));
            }
        }
    }
}
