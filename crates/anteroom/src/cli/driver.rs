//! What boots sandboxes: `serve`'s options for it.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anteroom_guest_session::Vmm;
use anteroom_image_verify::processor::{Chosen, choose, usual};
use anteroom_node::{DriverChoice, HostSize, VmChoice};
use anteroom_private as private;
use anteroom_vm::{AcceleratorChoice, Installed, KvmProbe, VmAccelerator, probe_kvm};
use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use clap::builder::{PossibleValuesParser, TypedValueParser};

use crate::embedded;

/// The driver, and what it boots.
#[derive(clap::Args)]
pub struct DriverOptions {
    /// What boots sandboxes.
    #[arg(long, value_enum, default_value = "qemu")]
    driver: Driver,
    /// What executes guest code.
    #[arg(long, value_enum, default_value = "auto")]
    accelerator: Accelerator,
    /// Guest memory in MiB.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(512..=65_536))]
    memory: u32,
    /// Guest processors.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    vcpus: u8,
    /// The CPU profile of VMs: x86-64-v1 to x86-64-v3 and others (see `anteroom
    /// image verify --help`).
    #[arg(long, value_name = "PROFILE")]
    cpu: Option<String>,
    /// Boot images that are not verified for the CPU of these VMs.
    #[arg(long)]
    allow_unverified_images: bool,
    /// With the `host` driver: an agent to use instead of the embedded one.
    #[arg(long, hide = true)]
    agent: Option<PathBuf>,
}

/// A driver, as options name it.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Driver {
    /// One QEMU microVM per session.
    Qemu,
    /// One Firecracker microVM per session; needs KVM.
    Firecracker,
    /// The agent directly on this machine, without isolation, for tests.
    Host,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Accelerator {
    /// KVM if it works, otherwise emulation.
    Auto,
    /// KVM; fail without it.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Driver {
    /// As the option has it.
    pub fn name(self) -> String {
        let value = self.to_possible_value();
        value.map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    /// Accepts those that boot VMs, for commands that need one.
    pub fn of_vms() -> impl TypedValueParser<Value = Self> {
        let vms = [Self::Qemu, Self::Firecracker];
        let values = vms.iter().filter_map(ValueEnum::to_possible_value);
        PossibleValuesParser::new(values).try_map(|name| Self::from_str(&name, false))
    }
}

impl DriverOptions {
    /// What was chosen, where this machine can do it. Probes KVM where that matters.
    pub fn choose(&self, cache_dir: &Path) -> Result<DriverChoice> {
        let cpu = self.cpu.as_deref().map(choose).transpose()?;
        let (vmm, verified_for) = match self.driver {
            Driver::Qemu => {
                let accelerator = match self.accelerator {
                    Accelerator::Auto => AcceleratorChoice::Auto,
                    Accelerator::Kvm => AcceleratorChoice::Kvm,
                    Accelerator::Tcg => AcceleratorChoice::Tcg,
                };
                let accelerator = accelerator.resolve()?;
                let given = cpu.as_ref().map(|chosen| chosen.processor.clone());
                let verified_for = cpu.map_or_else(|| usual(accelerator), Ok)?;
                (Vmm::Qemu { accelerator, cpu: given }, vec![verified_for.processor])
            }
            Driver::Firecracker => {
                if matches!(self.accelerator, Accelerator::Tcg) {
                    bail!("Firecracker cannot emulate; use --driver qemu with --accelerator tcg");
                }
                let cpu = cpu.map_or_else(|| usual(VmAccelerator::Kvm), Ok)?;
                let given = cpu.for_firecracker()?;
                let (vmm, version) = firecracker(&given)?;
                tracing::info!("{version}");
                // An image that emulation refuses nothing to needs no more of the processor.
                (vmm, vec![cpu.processor, given.processor])
            }
            Driver::Host => {
                let agent = match &self.agent {
                    Some(agent) => agent.clone(),
                    None => unpack_agent(cache_dir)?,
                };
                // Another agent plays a guest.
                let size = match self.agent {
                    Some(_) => HostSize::Program,
                    None => HostSize::Desktop,
                };
                return Ok(DriverChoice::Host { agent, size });
            }
        };
        let verified_for = if self.allow_unverified_images { Vec::new() } else { verified_for };
        let (memory_mib, vcpus) = (self.memory, self.vcpus);
        Ok(DriverChoice::Vm(VmChoice { vmm, memory_mib, vcpus, verified_for }))
    }
}

/// Firecracker with this processor, and its version, where this machine can run it.
pub fn firecracker(cpu: &Chosen) -> Result<(Vmm, String)> {
    let Installed { path, version } = Installed::find()?;
    if let KvmProbe::Unusable { why } = probe_kvm() {
        bail!("Firecracker needs KVM, which cannot be used: {why}; --driver qemu can emulate");
    }
    let vmm = Vmm::Firecracker { program: path, cpu: cpu.processor.clone() };
    Ok((vmm, format!("Firecracker {version}")))
}

/// The host driver runs the agent as a program: it needs a file.
fn unpack_agent(cache_dir: &Path) -> Result<PathBuf> {
    use sha2::Digest;
    let agent = embedded::agent()?;
    let digest = hex::encode(sha2::Sha256::digest(agent));
    // Not in the private state folder: when root, the agent runs as an unprivileged user.
    let path = cache_dir.join(format!("agent-{}", &digest[..16]));
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.exists();
    let missing: Vec<&Path> = cache_dir.ancestors().take_while(is_missing).collect();
    std::fs::create_dir_all(cache_dir)
        .with_context(|| format!("creating {} failed", cache_dir.display()))?;
    for made in missing {
        allow_all_to_enter(made)?;
    }
    // A name alone proves nothing of what lies there.
    if !private::holds(&path, agent) {
        private::write_with_mode(&path, agent, 0o755).context("cannot unpack the agent")?;
    }
    Ok(path)
}

/// The agent in it is run by another user, when this is root.
fn allow_all_to_enter(dir: &Path) -> Result<()> {
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("cannot open {} to all users", dir.display()))
}
