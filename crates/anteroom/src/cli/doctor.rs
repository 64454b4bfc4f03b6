//! `anteroom doctor`: what this machine can do.

mod hardware;
mod vm;

use std::collections::BTreeSet;
use std::path::Path;

use anteroom_confine::{HostCapabilities, HostCapability};
use anteroom_controller::OVERRIDES;
use anteroom_image::BUILD_MIB;
use anteroom_private as private;
use anteroom_vm::{AcceleratorChoice, Qemu};
use anyhow::{Result, bail};
use nix::unistd::{AccessFlags, eaccess};
use serde_json::{Value, json};

use super::folders::{ImagesDir, StateDir};
use super::own_controller;
use super::sessions::show;
use crate::counted::counted;
use crate::embedded;
use anteroom_image_verify::processor::usual;

/// What `doctor` takes.
#[derive(clap::Args)]
pub struct Options {
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    images: ImagesDir,
    #[command(flatten)]
    state: StateDir,
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

/// Checks everything, and fails when something required is missing.
pub fn run(options: &Options) -> Result<()> {
    let images = options.images.path();
    let state = options.state.path();
    let mut findings = vm::findings();
    findings.extend([image_tools(), image(&images), agent(), memory(), state_folder(&state)]);
    findings.extend(hardware::findings());
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
        bail!("this machine cannot run sessions yet; see the FIX lines");
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

/// Where the operator of the last controller on this state folder overrides terms.
fn overridden_terms(state: &Path) -> Vec<Finding> {
    let file = std::fs::read(state.join(own_controller::FILE)).unwrap_or_default();
    let file: Value = serde_json::from_slice(&file).unwrap_or_default();
    let providers = file[OVERRIDES].as_array().cloned().unwrap_or_default();
    let finding = |id: &Value| {
        let id = id.as_str().unwrap_or_default();
        warning(
            format!(
                "the controller was started with --allow-vault-custody {id}, so its vault may hold credentials of {id}, although the terms of {id} allow only the end user to hold them"
            ),
            format!(
                "start it without that option, and have end users run `anteroom credentials receive {id}`"
            ),
        )
    };
    providers.iter().map(finding).collect()
}

/// How sessions can be isolated, each part tried.
fn confinement() -> Vec<Finding> {
    let host = HostCapabilities::here(Qemu::program().as_deref());
    let root = "start the controller as root; each session then drops root";
    let container =
        "start the controller outside a container, or in one with CAP_SYS_ADMIN and CAP_MKNOD";
    let cgroups = "mount cgroup v2 (or v1's memory, pids and cpu) writable at /sys/fs/cgroup";
    let kernel = "use Linux 5.13 or later, with landlock in the kernel's lsm= parameter";
    let parts = [
        (
            "each session runs as its own user",
            "sessions do not run as users of their own",
            &host.users,
            root,
        ),
        (
            "each VM has its own file tree and namespaces",
            "VMs do not have their own file tree and namespaces",
            &host.namespaces,
            container,
        ),
        ("each VM has its own cgroup", "VMs do not have their own cgroups", &host.cgroups, cgroups),
        (
            "Landlock limits which files a session's runner can open",
            "nothing but its user's permissions limits which files a session's runner can open",
            &host.landlock,
            kernel,
        ),
    ];
    let finding = |(given, refused, offer, fix): (&str, &str, &HostCapability, &str)| match offer {
        HostCapability::Available {} => ok(given),
        HostCapability::Unavailable { why } => {
            let fix = if nix::unistd::geteuid().is_root() || fix == kernel { fix } else { root };
            warning(format!("{refused}: {why}"), fix)
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
        format!("building golden images requires these packages: {packages}"),
        format!("apt-get install {packages}"),
    )
}

fn image(dir: &Path) -> Finding {
    match anteroom_image::list(dir).len() {
        0 => failure(
            format!("there is no golden image in {}", dir.display()),
            "anteroom image build images/demo.toml",
        ),
        count => {
            let images = counted(count, "golden image", "golden images");
            ok(format!("{images} in {}", dir.display()))
        }
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
        let profile = &usual.processor.profile;
        let fix = format!("anteroom image verify {name} --cpu {profile}");
        Some(warning(refusal.to_string(), fix))
    };
    names.iter().filter_map(refusal).collect()
}

fn agent() -> Finding {
    match embedded::agent() {
        Ok(agent) => {
            ok(format!("this build includes the guest agent ({} KiB)", agent.len() / 1024))
        }
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
            format!("{available} MiB of memory is free; a session needs 2560 MiB"),
            "free some memory, or use a machine with more",
        );
    }
    let sessions = counted(sessions, "session", "sessions");
    ok(format!(
        "{available} MiB of memory is free, enough for {sessions} (clones of a template take less)"
    ))
}

/// Whether `serve` could store its state there, and how much.
fn state_folder(dir: &Path) -> Finding {
    let refused = |why: String| {
        let fix = "make the folder usable, or choose another with --state-dir";
        failure(format!("the state folder {} cannot be used: {why}", dir.display()), fix)
    };
    if dir.exists()
        && let Err(error) = private::check_state(dir)
    {
        return refused(format!("{error:#}"));
    }
    // What `serve` makes it in, where it is not there yet.
    let Ok(whole) = std::path::absolute(dir) else { return refused("its path is empty".into()) };
    let existing = whole.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let shown = existing.display();
    if !existing.is_dir() {
        return refused(format!("{shown} is not a folder"));
    }
    if let Err(error) = eaccess(existing, AccessFlags::W_OK | AccessFlags::X_OK) {
        return refused(format!("cannot write to {shown}: {}", error.desc()));
    }
    match anteroom_image::free_mib(existing) {
        Ok(free) => {
            let will = if existing == whole { "can be used" } else { "can be created" };
            let what = format!(
                "the state folder {} {will}; {free} MiB of disk space is free",
                dir.display()
            );
            if free < BUILD_MIB {
                let fix = format!("free some disk space: an image build needs {BUILD_MIB} MiB");
                warning(what, fix)
            } else {
                ok(what)
            }
        }
        Err(error) => warning(
            format!("cannot determine the free disk space of {shown}: {error}"),
            "check that the disk is mounted and works",
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_state_folder_that_cannot_be_is_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let reported = |path: &Path| {
            let finding = state_folder(path);
            (finding.verdict == Verdict::Failure, finding.what)
        };
        let state = folder.path().join("a/state");
        let (failed, what) = reported(&state);
        assert!(!failed && what.contains("state can be created; "), "{what}");

        std::fs::create_dir_all(&state).unwrap();
        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
        let (failed, what) = reported(&state);
        assert!(!failed && what.contains("state can be used; "), "{what}");

        std::fs::set_permissions(&state, PermissionsExt::from_mode(0o777)).unwrap();
        let (failed, what) = reported(&state);
        assert!(failed && what.contains("others can write to the folder"), "{what}");

        let file = folder.path().join("file");
        std::fs::write(&file, "").unwrap();
        let (failed, what) = reported(&file.join("state"));
        assert!(failed && what.contains("file is not a folder"), "{what}");

        // Nobody writes there, root neither.
        let (failed, what) = reported(Path::new("/proc/1/anteroom"));
        assert!(failed && what.contains("cannot be used: cannot write to /proc/1"), "{what}");
    }
}
