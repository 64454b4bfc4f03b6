//! Who signs in to what.

use std::net::Ipv4Addr;

use anteroom_guest_protocol::Preferences;
use anteroom_provider::{InjectedFile, Provider, SignInMethod};
use anteroom_session::{Method, SessionId};
use serde::{Deserialize, Serialize};

/// Who signs in to what, and how.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignInConfig {
    /// The session.
    pub session: SessionId,
    /// The CLI, its credential and its egress.
    pub provider: Provider,
    /// How the end user signs in: one of the provider's ways.
    pub method: Method,
    /// What the end user prefers.
    pub preferences: Preferences,
    /// Files of the start call, after the provider's own.
    pub files: Vec<InjectedFile>,
    /// The age recipient the guest seals to.
    pub recipient: String,
    /// Address of the guest's dummy interface.
    pub browser_ip: Ipv4Addr,
    /// Who runs this Anteroom, as end users know them.
    pub operator_name: String,
    /// Whether every host is let through, to find out which are asked for.
    pub learns: bool,
}

impl SignInConfig {
    /// The way to sign in.
    ///
    /// # Panics
    /// When the provider has none, which a parsed provider has.
    #[must_use]
    pub fn login(&self) -> &SignInMethod {
        self.provider.login_by(self.method).unwrap_or(&self.provider.login[0])
    }
}
