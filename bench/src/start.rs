//! `cargo xtask bench start`: from the start call to a picture, from a template and cold, against the floor
//! of a VM that is restored by hand.

mod figures;
mod firecracker;
mod floor;
mod memory;
mod pages;
mod progress;
mod setting;
mod unchanged;
mod watched;

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};

use crate::provider::{OpenIdProvider, provider_file};
use figures::{median, median_ms, p99};
use setting::Setting;
use watched::Pool;
use xtask::build;

pub use firecracker::{Inside, run_inside};

/// How often to measure what.
#[derive(clap::Args)]
pub struct Options {
    /// Sign-ins from the template, in a row, each watched until what the guest itself shows.
    #[arg(long, default_value_t = 200)]
    cycles: usize,
    /// The same with a clone that waits for each.
    #[arg(long, default_value_t = 20)]
    waiting: usize,
    /// Whole sign-ins from the template, by an end user with a browser.
    #[arg(long, default_value_t = 10)]
    pages: usize,
    /// The same with VMs that are booted, to compare with.
    #[arg(long, default_value_t = 3)]
    cold: usize,
    /// Sign-ins at once whose memory is looked at.
    #[arg(long, default_value_t = 8)]
    together: usize,
    /// How long their pages have been drawn then, in seconds.
    #[arg(long, default_value_t = 60)]
    rest: u64,
    /// What boots the VMs: `qemu` or `firecracker`, which needs KVM.
    #[arg(long, default_value = "qemu")]
    driver: String,
    /// What executes guest code: `auto`, `kvm` or `tcg`.
    #[arg(long, default_value = "auto")]
    accelerator: String,
    /// Sign-ins from a template of Firecracker, beside those of QEMU; without KVM in a machine that QEMU
    /// emulates.
    #[arg(long, default_value_t = 20)]
    firecracker_cycles: usize,
}

impl Options {
    /// As `anteroom` takes them, without the driver.
    fn of_vms(&self) -> Vec<String> {
        let mut options = vec!["--accelerator".into(), self.accelerator.clone()];
        if self.accelerator != "auto" {
            // An image is verified for the processor that VMs usually have here.
            options.push("--allow-unverified-images".into());
        }
        options
    }
}

/// Measures; prints one JSON object as its last line.
pub fn bench(anteroom: &Path, options: &Options) -> Result<()> {
    let image = build::golden_image(anteroom, true)?.dir;
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let mut provider = OpenIdProvider::start(folder.path())?;
    let setting = Setting::new(
        anteroom,
        folder.path(),
        &options.driver,
        options.of_vms(),
        provider_file(&provider)?,
        &provider.authority_pem,
    )?;
    let mut figures = of_starts(&setting, options)?;
    provider.stop()?;
    drop(setting);
    figures["fc"] = match options.driver.as_str() {
        "qemu" => firecracker::measure(anteroom, &image, options.firecracker_cycles)?,
        // All figures are.
        _ => Value::Null,
    };
    println!("{figures}");
    Ok(())
}

fn of_starts(setting: &Setting, options: &Options) -> Result<Value> {
    let floor = floor::floors(&setting.template)?;
    let watched = watched::in_a_row(setting, Pool::Empty, options.cycles, Duration::MAX)?;
    let waited = watched::in_a_row(setting, Pool::Filled, options.waiting, Duration::MAX)?;
    let warm = pages::in_a_row(setting, &[], options.pages)?;
    let cold = pages::in_a_row(setting, &["--cold"], options.cold)?;
    let private_mib = match options.together {
        0 => None,
        count => Some(memory::together(setting, count, options.rest)?),
    };
    let made_for = &setting.template.report;
    Ok(json!({
        "driver": options.driver, "accelerator": floor::accelerator(&setting.template)?,
        "template_mib": made_for["bytes"].as_u64().unwrap_or_default() >> 20,
        "template_ms": made_for["tookMs"],
        "floor_ms": median(&floor.answered),
        "load_by_hand_ms": median_ms(&floor.load),
        "load_ms": median_ms(&watched.load),
        "own_share_p50_ms": median_ms(&watched.own_share),
        "link_p50_ms": median(&watched.link), "link_p99_ms": p99(&watched.link),
        "answered_p50_ms": median(&watched.answered),
        "connected_p50_ms": median(&watched.connected),
        "first_frame_p50_ms": median(&watched.first_frame),
        "first_frame_p99_ms": p99(&watched.first_frame),
        "live_frame_p50_ms": median(&watched.live_frame),
        "live_frame_p99_ms": p99(&watched.live_frame),
        "waiting": {
            "link_p50_ms": median(&waited.link),
            "own_share_p50_ms": median_ms(&waited.own_share),
            "first_frame_p50_ms": median(&waited.first_frame),
            "first_frame_p99_ms": p99(&waited.first_frame),
            "live_frame_p50_ms": median(&waited.live_frame),
            "live_frame_p99_ms": p99(&waited.live_frame),
            "private_mib": waited.private_mib.iter().max(),
            "cycles": options.waiting,
        },
        "page_p50_ms": median(&warm.page), "page_p99_ms": p99(&warm.page),
        "sealed_p50_ms": median(&warm.sealed),
        "browser_first_frame_p50_ms": median(&warm.first_frame),
        "cold_first_frame_ms": median(&cold.first_frame),
        "cold_page_ms": median(&cold.page),
        "private_mib": private_mib,
        "template_unchanged": setting.memory.unchanged(),
        "rss_drift_mib": watched.rss_drift_mib,
        "cycles": watched.count, "pages": options.pages,
        "failures": watched.failures + waited.failures + warm.failures + cold.failures
            + setting.memory.changes(),
        "leftovers": watched.leftovers + waited.leftovers + warm.leftovers + cold.leftovers,
    }))
}
