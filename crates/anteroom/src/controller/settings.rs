//! What the operator chose.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anteroom_confine::Offered;
use anteroom_guest_protocol::ServiceSpec;
use anteroom_image::Processor;
use anteroom_provider::{Provider, ProviderKind};
use anteroom_session::ProviderId;
use anteroom_vm::VmAccelerator;
use anyhow::{Context, Result, bail};

use super::admission::Limits;
use super::janitor::Keep;
use super::providers::Providers;
use crate::embedded;
use crate::logging::LogFormat;
use crate::private;

/// What `anteroom serve` was started with.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where media comes in.
    pub media_listen: SocketAddr,
    /// Addresses of the media port that viewers can reach; empty: the bound one.
    pub advertise: Vec<SocketAddr>,
    /// Database, vault, logs.
    pub state_dir: PathBuf,
    /// Golden images.
    pub images_dir: PathBuf,
    /// What may be recomputed.
    pub cache_dir: PathBuf,
    /// How rooms are made.
    pub driver: DriverChoice,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Guest processors.
    pub vcpus: u8,
    /// What each of them is; `None` for the usual one.
    pub cpu: Option<Processor>,
    /// The processor that images must be verified for; `None` if they need not be.
    pub verified_for: Option<Processor>,
    /// Services of every room beside those of its image.
    pub services: Vec<ServiceSpec>,
    /// As the person is told.
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
    /// How long a person who came may do nothing, in seconds.
    pub idle_seconds: u64,
    /// What of sessions that are over is kept.
    pub keep: Keep,
    /// How many sessions there may be.
    pub limits: Limits,
    /// How this says what happens; its runners do likewise.
    pub log_format: LogFormat,
    /// Whether sign-ins may reach every host, to find out which they ask for.
    pub learn_egress: bool,
    /// What this machine offers to hold sessions with.
    pub offered: Offered,
    /// What may be signed in to.
    pub providers: Arc<Providers>,
}

/// How rooms are made.
#[derive(Clone, Debug)]
pub enum DriverChoice {
    /// QEMU microVMs.
    Qemu(VmAccelerator),
    /// The agent on this host.
    Host {
        /// The agent binary.
        agent: PathBuf,
    },
}

impl Settings {
    /// What keeps sessions from this machine where that is less than a virtual machine on KVM, with what
    /// to do.
    fn weakness(&self) -> Option<&'static str> {
        Some(match self.driver {
            DriverChoice::Qemu(VmAccelerator::Kvm) => return None,
            DriverChoice::Qemu(VmAccelerator::Tcg) => {
                "virtual machines are emulated, which is slow and no isolation boundary; use a machine \
                 on which `anteroom doctor` says that KVM works, without --accelerator tcg"
            }
            DriverChoice::Host { .. } => {
                "the host driver runs tools and browsers on this machine itself, with no virtual machine around \
                 them, which is for tests; start without --driver host"
            }
        })
    }

    /// Why a sign-in with real accounts is refused, and what to do; unless it is not.
    pub fn refuses_real(&self) -> Option<String> {
        let weak = self.weakness().filter(|_| !self.allow_weak_isolation)?;
        Some(format!(
            "{weak}, or accept that with --allow-weak-isolation; a stand-in for tests says kind = \"demo\" in \
             its provider file"
        ))
    }

    /// A sentence for each way in which sessions are kept from this machine by less than a virtual
    /// machine on KVM, with what to do.
    pub fn weak_isolation(&self) -> Vec<String> {
        let Some(weak) = self.weakness() else { return Vec::new() };
        let real = if self.allow_weak_isolation {
            "people may sign in with real accounts without hardware isolation; start without \
             --allow-weak-isolation, and they are refused"
                .to_owned()
        } else {
            let providers = self.providers.now();
            let real = providers.values().filter(|provider| provider.kind == ProviderKind::Real);
            let names: Vec<&str> = real.map(|provider| provider.id.as_str()).collect();
            format!(
                "sign-ins to {} are refused, since their accounts are real; --allow-weak-isolation accepts \
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
                "credentials of {} may be sealed to the vault, although its terms ({}, read on {}) let nobody but the person hold them",
                provider.name, terms.page, terms.read
            ))
        };
        self.vault_custody.iter().filter_map(overridden).collect()
    }

    /// A sentence for each provider's image that no session could be started with.
    pub fn unfit_images(&self) -> Vec<String> {
        let Some(cpu) = &self.verified_for else { return Vec::new() };
        let providers = self.providers.now();
        let names: BTreeSet<&str> = providers.values().map(|p| p.image.as_str()).collect();
        let unfit = |name: &&str| {
            let image = anteroom_image::find(&self.images_dir, name).ok()?;
            anteroom_image::verified_for(&image.dir, cpu).err().map(|error| error.to_string())
        };
        names.iter().filter_map(unfit).collect()
    }
}

/// The shipped providers, and those in the operator's folder, which win.
pub fn load_providers(folder: Option<&Path>) -> Result<BTreeMap<ProviderId, Provider>> {
    let mut providers = read_all(&embedded::providers())?;
    let mut texts = Vec::new();
    if let Some(folder) = folder {
        private::providers_are_there(folder)?;
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("reading {} failed", folder.display()))?;
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = std::fs::read_to_string(&path)
                    .with_context(|| format!("reading {} failed", path.display()))?;
                if !is_recipe(&text) {
                    texts.push((path.display().to_string(), text));
                }
            }
        }
    }
    providers.extend(read_all(&texts)?);
    Ok(providers)
}

/// Files with these names and texts, by their ids.
fn read_all(texts: &[(String, String)]) -> Result<BTreeMap<ProviderId, Provider>> {
    let mut providers = BTreeMap::new();
    let mut files: BTreeMap<ProviderId, &str> = BTreeMap::new();
    for (name, text) in texts {
        let provider = Provider::parse(name, text)?;
        if let Some(other) = files.insert(provider.id.clone(), name) {
            bail!("{name} and {other} have the same id, {}; give one of them another", provider.id);
        }
        providers.insert(provider.id.clone(), provider);
    }
    Ok(providers)
}

/// Whether a file is an image's recipe, which may lie beside the providers that it names.
pub fn is_recipe(text: &str) -> bool {
    let table: Option<toml::Table> = text.parse().ok();
    table.is_some_and(|table| table.contains_key("suite") && !table.contains_key("login"))
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
