//! From a recipe to an image.
//!
//! Steps: packages (mmdebstrap) · root (mkfs.erofs) · kernel and initramfs · manifest · rename into
//! place. All happens in a temporary folder beside the place, so that a build that fails or is
//! interrupted leaves nothing, and one that succeeds appears at once.

mod apt;
mod archives;
mod debian;
mod registries;
mod tools;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::fcntl::{Flock, FlockArg};

use crate::hash::sha256_of;
use crate::kernel::{self, KernelError};
use crate::manifest::{FileRecord, Manifest, PackageRecord};
use crate::recipe::{Recipe, RecipeError};
use crate::store::{KERNEL, MANIFEST, MODULES, ROOT};

pub use tools::missing_tools;

/// What a build needs beside the recipe.
#[derive(Clone, Copy, Debug)]
pub struct BuildOptions<'a> {
    /// Where images are.
    pub images_dir: &'a Path,
    /// Where fetched archives are kept.
    pub cache_dir: &'a Path,
    /// Builds even if the image exists.
    pub force: bool,
}

/// Where a build is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BuildStep {
    /// mmdebstrap downloads and installs.
    Packages,
    /// The root file system is packed.
    Root,
    /// Kernel and initramfs are made.
    Kernel,
    /// Everything is hashed.
    Manifest,
}

impl BuildStep {
    /// For an end user.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Packages => "packages",
            Self::Root => "root file system",
            Self::Kernel => "kernel",
            Self::Manifest => "manifest",
        }
    }
}

/// Receives a build's progress: the step, the part of the whole (0 to 1), and what happens.
pub trait Progress {
    /// Called often.
    fn at(&self, step: BuildStep, part: f32, detail: &str);
}

/// What a build gave.
#[derive(Clone, Debug)]
pub struct Built {
    /// The image's folder.
    pub dir: PathBuf,
    /// Its manifest.
    pub manifest: Manifest,
    /// Whether it was there already.
    pub cached: bool,
}

/// What a build takes of a disk, in MiB.
pub const BUILD_MIB: u64 = 2048;

/// A build that failed; nothing is left of it but its log.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The recipe cannot be used.
    #[error(transparent)]
    Recipe(#[from] RecipeError),
    /// Programs are missing.
    #[error("building an image needs programs that are not installed; install them with `apt-get install {}`", .0.join(" "))]
    MissingTools(Vec<&'static str>),
    /// The disk would be full before the image is there; apt has been seen to wait for ever then.
    #[error(
        "building an image needs {BUILD_MIB} MiB of disk space, and {} has {free_mib} MiB; free some, or choose another folder with --images-dir",
        folder.display()
    )]
    DiskSpace {
        /// Where images are.
        folder: PathBuf,
        /// What is free there, in MiB.
        free_mib: u64,
    },
    /// Another build of this image runs.
    #[error("another build of the image {name} is running")]
    Busy {
        /// The image.
        name: String,
    },
    /// A program failed.
    #[error("{program} failed ({status}); its last lines, of {}:\n{last_lines}", log.display())]
    Program {
        /// The program, as it was started.
        program: String,
        /// How it ended.
        status: String,
        /// The whole output.
        log: PathBuf,
        /// The end of it.
        last_lines: String,
    },
    /// The kernel package cannot be used.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// Something of the operating system failed.
    #[error("{operation} failed")]
    System {
        /// What was tried.
        operation: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This machine's apt has no archive of the suite.
    #[error(
        "this machine's apt has no enabled source for Debian {suite}; add one to /etc/apt/sources.list.d, or set mirror = \"…\" in the recipe"
    )]
    NoSource {
        /// Debian's suite, such as `trixie`.
        suite: String,
    },
    /// A package cannot be fetched from where this machine's client of its registry is set to.
    #[error(
        "{client} cannot fetch {package} from its configured source on this machine (see `{reported_by}`); its last output: {last_lines}"
    )]
    Package {
        /// npm or pip.
        client: &'static str,
        /// The command that shows the configured source.
        reported_by: &'static str,
        /// The package, by its name.
        package: String,
        /// What it said at the end.
        last_lines: String,
    },
    /// A package is not the one that the recipe means.
    #[error(
        "the npm package {package} has the integrity {found} from this machine's npm registry, but the recipe says {expected}; use the pinned version, or review the change and update the recipe"
    )]
    OtherPackage {
        /// The package, by its name.
        package: String,
        /// As the recipe has it.
        expected: String,
        /// As it is.
        found: String,
    },
    /// An archive cannot be fetched.
    #[error("fetching {url} failed")]
    Download {
        /// From where.
        url: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An archive is not the one that the recipe means.
    #[error(
        "the archive {url} has the SHA-256 {found}, but the recipe says {expected}; use the pinned version, or review the change and update the recipe"
    )]
    OtherArchive {
        /// From where.
        url: String,
        /// As the recipe has it.
        expected: String,
        /// As it is.
        found: String,
    },
    /// Asked to stop.
    #[error("the build was interrupted; no image was created")]
    Interrupted,
}

