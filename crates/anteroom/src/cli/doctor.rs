//! `anteroom doctor`: what this machine can do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anteroom_confine::{Offer, Offered};
use anteroom_vm::{AcceleratorChoice, KvmProbe, probe_kvm};
use anyhow::{Result, bail};
use serde_json::{Value, json};

use super::serve::{images_dir, state_dir};
use super::sessions::show;
use crate::controller::OVERRIDES;
use crate::embedded;
use crate::gate::processor::usual;

/// What `doctor` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Prints JSON.
    #[arg(long)]
    json: bool,
    /// Golden images.
    #[arg(long, env = "ANTEROOM_IMAGES_DIR")]
    images_dir: Option<PathBuf>,
    /// Database, vault and logs.
    #[arg(long, env = "ANTEROOM_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

/// One finding.
struct Finding {
    verdict: Verdict,
    what: String,
    fix: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Failure,
}

/// Looks, and fails when something needed is missing.
pub fn run(options: &Options) -> Result<()> {
    let images = options.images_dir.clone().unwrap_or_else(images_dir);
    let state = options.state_dir.clone().unwrap_or_else(state_dir);
    let mut findings =
        vec![qemu(), kvm(), image_tools(), image(&images), agent(), memory(), disk(&state)];
    findings.extend(confinement());
    findings.extend(unverified(&images));
    findings.extend(overridden_terms(&state));
    let value = json!(
        findings
            .iter()
            .map(|finding| json!({ "verdict": word(finding.verdict), "what": finding.what, "fix": finding.fix }))
            .collect::<Vec<_>>()
    );
    show(options.json, &value, |_| {
        findings
            .iter()
            .map(|finding| {
                let fix = finding
                    .fix
                    .as_ref()
                    .map(|fix| format!("      FIX: {fix}\n"))
                    .unwrap_or_default();
                format!("{:<5} {}\n{fix}", word(finding.verdict), finding.what)
            })
            .collect()
    })?;
    if findings.iter().any(|finding| finding.verdict == Verdict::Failure) {
        bail!("this machine cannot run sessions yet; the FIX lines say what to do");
    }
    Ok(())
}

fn word(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Ok => "OK",
        Verdict::Warning => "WARN",
        Verdict::Failure => "FAIL",
    }
}

fn ok(what: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Ok, what: what.into(), fix: None }
}

fn warning(what: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Warning, what: what.into(), fix: Some(fix.into()) }
}

fn failure(what: impl Into<String>, fix: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Failure, what: what.into(), fix: Some(fix.into()) }
}

/// What the operator of the controller that ran last on this state folder decided against terms.
fn overridden_terms(state: &Path) -> Vec<Finding> {
    let file = std::fs::read(state.join("cli.json")).unwrap_or_default();
    let file: Value = serde_json::from_slice(&file).unwrap_or_default();
    let providers = file[OVERRIDES].as_array().cloned().unwrap_or_default();
    let finding = |id: &Value| {
        let id = id.as_str().unwrap_or_default();
        warning(
            format!(
                "the controller was started with --allow-vault-custody {id}: this host may hold its logins, although its terms let nobody but the person"
            ),
            format!("start it without, and have people call `anteroom credentials receive {id}`"),
        )
    };
    providers.iter().map(finding).collect()
}

fn qemu() -> Finding {
    match anteroom_vm::qemu_version() {
        Some(version) => ok(version),
        None => failure(
            "QEMU is not installed",
            "apt-get install --no-install-recommends qemu-system-x86",
        ),
    }
}

fn kvm() -> Finding {
    match probe_kvm() {
        KvmProbe::Usable { mips } => {
            ok(format!("KVM works: {mips} million guest instructions a second"))
        }
        KvmProbe::Unusable { why } => warning(
            format!("KVM cannot be used: {why}; sessions are emulated, slow and weakly isolated"),
            "use a machine with hardware virtualisation, and let this user open /dev/kvm (group kvm)",
        ),
    }
}

