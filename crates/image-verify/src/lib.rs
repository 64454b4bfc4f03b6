//! The image verifier: boots an image under exactly one processor, brings everything in it to ready,
//! asks it what it can, reads all its programs, and records what came of it.
//!
//! [`guest`] boots the image and listens to it, [`inquiry`] asks it, [`inventory`] reads the image's
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

use anteroom_guest_protocol::ScreenSize;
use anteroom_guest_session::Vmm;
use anteroom_image::{Image, ImageError, Verification};
use anteroom_session::{DriverKind, EndReason};
use anteroom_vm::RemoveError;

pub use inquiry::photograph;
pub use inventory::UNPACKED;
pub use page::{html, reached};
use processor::Chosen;

/// An image, and what its verification takes.
pub struct Verifier<'a> {
    /// The image, checked.
    pub image: &'a Image,
    /// The agent's program, the VM's first process.
    pub agent: &'a [u8],
    /// The processor.
    pub cpu: Chosen,
    /// What boots it, given that processor.
    pub vmm: Vmm,
    /// That, with its version.
    pub vmm_version: String,
    /// Guest memory in MiB, as sessions have it.
    pub memory_mib: u32,
    /// Guest processors.
    pub vcpus: u8,
    /// Desktop size, as sessions have it.
    pub screen: ScreenSize,
    /// Where the image's files are unpacked for a while.
    pub work_dir: PathBuf,
    /// Where console and services' logs of the VM go.
    pub log_dir: PathBuf,
    /// Gets each step, in a few words.
    pub progress: &'a dyn Fn(&str),
}

/// An image could not be verified.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    /// The image cannot be used.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// Its VM was not started.
    #[error("{}", reason.sentence(*driver))]
    NotStarted {
        /// What was to boot it.
        driver: DriverKind,
        /// Why it did not.
        reason: EndReason,
    },
    /// What the VM left on this machine cannot be removed.
    #[error(transparent)]
    NotRemoved(#[from] RemoveError),
    /// A log or report cannot be written.
    #[error("writing {} failed", path.display())]
    Write {
        /// The file, by its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

/// What came of it.
pub struct Verified {
    /// The record, not stored yet.
    pub record: Verification,
    /// The desktop as a PNG, if one was seen.
    pub picture: Option<Vec<u8>>,
}

impl Verifier<'_> {
    /// Verifies the image; takes a minute or two. A VM that fails is a result and no error.
    ///
    /// # Errors
    /// When the VM could not be started.
    pub async fn verify(&self) -> Result<Verified, VerifyError> {
        let began = Instant::now();
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let manifest = &self.image.manifest;
        let mut record =
            Verification::new(manifest, self.cpu.processor.clone(), since_epoch.as_secs());
        record.not_emulated = self.cpu.not_emulated.clone();
        record.vmm = self.vmm_version.clone();
        let _hold = self.image.hold()?;
        // On another thread: it reads a gigabyte while the VM boots.
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
        Ok(Verified { record, picture: seen.picture })
    }
}

/// How many processes wanted each processor of this machine in the last five minutes (proc(5),
/// loadavg): an emulated VM on a busy machine may be too slow for what is in it.
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
pub fn write_page(verified: &Verified, image_dir: &Path) -> Result<PathBuf, VerifyError> {
    let path = image_dir.join(format!("{}.html", verified.record.file_stem()));
    std::fs::write(&path, html(&verified.record, verified.picture.as_deref()))
        .map_err(|source| VerifyError::Write { path: path.clone(), source })?;
    Ok(path)
}
