//! Hosts on which a page goes on, and which the gate refuses: a company's own sign-in, most often. The
//! person is told, who would else see a browser's error, and the operator, who can allow it.

use std::collections::BTreeSet;
use std::rc::Rc;

use anteroom_egress::normalise_host;
use anteroom_provider::{Provider, Sso};
use anteroom_session::{EgressVerdict, Observation};

use super::egress::Contact;
use super::room::SessionGate;

/// Refused hosts that are remembered, and how many of them are told of as needed.
const MAX_REFUSED: usize = 128;
const MAX_NEEDED: usize = 8;

/// What Chromium puts behind a page's title.
const BROWSER: &str = " - Chromium";

/// The refused hosts of one session.
pub struct Needed {
    gate: Rc<SessionGate>,
    provider: String,
    sso: Sso,
    operator: String,
    refused: BTreeSet<String>,
    needed: BTreeSet<String>,
    /// Of the page that the person sees.
    title: String,
}

impl Needed {
    /// Of a session with this gate.
    pub fn new(gate: Rc<SessionGate>, provider: &Provider, operator: &str) -> Self {
        Self {
            gate,
            provider: provider.id.to_string(),
            sso: provider.egress.sso,
            operator: operator.to_owned(),
            refused: BTreeSet::new(),
            needed: BTreeSet::new(),
            title: String::new(),
        }
    }

    /// A connection that was made or not; what there is to say when the page needed it.
    pub fn contacted(&mut self, (record, _): &Contact) -> Vec<Observation> {
        if record.verdict != EgressVerdict::RefusedByPolicy || self.refused.len() == MAX_REFUSED {
            return Vec::new();
        }
        self.refused.insert(record.host.clone());
        self.look()
    }

    /// The page has another title. Where a page could not be loaded, Chromium's own has its host for a
    /// title: so a page that the person was led to is told from what a page would load.
    pub fn titled(&mut self, title: &str) -> Vec<Observation> {
        title.strip_suffix(BROWSER).unwrap_or(title).trim().clone_into(&mut self.title);
        self.look()
    }

    fn look(&mut self) -> Vec<Observation> {
        let host = normalise_host(&self.title).filter(|host| self.refused.contains(host));
        let Some(host) = host.filter(|_| self.needed.len() < MAX_NEEDED) else { return Vec::new() };
        if !self.needed.insert(host.clone()) {
            return Vec::new();
        }
        let whom = match self.operator.as_str() {
            "" => "whoever sent you here",
            name => name,
        };
        let says = match self.sso {
            Sso::Refuse => format!(
                "The sign-in goes on at {host}, which this room may not reach. Go back and sign in \
                 another way, or ask {whom} to allow {host} and start again."
            ),
            Sso::Ask => format!(
                "The sign-in goes on at {host}, which this room may not reach yet. Ask {whom} to \
                 allow {host}, which can be done while you wait; or go back and sign in another way."
            ),
        };
        let (provider, asks) = (self.provider.clone(), self.sso == Sso::Ask);
        vec![Observation::HostNeeded { host, provider, asks }, Observation::PersonTold { says }]
    }

    /// Allows a refused host from now on, by the operator's word.
    ///
    /// # Errors
    /// With a sentence, when it may not be.
    pub fn allow(&mut self, host: &str) -> Result<Vec<Observation>, String> {
        if self.sso == Sso::Refuse {
            let provider = &self.provider;
            return Err(format!(
                "the provider {provider} allows no host while a session runs; write sso = \"ask\" \
                 into [egress] of its file, or add the host to allow"
            ));
        }
        let normal = normalise_host(host).filter(|host| self.refused.contains(host));
        let host = normal.ok_or_else(|| {
            format!("this session was refused no host {host:?}; its refused hosts are in egress")
        })?;
        if !self.gate.allow(&host) {
            return Err(format!("{host} is no host of the internet, which alone can be allowed"));
        }
        self.refused.remove(&host);
        self.needed.remove(&host);
        let says = format!("This room can reach {host} now: load the page again.");
        Ok(vec![Observation::HostAllowed { host }, Observation::PersonTold { says }])
    }
}

#[cfg(test)]
mod tests {
    use anteroom_egress::{ConnectionRecord, Gate, Policy, SystemResolver};

    use super::*;

    fn needed(sso: Sso) -> Needed {
        let policy = Policy::new(&["login.example.com".to_owned()], &[]).unwrap();
        Needed {
            gate: Rc::new(Gate::new(policy, SystemResolver::default())),
            provider: "tool".to_owned(),
            sso,
            operator: "Ada".to_owned(),
            refused: BTreeSet::new(),
            needed: BTreeSet::new(),
            title: String::new(),
        }
    }

    fn contact(host: &str, verdict: EgressVerdict) -> Contact {
        let record = ConnectionRecord {
            host: host.to_owned(),
            port: 443,
            verdict,
            address: None,
            bytes_up: 0,
            bytes_down: 0,
            started_ms: 0,
            ended_ms: 0,
            detail: None,
        };
        (record, 1)
    }

    #[test]
    fn the_page_s_own_host_is_told_and_what_it_loads_is_not() {
        let refused = contact("acme.okta.example", EgressVerdict::RefusedByPolicy);
        let other = contact("ads.example", EgressVerdict::RefusedByPolicy);
        // Whichever of the two is heard of first.
        for title_first in [true, false] {
            let mut needed = needed(Sso::Refuse);
            assert_eq!(needed.contacted(&other), []);
            let title = "acme.okta.example - Chromium";
            let mut told = if title_first { needed.titled(title) } else { Vec::new() };
            told.extend(needed.contacted(&refused));
            told.extend(needed.titled(title));
            let (host, provider) = ("acme.okta.example".to_owned(), "tool".to_owned());
            assert_eq!(told[0], Observation::HostNeeded { host, provider, asks: false });
            let Observation::PersonTold { says } = &told[1] else { panic!("{told:?}") };
            assert!(says.contains("acme.okta.example") && says.contains("another way"), "{says}");
            assert!(says.contains("ask Ada"), "{says}");
            assert_eq!(told.len(), 2, "told once: {told:?}");
        }
        let mut needed = needed(Sso::Refuse);
        assert_eq!(needed.contacted(&contact("a.example", EgressVerdict::Failed)), []);
        assert_eq!(needed.titled("a.example"), []);
    }

    #[test]
    fn only_a_refused_host_of_the_internet_is_allowed_and_only_where_it_is_asked_for() {
        let refused = |host: &str| contact(host, EgressVerdict::RefusedByPolicy);
        let mut refuses = needed(Sso::Refuse);
        refuses.contacted(&refused("acme.okta.example"));
        assert!(refuses.allow("acme.okta.example").unwrap_err().contains("sso = \"ask\""));
        let mut asks = needed(Sso::Ask);
        for host in ["acme.okta.example", "10.0.0.1", "metadata.google.internal", "[::1]"] {
            asks.contacted(&refused(host));
        }
        for host in ["other.example", "10.0.0.1", "metadata.google.internal", "[::1]", "a b"] {
            assert!(asks.allow(host).is_err(), "{host}");
        }
        let host = "acme.okta.example".to_owned();
        let told = asks.allow("ACME.okta.example").unwrap();
        assert_eq!(told[0], Observation::HostAllowed { host });
    }
}
