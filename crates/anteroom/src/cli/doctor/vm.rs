//! What boots VMs on this machine, and what else on it weakens them.

use std::path::Path;

use anteroom_vm::{Installed, KvmProbe, ProgramError, Qemu, probe_kvm};

use super::{Finding, failure, ok, warning};

/// By the GitHub CLI. A release of Firecracker comes with its digest.
const INSTALL_FIRECRACKER: &str = "cd $(mktemp -d) && gh release download v1.16.1 --repo firecracker-microvm/firecracker --pattern 'firecracker-*-x86_64.tgz*' && sha256sum -c *.sha256.txt && tar xf *.tgz && install release-*/firecracker-*-x86_64 /usr/local/bin/firecracker";

/// The kernel's opinion of this processor, one file for each known flaw.
const FLAWS: &str = "/sys/devices/system/cpu/vulnerabilities";

/// VMMs, KVM, and with KVM what it is worth here.
pub fn findings() -> Vec<Finding> {
    let probe = probe_kvm();
    let mut findings = vec![qemu(), kvm(&probe)];
    if let KvmProbe::Usable { .. } = probe {
        findings.extend([firecracker(), threads(), merging(), flaws(Path::new(FLAWS))]);
    }
    findings
}

fn qemu() -> Finding {
    match Qemu::version() {
        Some(version) => ok(version),
        None => failure(
            "QEMU is not installed",
            "apt-get install --no-install-recommends qemu-system-x86",
        ),
    }
}

fn kvm(probe: &KvmProbe) -> Finding {
    match probe {
        KvmProbe::Usable { mips } => {
            ok(format!("KVM works: {mips} million guest instructions a second"))
        }
        KvmProbe::Unusable { why } => warning(
            format!(
                "KVM is not available: {why}; sessions are emulated, which is slow and isolates them weakly"
            ),
            "use a machine with hardware virtualisation, whose /dev/kvm is open to the user who runs Anteroom (as root, or in the group kvm)",
        ),
    }
}

/// Nobody needs it who uses QEMU.
fn firecracker() -> Finding {
    match Installed::find() {
        Ok(Installed { path, version }) => {
            ok(format!("Firecracker {version} at {}", path.display()))
        }
        Err(ProgramError::Missing) => Finding {
            fix: Some(INSTALL_FIRECRACKER.to_owned()),
            ..ok("Firecracker is not installed, so --driver firecracker cannot be used")
        },
        Err(error) => warning(error.to_string(), INSTALL_FIRECRACKER),
    }
}

fn threads() -> Finding {
    match said("/sys/devices/system/cpu/smt/active").as_deref() {
        Some("1") => warning(
            "two threads share a core (SMT), so one VM could observe what another on the same core does",
            "turn SMT off: echo off > /sys/devices/system/cpu/smt/control, or nosmt in the kernel's parameters",
        ),
        _ => ok("no two threads share a core (SMT)"),
    }
}

fn merging() -> Finding {
    match said("/sys/kernel/mm/ksm/run").as_deref() {
        Some("1") => warning(
            "the kernel merges equal pages of memory (KSM), by which one VM can find out what another has in memory",
            "echo 2 > /sys/kernel/mm/ksm/run",
        ),
        _ => ok("the kernel does not merge equal pages of memory (KSM)"),
    }
}

fn flaws(folder: &Path) -> Finding {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let mut open: Vec<String> = entries
        .filter(|flaw| said(flaw.path()).is_some_and(|state| state.starts_with("Vulnerable")))
        .map(|flaw| flaw.file_name().to_string_lossy().into_owned())
        .collect();
    open.sort();
    if open.is_empty() {
        return ok("the kernel reports no flaw of this processor that is not mitigated");
    }
    warning(
        format!("the kernel does not mitigate flaws of this processor: {}", open.join(", ")),
        "update kernel and microcode (apt-get install intel-microcode amd64-microcode), and do not boot with mitigations=off",
    )
}

/// The first line of a file of the kernel's.
fn said(path: impl AsRef<Path>) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    text.lines().next().map(|line| line.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flaws_that_the_kernel_leaves_open_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for (name, state) in [
            ("l1tf", "Not affected"),
            ("mds", "Vulnerable: Clear CPU buffers attempted, no microcode"),
            ("meltdown", "Mitigation: PTI"),
            ("ghostwrite", "Vulnerable"),
        ] {
            std::fs::write(folder.path().join(name), format!("{state}\n")).unwrap();
        }
        let finding = flaws(folder.path());
        assert!(finding.what.ends_with(": ghostwrite, mds"), "{}", finding.what);
        assert!(finding.fix.is_some());
        let empty = tempfile::tempdir().unwrap();
        assert!(flaws(empty.path()).fix.is_none());
    }
}
