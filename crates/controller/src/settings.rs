//! What the operator chose.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use anteroom_provider::ProviderKind;
use anteroom_session::{Accelerator, ProviderId};

use super::admission::Limits;
use super::janitor::Keep;
use super::providers::Providers;

/// A file of the viewer by its path, and its media type.
pub type ViewerFile = fn(&str) -> Option<(Vec<u8>, &'static str)>;

/// What `anteroom serve` was started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Database, vault.
    pub state_dir: PathBuf,
    /// As end users know them.
    pub operator_name: String,
    /// How browsers reach this, if not by the listening address.
    pub public_url: Option<String>,
    /// Whether sign-ins with consequences may run without hardware isolation.
    pub allow_weak_isolation: bool,
    /// Providers whose credentials may go to the vault although their terms forbid it.
    pub vault_custody: BTreeSet<ProviderId>,
    /// The shortest time to live that may be asked for, in seconds.
    pub min_ttl_seconds: u64,
    /// How long a session may live at most, in seconds.
    pub max_session_seconds: u64,
    /// How long an end user who has arrived may do nothing, in seconds.
    pub idle_seconds: u64,
    /// What of sessions that are over is kept.
    pub keep: Keep,
    /// How many sessions there may be.
    pub limits: Limits,
    /// Whether sign-ins may reach every host, to find out which they ask for.
    pub learn_egress: bool,
    /// What may be signed in to.
    pub providers: Arc<Providers>,
    /// The viewer's files.
    pub viewer_file: ViewerFile,
}

impl Settings {
    /// What keeps sessions from this machine where that is less than a virtual machine on KVM, with what
    /// to do.
    fn weakness(accelerator: Accelerator) -> Option<&'static str> {
        Some(match accelerator {
            Accelerator::Kvm => return None,
            Accelerator::Tcg => {
                "virtual machines are emulated, which is slow and not an isolation boundary; use a machine \
                 on which `anteroom doctor` reports that KVM works"
            }
            Accelerator::None => {
                "the host driver runs tools and browsers directly on this machine, without a virtual \
                 machine, which is only for tests; start without --driver host"
            }
        })
    }

    /// Why a sign-in with real accounts is refused, and what to do; unless it is not.
    pub fn refuses_real(&self, accelerator: Accelerator) -> Option<String> {
        let weak = Self::weakness(accelerator).filter(|_| !self.allow_weak_isolation)?;
        Some(format!(
            "{weak}, or accept that with --allow-weak-isolation; a provider for tests has kind = \"demo\" in \
             its file"
        ))
    }

    /// A sentence for each way in which sessions are kept from this machine by less than a virtual
    /// machine on KVM, with what to do.
    pub fn weak_isolation(&self, accelerator: Accelerator) -> Vec<String> {
        let Some(weak) = Self::weakness(accelerator) else { return Vec::new() };
        let real = if self.allow_weak_isolation {
            "sign-ins with real accounts are allowed without hardware isolation; start without \
             --allow-weak-isolation to refuse them"
                .to_owned()
        } else {
            let providers = self.providers.now();
            let real = providers.values().filter(|provider| provider.kind == ProviderKind::Real);
            let names: Vec<&str> = real.map(|provider| provider.id.as_str()).collect();
            format!(
                "sign-ins to {} are refused, because they use real accounts; --allow-weak-isolation allows \
                 them without hardware isolation",
                names.join(", ")
            )
        };
        vec![weak.to_owned(), real]
    }

    /// A sentence for each provider whose terms the operator overrides.
    pub fn overridden_terms(&self) -> Vec<String> {
        let providers = self.providers.now();
        let overridden = |id: &ProviderId| {
            let provider = providers.get(id)?;
            let terms = provider.terms.as_ref()?;
            Some(format!(
                "credentials of {} may be sealed to the vault, although its terms ({}, read on {}) allow only the end user to hold them",
                provider.name, terms.page, terms.read
            ))
        };
        self.vault_custody.iter().filter_map(overridden).collect()
    }

    /// Names of the images that the providers sign in with.
    pub fn images(&self) -> BTreeSet<String> {
        self.providers.now().into_values().map(|provider| provider.image).collect()
    }
}

/// The folder under the XDG base directory of `kind`, or root's usual one.
pub fn default_dir(variable: &str, home_part: &str, for_root: &str) -> PathBuf {
    if let Some(base) = std::env::var_os(variable).filter(|base| !base.is_empty()) {
        return PathBuf::from(base).join("anteroom");
    }
    match std::env::var_os("HOME") {
        Some(home) if !nix::unistd::geteuid().is_root() => {
            PathBuf::from(home).join(home_part).join("anteroom")
        }
        _ => PathBuf::from(for_root),
    }
}
