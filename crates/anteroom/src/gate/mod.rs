//! The image gate: boots an image under exactly one processor, brings everything in it to ready,
//! asks it what it can, reads all its programs, and records what came of it.
//!
//! [`guest`] boots the room and listens to it, [`inquiry`] asks it, [`inventory`] reads the image's
//! programs on the host meanwhile, [`judge`] (pure) makes components and findings of both, [`page`] a
//! report in HTML.

mod findings;
mod guest;
mod inquiry;
mod inventory;
mod judge;
mod page;
pub mod processor;
mod seen;

use std::path::{Path, PathBuf};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anteroom_image::{Image, Verification};
use anyhow::{Context, Result};

pub use inventory::UNPACKED;
pub use page::{html, reached};
use processor::Chosen;

/// What a gate needs beside the image.
pub struct Gate<'a> {
    /// The image, checked.
    pub image: &'a Image,
    /// The processor.
    pub cpu: Chosen,
    /// Guest memory in MiB, as sessions have it.
    pub memory_mib: u32,
    /// Guest processors.
    pub vcpus: u8,
    /// Where the image's files are unpacked for a while.
    pub work_dir: PathBuf,
    /// Where console and services' logs of the room go.
    pub log_dir: PathBuf,
    /// Told where the gate is, in a few words.
    pub progress: &'a dyn Fn(&str),
}

/// What came of it.
pub struct Proven {
    /// The record, not stored yet.
    pub record: Verification,
    /// The desktop as a PNG, if one was seen.
    pub picture: Option<Vec<u8>>,
}

impl Gate<'_> {
    /// Proves the image; takes a minute or two. A room that fails is a result and no error.
    ///
    /// # Errors
    /// When the room could not even be begun, or asked to stop.
    pub async fn prove(&self) -> Result<Proven> {
        let began = Instant::now();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let manifest = &self.image.manifest;
        let mut record =
            Verification::new(manifest, self.cpu.processor.clone(), since_epoch.as_secs());
        record.not_emulated = self.cpu.not_emulated.clone();
        record.qemu_version = anteroom_vm::qemu_version().unwrap_or_default();
        let _hold = self.image.hold()?;
        // On another thread: it reads a gigabyte while the room boots.
        let (processor, known) = tokio::sync::oneshot::channel();
        let mut reading = inventory::start(self.image.root(), self.work_dir.clone(), known);
        let seen = guest::visit(self, processor).await?;
        (self.progress)("reading the image's programs");
        let surveyed = reading.finished().await;
        let judged = judge::judge(&self.image.manifest, &self.cpu, &seen, surveyed, busy());
        record.components = judged.components;
        record.inventory = judged.inventory;
        record.verdict = judged.verdict;
        record.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
        Ok(Proven { record, picture: seen.picture })
    }
}

/// How many processes wanted each processor of this machine in the last five minutes (proc(5),
/// loadavg): an emulated room on a busy machine may be too slow for what is in it.
fn busy() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let load: f64 = text.split(' ').nth(1).and_then(|load| load.parse().ok()).unwrap_or(0.0);
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    #[expect(clippy::cast_precision_loss, reason = "a count of processors")]
    let each = load / processors as f64;
    each
}

/// Writes the report in HTML beside the record.
///
/// # Errors
/// When it cannot be written.
pub fn write_page(proven: &Proven, image_dir: &Path) -> Result<PathBuf> {
    let path = image_dir.join(format!("{}.html", proven.record.file_stem()));
    std::fs::write(&path, html(&proven.record, proven.picture.as_deref()))
        .with_context(|| format!("writing {} failed", path.display()))?;
    Ok(path)
}
