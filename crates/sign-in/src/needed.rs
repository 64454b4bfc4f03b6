//! Hosts on which a page continues, and which the egress gate refuses: a company's own sign-in, most
//! often. The end user is notified, who would otherwise see a browser's error, and the operator, who
//! can allow the host.

use std::collections::{BTreeSet, VecDeque};

use anteroom_provider::{Provider, Sso};
use anteroom_session::{
    EgressVerdict, HostPort, HostRefused, Observation, Remedy, normalise_host, unlistable,
};

use crate::Contact;

/// Refused hosts that are remembered, the last ones, and how many are reported as needed.
const MAX_REFUSED: usize = 128;
const MAX_NEEDED: usize = 8;

/// What Chromium puts behind a page's title.
const BROWSER: &str = " - Chromium";

/// The refused hosts of one session.
pub struct Needed {
    provider: String,
    sso: Sso,
    operator: String,
    refused: VecDeque<(HostPort, Remedy)>,
    needed: BTreeSet<HostPort>,
    /// Of the page that the end user sees.
    title: String,
}

impl Needed {
    /// For a sign-in to `provider`; `operator` is the name that end users know, or empty.
    pub fn new(provider: &Provider, operator: &str) -> Self {
        Self {
            provider: provider.id.to_string(),
            sso: provider.egress.sso,
            operator: operator.to_owned(),
            refused: VecDeque::new(),
            needed: BTreeSet::new(),
            title: String::new(),
        }
    }

    /// A connection that was made or not; returns what there is to report when the page needed it.
    pub fn contacted(&mut self, contact: &Contact) -> Vec<Observation> {
        let remedy = match (contact.verdict, unlistable(&contact.host)) {
            (EgressVerdict::RefusedByPolicy, Some(HostRefused::LocalName)) => Remedy::ListAndMap,
            (EgressVerdict::RefusedByPolicy, Some(_)) => Remedy::NameAndMap,
            (EgressVerdict::RefusedByPolicy, None) => match self.sso {
                Sso::Refuse => Remedy::List,
                Sso::Ask => Remedy::ListOrAllow,
            },
            (EgressVerdict::RefusedAddress, _) => Remedy::Map,
            _ => return Vec::new(),
        };
        let destination = HostPort::new(&contact.host, contact.port);
        self.refused.retain(|(refused, _)| *refused != destination);
        if self.refused.len() == MAX_REFUSED {
            self.refused.pop_front();
        }
        self.refused.push_back((destination, remedy));
        self.look()
    }

    /// The page has another title. Where a page could not be loaded, Chromium's error page has the host
    /// as its title: so a page that the end user was led to is distinguished from what a page loads.
    pub fn titled(&mut self, title: &str) -> Vec<Observation> {
        title.strip_suffix(BROWSER).unwrap_or(title).trim().clone_into(&mut self.title);
        self.look()
    }

    fn look(&mut self) -> Vec<Observation> {
        let Some(host) = normalise_host(&self.title) else { return Vec::new() };
        let needed = self.refused.iter().filter(|(destination, _)| destination.host() == host);
        let mut reported = Vec::new();
        for (destination, remedy) in needed {
            if self.needed.len() == MAX_NEEDED || !self.needed.insert(destination.clone()) {
                continue;
            }
            let (host, provider) = (destination.to_string(), self.provider.clone());
            let says = self.for_the_end_user(&host, *remedy);
            reported.push(Observation::HostNeeded { host, provider, remedy: *remedy });
            reported.push(Observation::EndUserNotified { says });
        }
        reported
    }

    fn for_the_end_user(&self, host: &str, remedy: Remedy) -> String {
        let whom = match self.operator.as_str() {
            "" => "whoever sent you here",
            name => name,
        };
        let other = "Go back and sign in another way, or";
        match remedy {
            Remedy::List => format!(
                "The sign-in continues at {host}, which the sign-in desktop may not reach. {other} ask \
                 {whom} to allow {host} and start again."
            ),
            Remedy::ListOrAllow => format!(
                "The sign-in continues at {host}, which the sign-in desktop may not reach yet. Ask \
                 {whom} to allow {host}, which is possible while you wait; or go back and sign in \
                 another way."
            ),
            Remedy::NameAndMap => format!(
                "The sign-in continues at {host}, which is an address; the sign-in desktop can reach \
                 hosts only by name. {other} ask {whom} to set up a name for it and start again."
            ),
            Remedy::ListAndMap => format!(
                "The sign-in continues at {host}, a name inside a private network, which the sign-in desktop \
                 cannot reach. {other} ask {whom} to set up an address for {host} and start again."
            ),
            Remedy::Map => format!(
                "The sign-in continues at {host}, whose name resolves to an address that the sign-in \
                 desktop may not reach. {other} ask {whom} to set up an address for {host} and start \
                 again."
            ),
        }
    }

    /// The operator allows a refused host. Returns the destination that the egress gate lets through from now
    /// on, and what to report.
    ///
    /// # Errors
    /// With a sentence, when the host may not be allowed.
    pub fn allow(&mut self, text: &str) -> Result<(HostPort, Observation), String> {
        if self.sso == Sso::Refuse {
            let provider = &self.provider;
            return Err(format!(
                "the provider {provider} does not allow hosts while a session runs; set sso = \"ask\" \
                 in [egress] of its file, or add the host to allow"
            ));
        }
        let destination = HostPort::parse(text);
        let found =
            self.refused.iter().position(|(refused, _)| Some(refused) == destination.as_ref());
        let Some((at, destination)) = found.zip(destination.clone()) else {
            return Err(self.not_refused(text, destination.as_ref()));
        };
        if self.refused[at].1 == Remedy::Map {
            return Err(format!(
                "{destination} is allowed, but its name resolves to an address that no sandbox may reach; map \
                 it to its address with [[egress.map]] in the provider file"
            ));
        }
        if let Some(refused) = unlistable(destination.host()) {
            return Err(format!(
                "{destination} cannot be allowed: {refused}; see [[egress.map]] in the provider file"
            ));
        }
        self.refused.remove(at);
        self.needed.remove(&destination);
        // Whether it is reached shows when the page is loaded again.
        let says = format!("{destination} is now allowed; reload the page.");
        Ok((destination, Observation::EndUserNotified { says }))
    }

    fn not_refused(&self, text: &str, destination: Option<&HostPort>) -> String {
        let mut of_host = self.refused.iter().map(|(refused, _)| refused);
        let host = destination.map(HostPort::host);
        if let Some(other) = of_host.find(|refused| Some(refused.host()) == host) {
            return format!(
                "this session was refused {other}, not {text:?}; allow the host exactly as it was refused"
            );
        }
        match self.refused.len() {
            MAX_REFUSED => format!(
                "{text:?} is not among the last {MAX_REFUSED} hosts that this session was refused; reload \
                 the page that needs it, then allow it"
            ),
            _ => format!(
                "this session has not been refused {text:?}; the hosts that it was refused are listed in its `egress`"
            ),
        }
    }
}

#[cfg(test)]
mod tests;