/// What sessions can be held with, each part tried.
fn confinement() -> Vec<Finding> {
    let offered = Offered::here(anteroom_vm::qemu_program().as_deref());
    let root = "start the controller as root; each session then gives root up";
    let container =
        "start the controller outside of a container, or in one with CAP_SYS_ADMIN and CAP_MKNOD";
    let cgroups = "mount cgroup v2 (or v1's memory, pids and cpu) writable at /sys/fs/cgroup";
    let kernel = "use a kernel of 5.13 or later with landlock in its list of lsm=";
    let parts = [
        ("each session runs as a user of its own", &offered.users, root),
        ("each VM has a file tree and namespaces of its own", &offered.namespaces, container),
        ("each VM has a cgroup of its own", &offered.cgroups, cgroups),
        ("what a session's runner opens is held by Landlock", &offered.landlock, kernel),
    ];
    let finding = |(what, offer, fix): (&str, &Offer, &str)| match offer {
        Offer::Given {} => ok(what),
        Offer::Refused { why } => {
            let fix = if nix::unistd::geteuid().is_root() || fix == kernel { fix } else { root };
            warning(format!("this machine does not offer that {what}: {why}"), fix)
        }
    };
    parts.into_iter().map(finding).collect()
}

fn image_tools() -> Finding {
    let missing = anteroom_image::missing_tools();
    if missing.is_empty() {
        return ok("the tools to build golden images are installed");
    }
    let packages = missing.join(" ");
    warning(
        format!("golden images cannot be built: {packages} missing"),
        format!("apt-get install {packages}"),
    )
}

fn image(dir: &Path) -> Finding {
    match anteroom_image::list(dir).len() {
        0 => failure(
            format!("there is no golden image in {}", dir.display()),
            "anteroom image build images/demo.toml",
        ),
        count => ok(format!("{count} golden image(s) in {}", dir.display())),
    }
}

/// One line an image that `serve` would refuse on this machine.
fn unverified(dir: &Path) -> Vec<Finding> {
    let usual = AcceleratorChoice::Auto.resolve().ok().and_then(|chosen| usual(chosen).ok());
    let Some(usual) = usual else { return Vec::new() };
    let names: BTreeSet<String> =
        anteroom_image::list(dir).into_iter().map(|image| image.name).collect();
    let refusal = |name: &String| {
        let image = anteroom_image::find(dir, name).ok()?;
        let refusal = anteroom_image::verified_for(&image.dir, &usual.processor).err()?;
        Some(warning(refusal.to_string(), format!("anteroom image verify {name}")))
    };
    names.iter().filter_map(refusal).collect()
}

fn agent() -> Finding {
    match embedded::agent() {
        Ok(agent) => ok(format!("this build carries the guest agent ({} KiB)", agent.len() / 1024)),
        Err(error) => failure(error.to_string(), "cargo xtask build"),
    }
}

fn memory() -> Finding {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("MemAvailable:")?
                .trim()
                .strip_suffix("kB")?
                .trim()
                .parse::<u64>()
                .ok()
        })
        .unwrap_or(0)
        / 1024;
    let sessions = available / 2560;
    if sessions == 0 {
        return failure(
            format!("{available} MiB of memory are free, a session needs 2560"),
            "free some memory",
        );
    }
    ok(format!("{available} MiB of memory are free: room for {sessions} session(s)"))
}

fn disk(dir: &Path) -> Finding {
    let existing = dir.ancestors().find(|path| path.exists()).unwrap_or(dir);
    match nix::sys::statvfs::statvfs(existing) {
        Ok(stats) => {
            let free = stats.blocks_available() * stats.fragment_size() / 1024 / 1024;
            let what = format!("{free} MiB are free for state in {}", dir.display());
            if free < 2048 {
                warning(what, "free some disk: an image build needs 2 GiB")
            } else {
                ok(what)
            }
        }
        Err(error) => warning(
            format!("asking for the free disk of {} failed: {error}", existing.display()),
            "check the disk",
        ),
    }
}