/// mmdebstrap splits its built-in commands like a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', "'\\''"))
}

fn system(operation: impl Into<String>) -> impl FnOnce(io::Error) -> BuildError {
    move |source| BuildError::System { operation: operation.into(), source }
}

/// Builds the image of `recipe`, unless it is there. Blocks for minutes; `cancel` ends it within a
/// moment.
///
/// # Errors
/// See [`BuildError`].
pub fn build(
    recipe: &Recipe,
    options: BuildOptions<'_>,
    progress: &dyn Progress,
    cancel: &AtomicBool,
) -> Result<Built, BuildError> {
    let digest = recipe.digest()?;
    let parent = options.images_dir.join(&recipe.name);
    let dir = parent.join(&digest);
    if !options.force
        && let Some(manifest) = existing(&dir)
    {
        return Ok(Built { dir, manifest, cached: true });
    }
    let missing = tools::missing_for(recipe);
    if !missing.is_empty() {
        return Err(BuildError::MissingTools(missing));
    }
    fs::create_dir_all(&parent).map_err(system(format!("creating {}", parent.display())))?;
    let _lock = lock(&parent, &recipe.name)?;
    // While waiting for nothing: who had the lock before may have built it.
    if !options.force
        && let Some(manifest) = existing(&dir)
    {
        return Ok(Built { dir, manifest, cached: true });
    }
    sweep(&parent);
    check_disk_space(&parent)?;
    let temporary = tempfile::Builder::new()
        .prefix(".building-")
        .tempdir_in(&parent)
        .map_err(system(format!("creating a folder in {}", parent.display())))?;
    let log = parent.join(format!("{digest}.build.log"));
    let _ = fs::remove_file(&log);
    let job = Job {
        recipe,
        digest: &digest,
        folder: temporary.path(),
        log: &log,
        cache_dir: options.cache_dir,
        progress,
        cancel,
    };
    let manifest = job.run().inspect_err(|error| {
        if matches!(error, BuildError::Interrupted) {
            let _ = fs::remove_file(&log);
        }
    })?;
    publish(temporary.path(), &dir)
        .map_err(system(format!("moving the image to {}", dir.display())))?;
    Ok(Built { dir, manifest, cached: false })
}

/// What is free of the disk that a folder is on, in MiB.
///
/// # Errors
/// When the disk does not say.
pub fn free_mib(folder: &Path) -> io::Result<u64> {
    let stats = nix::sys::statvfs::statvfs(folder)?;
    Ok((stats.blocks_available() * stats.fragment_size()) >> 20)
}

fn check_disk_space(folder: &Path) -> Result<(), BuildError> {
    let free_mib = free_mib(folder)
        .map_err(system(format!("asking for the disk space of {}", folder.display())))?;
    if free_mib < BUILD_MIB {
        return Err(BuildError::DiskSpace { folder: folder.to_path_buf(), free_mib });
    }
    Ok(())
}

fn existing(dir: &Path) -> Option<Manifest> {
    serde_json::from_slice(&fs::read(dir.join(MANIFEST)).ok()?).ok()
}

fn lock(parent: &Path, name: &str) -> Result<Flock<File>, BuildError> {
    let path = parent.join(".lock");
    let file = File::create(&path).map_err(system(format!("creating {}", path.display())))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
        .map_err(|_| BuildError::Busy { name: name.to_owned() })
}

/// Removes what a killed build left. The lock is held, so none of it is in use.
fn sweep(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        if entry.file_name().to_string_lossy().starts_with(".building-") {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Makes the files durable, then visible under their name.
fn publish(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        File::open(entry?.path())?.sync_all()?;
    }
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    fs::rename(from, to)?;
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    if let Some(parent) = to.parent() {
        File::open(parent)?.sync_all()?;
    }
    Ok(())
}

/// One build.
struct Job<'a> {
    recipe: &'a Recipe,
    digest: &'a str,
    folder: &'a Path,
    log: &'a Path,
    cache_dir: &'a Path,
    progress: &'a dyn Progress,
    cancel: &'a AtomicBool,
}

