//! Sign-ins from a template of Firecracker, which needs KVM: on this machine, or in one that QEMU emulates.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anteroom_vm::{Installed, KvmProbe, probe_kvm};
use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::figures::{median, median_ms, p99};
use super::setting::Setting;
use super::{floor, watched};
use crate::kvm::provider_file_with;
use crate::nested;
use xtask::shell;

/// Of the emulated machine, in MiB: a template, the files that it is made of, and a VM.
const MEMORY_MIB: u64 = 10_240;

/// The emulated machine is given up after so many seconds: until its first start it needs some 7 minutes on
/// two cores that others use too.
const SECONDS: u64 = 1500;

/// After that long it begins no further start: figures of fewer are better than none.
const LONGEST: Duration = Duration::from_secs(480);

/// What the templates of the emulated machine may take: one, and the next while it is written.
const TEMPLATES: &str = "size=3g";

/// The file's name that the emulated machine brings out.
const FIGURES: &str = "start-with-firecracker.json";

/// A tool that waits: what comes after the first picture is not measured.
const TOOL: &str = "exec sleep 600";

/// Measures with Firecracker on the emulated machine itself; hidden.
#[derive(clap::Args)]
pub struct Inside {
    /// The host binary.
    anteroom: PathBuf,
    /// The image's folder, in which templates are made.
    image: PathBuf,
    /// How many sign-ins.
    cycles: usize,
    /// Where the figures are written to.
    #[arg(long)]
    out: PathBuf,
}

/// The figures; null, with a line that says why, where there are none.
pub fn measure(anteroom: &Path, image: &Path, cycles: usize) -> Result<Value> {
    if cycles == 0 {
        return Ok(Value::Null);
    }
    match Installed::find() {
        Ok(Installed { version, path }) => {
            eprintln!("Firecracker {version} at {}", path.display());
        }
        Err(error) => {
            eprintln!("Skipped: sign-ins with Firecracker. {error}");
            return Ok(Value::Null);
        }
    }
    match probe_kvm() {
        KvmProbe::Usable { .. } => with_kvm(anteroom, image, cycles, Duration::MAX),
        KvmProbe::Unusable { why } => {
            eprintln!("{why}: Firecracker is measured in a machine that QEMU emulates.");
            nested(anteroom, image, cycles)
        }
    }
}

/// Measures on this machine, which QEMU emulates.
pub fn run_inside(options: &Inside) -> Result<()> {
    // On its disk they would be read-only, or as large as all that may be written.
    let templates = options.image.join(anteroom_template::FOLDER);
    std::fs::create_dir_all(&templates).context("making the folder of templates failed")?;
    let mut mount = Command::new("mount");
    mount.args(["-t", "tmpfs", "-o", TEMPLATES, "tmpfs"]).arg(&templates);
    shell::run(&mut mount)?;
    let figures = with_kvm(&options.anteroom, &options.image, options.cycles, LONGEST)?;
    std::fs::write(&options.out, figures.to_string())
        .with_context(|| format!("writing the figures to {} failed", options.out.display()))
}

fn nested(anteroom: &Path, image: &Path, cycles: usize) -> Result<Value> {
    // The nested machine has these for itself.
    if ["/tmp", "/run"].iter().any(|folder| anteroom.starts_with(folder)) {
        let place = anteroom.display();
        eprintln!("Skipped: sign-ins with Firecracker, in whose machine {place} is not seen");
        return Ok(Value::Null);
    }
    let out = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let inside: OsString = Path::new(nested::OUT).join(FIGURES).into();
    let command: Vec<OsString> = vec![
        std::env::current_exe().context("finding this program failed")?.into(),
        "start-with-kvm".into(),
        anteroom.into(),
        image.into(),
        cycles.to_string().into(),
        "--out".into(),
        inside,
    ];
    nested::succeed(&nested::Options {
        memory: MEMORY_MIB,
        seconds: SECONDS,
        out: Some(out.path().to_owned()),
        ..nested::Options::of(command, vec![image.to_owned()])
    })?;
    let figures = std::fs::read(out.path().join(FIGURES))
        .context("the emulated machine brought no figures out")?;
    Ok(serde_json::from_slice(&figures)?)
}

/// Measures on this machine, which has KVM.
fn with_kvm(anteroom: &Path, image: &Path, cycles: usize, longest: Duration) -> Result<Value> {
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let images = image.ancestors().nth(2).context("an image is in a folder of images")?;
    let images = images.to_str().context("the images' folder has no name in UTF-8")?;
    // The image may be verified for the processor of emulated VMs.
    let of_vms = ["--accelerator", "kvm", "--allow-unverified-images", "--images-dir", images];
    let setting = Setting::new(
        anteroom,
        folder.path(),
        "firecracker",
        of_vms.map(str::to_owned).to_vec(),
        provider_file_with(TOOL)?,
        "",
    )?;
    let floor = floor::floors(&setting.template)?;
    let row = watched::in_a_row(&setting, watched::Pool::Empty, cycles, longest)?;
    Ok(json!({
        "floor_ms": median(&floor.answered),
        "load_by_hand_ms": median_ms(&floor.load),
        "load_ms": median_ms(&row.load),
        "own_share_p50_ms": median_ms(&row.own_share),
        "link_p50_ms": median(&row.link),
        "answered_p50_ms": median(&row.answered),
        "connected_p50_ms": median(&row.connected),
        "first_frame_p50_ms": median(&row.first_frame),
        "live_frame_p50_ms": median(&row.live_frame),
        "live_frame_p99_ms": p99(&row.live_frame),
        "private_mib": row.private_mib.iter().max(),
        "cycles": row.count,
        "template_unchanged": setting.memory.unchanged(),
        "failures": row.failures + setting.memory.changes(),
        "leftovers": row.leftovers,
    }))
}
