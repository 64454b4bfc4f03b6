//! All programs and libraries of an image, read without being run.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anteroom_cpu::CpuProfile;
use anteroom_crash::elf::{self, Survey};
use tokio::sync::oneshot;

/// What was read of an image.
pub struct Surveyed {
    /// ELF files for x86-64.
    pub elf_files: usize,
    /// Those that hold something beyond the processor, by path.
    pub found: Vec<(String, Survey)>,
}

/// An image's programs were not read.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    #[error("creating a folder in {} failed", dir.display())]
    Folder {
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("running fsck.erofs failed; it is in Debian's package erofs-utils")]
    NotRun(#[source] std::io::Error),
    #[error("fsck.erofs did not unpack {}: it {status}", root.display())]
    NotUnpacked { root: PathBuf, status: ExitStatus },
    #[error("the guest reported no processor")]
    NoProcessor,
    #[error("the task that reads them failed")]
    Task(#[from] tokio::task::JoinError),
}

/// Folders with an image's files; the process' number follows.
pub const UNPACKED: &str = "anteroom-inventory-";

/// Largest depth of folders that is followed.
const MAX_DEPTH: usize = 64;

/// Threads that read.
const THREADS: usize = 2;

/// How often is looked whether the unpacking is done.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A reading that goes on; it stops soon after this is dropped.
pub struct Reading {
    task: tokio::task::JoinHandle<Result<Surveyed, InventoryError>>,
    stop: Arc<AtomicBool>,
}

/// Unpacks the image's root below `work_dir`, and as soon as the processor is known reads its
/// programs against it. Without a processor nothing is read.
pub fn start(
    root: PathBuf,
    work_dir: PathBuf,
    processor: oneshot::Receiver<CpuProfile>,
) -> Reading {
    let stop = Arc::new(AtomicBool::new(false));
    let reported = stop.clone();
    let task = tokio::task::spawn_blocking(move || {
        let folder = tempfile::Builder::new()
            .prefix(&format!("{UNPACKED}{}-", std::process::id()))
            .tempdir_in(&work_dir)
            .map_err(|source| InventoryError::Folder { dir: work_dir.clone(), source })?;
        let tree = folder.path().join("root");
        unpack(&root, &tree, &reported)?;
        let cpu = processor.blocking_recv().map_err(|_| InventoryError::NoProcessor)?;
        Ok(survey(&tree, &cpu, &reported))
    });
    Reading { task, stop }
}

impl Reading {
    /// What was read.
    ///
    /// # Errors
    /// When the image could not be unpacked or no processor was reported.
    pub async fn finished(&mut self) -> Result<Surveyed, InventoryError> {
        (&mut self.task).await?
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn unpack(root: &Path, tree: &Path, stop: &AtomicBool) -> Result<(), InventoryError> {
    let mut child = Command::new("nice")
        .arg("fsck.erofs")
        .arg(format!("--extract={}", tree.display()))
        .arg("--no-preserve")
        .arg(root)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(InventoryError::NotRun)?;
    let status = loop {
        if let Some(status) = child.try_wait().map_err(InventoryError::NotRun)? {
            break status;
        }
        if stop.load(Ordering::Relaxed) {
            let _ = child.kill();
        }
        std::thread::sleep(LOOK_EVERY);
    };
    // Its exit code also complains of what cannot be made here, such as device nodes.
    if status.code().is_none() || !tree.is_dir() {
        return Err(InventoryError::NotUnpacked { root: root.to_owned(), status });
    }
    Ok(())
}

fn survey(tree: &Path, cpu: &CpuProfile, stop: &AtomicBool) -> Surveyed {
    let mut files = Vec::new();
    list(tree, 0, &mut files);
    let (next, elf_files) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let found = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(path) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let Some(survey) = read(path, cpu) else { continue };
                    elf_files.fetch_add(1, Ordering::Relaxed);
                    if survey.beyond.is_empty() && survey.level_lacking.is_none() {
                        continue;
                    }
                    let inside = path.strip_prefix(tree).unwrap_or(path);
                    let inside = format!("/{}", inside.display());
                    found.lock().unwrap_or_else(PoisonError::into_inner).push((inside, survey));
                }
            });
        }
    });
    let mut found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    found.sort_by(|one, other| one.0.cmp(&other.0));
    Surveyed { elf_files: elf_files.into_inner(), found }
}

/// Regular files; links are not followed, so none is read twice and none leads outside.
fn list(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth < MAX_DEPTH => list(&entry.path(), depth + 1, files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

/// What a file holds, if it is a sound ELF file for x86-64.
fn read(path: &Path, cpu: &CpuProfile) -> Option<Survey> {
    use std::io::Read;
    let mut file = std::fs::File::open(path).ok()?;
    let mut magic = [0; 4];
    file.read_exact(&mut magic).ok()?;
    if magic != *b"\x7fELF" || file.metadata().ok()?.len() > elf::MAX_FILE {
        return None;
    }
    elf::survey(&std::fs::read(path).ok()?, cpu).ok()
}