impl Job<'_> {
    fn run(&self) -> Result<Manifest, BuildError> {
        let mut build_ms = BTreeMap::new();
        let mut timed = |step: BuildStep, started: Instant| {
            build_ms.insert(
                step.name().to_owned(),
                u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX),
            );
        };
        // On the same disk, since the tree is large; removed before the image appears.
        let work = tempfile::Builder::new()
            .prefix(".work-")
            .tempdir_in(self.folder)
            .map_err(system("creating a working folder"))?;
        let apt = apt::of_recipe(self.recipe)?;

        let started = Instant::now();
        let archives = archives::fetch_all(self)?;
        let filled = registries::fill_all(self, work.path())?;
        let tree = debian::install(self, work.path(), &apt, &archives, &filled)?;
        timed(BuildStep::Packages, started);

        let started = Instant::now();
        self.progress.at(BuildStep::Root, 0.75, "packing");
        tree.pack(self, &self.folder.join(ROOT))?;
        timed(BuildStep::Root, started);

        let started = Instant::now();
        self.progress.at(BuildStep::Kernel, 0.88, "unpacking");
        let release = self.make_kernel(work.path())?;
        timed(BuildStep::Kernel, started);

        let status = fs::read_to_string(work.path().join(debian::STATUS))
            .map_err(system("reading the package list"))?;
        tree.remove(self)?;
        work.close().map_err(system("removing the working folder"))?;

        let started = Instant::now();
        self.progress.at(BuildStep::Manifest, 0.94, "hashing");
        let files = self.hash_files()?;
        timed(BuildStep::Manifest, started);
        let manifest = Manifest {
            format: 1,
            name: self.recipe.name.clone(),
            recipe_digest: self.digest.to_owned(),
            suite: self.recipe.suite.clone(),
            mirror: apt.shown(),
            kernel: release,
            created_at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            build_ms,
            files,
            packages: PackageRecord::from_dpkg_status(&status),
            services: self.recipe.services.clone(),
            programs: self.recipe.programs.clone(),
            verifications: Vec::new(),
        };
        let json = serde_json::to_vec_pretty(&manifest)
            .map_err(io::Error::from)
            .map_err(system("writing the manifest"))?;
        fs::write(self.folder.join(MANIFEST), json).map_err(system("writing the manifest"))?;
        self.progress.at(BuildStep::Manifest, 1.0, "done");
        Ok(manifest)
    }

    /// Kernel and initramfs out of the package that the installation fetched; the kernel's release.
    fn make_kernel(&self, work: &Path) -> Result<String, BuildError> {
        let package = work.join("kernel");
        debian::unpack(self, &work.join(debian::KERNEL_PACKAGE), &package)?;
        let boot = package.join("boot");
        let reading = || system(format!("reading {}", boot.display()));
        let image = fs::read_dir(&boot)
            .map_err(reading())?
            .flatten()
            .find_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                Some((entry.path(), name.strip_prefix("vmlinuz-")?.to_owned()))
            })
            .ok_or_else(|| reading()(io::ErrorKind::NotFound.into()))?;
        let (path, release) = image;
        let bz_image = fs::read(&path).map_err(system(format!("reading {}", path.display())))?;
        let vmlinux = kernel::vmlinux(&bz_image)?;
        // Debian 13 has /usr/lib only, Debian 12 /lib.
        let modules = [package.join("lib/modules"), package.join("usr/lib/modules")]
            .into_iter()
            .map(|folder| folder.join(&release))
            .find(|folder| folder.is_dir())
            .unwrap_or_else(|| package.join("lib/modules").join(&release));
        let initramfs = kernel::initramfs(&modules)?;
        for (name, content) in [(KERNEL, vmlinux), (MODULES, initramfs)] {
            fs::write(self.folder.join(name), content)
                .map_err(system(format!("writing {name}")))?;
        }
        Ok(release)
    }

    fn hash_files(&self) -> Result<BTreeMap<String, FileRecord>, BuildError> {
        [ROOT, KERNEL, MODULES]
            .into_iter()
            .map(|name| {
                let path = self.folder.join(name);
                let hashing = || system(format!("hashing {name}"));
                // Readable for whoever QEMU runs as; there is nothing secret in an image.
                use std::os::unix::fs::PermissionsExt;
                fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).map_err(hashing())?;
                let file = File::open(&path).map_err(hashing())?;
                let sha256 = sha256_of(&file).map_err(hashing())?;
                let bytes = file.metadata().map_err(hashing())?.len();
                Ok((name.to_owned(), FileRecord { sha256, bytes }))
            })
            .collect()
    }
}
