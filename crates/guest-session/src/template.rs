//! What a template has to have in common with whoever makes clones of it.

use anteroom_guest_protocol::{ScreenSize, ServiceSpec};
use anteroom_template::TemplateFor;
use sha2::{Digest, Sha256};

use crate::vmm::Vmm;

/// What boots VMs here, whatever image: asked once, since a program is asked for its version.
#[derive(Clone, Debug)]
pub struct Host {
    /// Hexadecimal SHA-256 of the agent's program.
    pub agent_sha256: String,
    /// The VMM with its version.
    pub vmm: String,
    /// This machine's processor, as the kernel names it.
    pub cpu: String,
}

impl Host {
    /// This machine, with this VMM and agent.
    #[must_use]
    pub fn here(vmm: &Vmm, agent: &[u8]) -> Self {
        Self {
            agent_sha256: sha256(agent),
            vmm: vmm.version().unwrap_or_default(),
            cpu: processor(),
        }
    }
}

/// A VM that a template is for.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The digest of its image's recipe.
    pub image: &'a str,
    /// What boots it.
    pub vmm: &'a Vmm,
    /// Guest memory in MiB.
    pub memory_mib: u32,
    /// Guest processors.
    pub vcpus: u8,
    /// Desktop size.
    pub screen: ScreenSize,
    /// Services beside the desktop's own.
    pub services: &'a [ServiceSpec],
    /// PEM of extra certificate authorities for its browser; empty for none.
    pub extra_ca_pem: &'a str,
}

impl Wanted<'_> {
    /// All that has to be the same.
    #[must_use]
    pub fn on(&self, host: &Host) -> TemplateFor {
        let services = serde_json::to_vec(self.services).unwrap_or_default();
        TemplateFor {
            image: self.image.to_owned(),
            agent_sha256: host.agent_sha256.clone(),
            vmm: host.vmm.clone(),
            driver: self.vmm.kind().to_string(),
            accelerator: self.vmm.accelerator().to_string(),
            cpu: self.vmm.processor_model(),
            memory_mib: self.memory_mib,
            vcpus: self.vcpus,
            screen_width: self.screen.width,
            screen_height: self.screen.height,
            services_sha256: sha256(&services),
            authorities_sha256: sha256(self.extra_ca_pem.trim().as_bytes()),
            host_cpu: host.cpu.clone(),
        }
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// As `/proc/cpuinfo` names it.
fn processor() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    name.map(|(_, name)| name.trim().to_owned()).unwrap_or_default()
}
