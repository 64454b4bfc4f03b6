//! The folders that commands share, each with its option, its variable and its default.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use anteroom_controller::default_dir;
use anyhow::{Context, Result};

/// In the state folder: the key that templates are signed with.
pub const TEMPLATE_KEY: &str = "template-key.pem";

/// `--state-dir`.
#[derive(clap::Args)]
pub struct StateDir {
    /// The controller's folder for database, vault and logs [default: ~/.local/state/anteroom, or with
    /// root /var/lib/anteroom].
    #[arg(long, value_name = "FOLDER", env = "ANTEROOM_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

/// `--images-dir`.
#[derive(clap::Args)]
pub struct ImagesDir {
    /// The folder of golden images [default: ~/.local/share/anteroom/images, or with root
    /// /var/lib/anteroom/images].
    #[arg(long, value_name = "FOLDER", env = "ANTEROOM_IMAGES_DIR")]
    images_dir: Option<PathBuf>,
}

impl StateDir {
    /// The folder that was named, or the default.
    pub fn path(&self) -> PathBuf {
        let default = || default_dir("XDG_STATE_HOME", ".local/state", "/var/lib/anteroom");
        self.state_dir.clone().unwrap_or_else(default)
    }

    /// The folder that was named, if one was.
    pub fn named(&self) -> Option<&Path> {
        self.state_dir.as_deref()
    }
}

impl ImagesDir {
    /// The folder that was named, or the default.
    pub fn path(&self) -> PathBuf {
        let default = || default_dir("XDG_DATA_HOME", ".local/share", "/var/lib/anteroom");
        self.images_dir.clone().unwrap_or_else(|| default().join("images"))
    }

    /// The folder that was named, if one was.
    pub fn named(&self) -> Option<&Path> {
        self.images_dir.as_deref()
    }
}

/// Where what may be recomputed is.
pub fn cache_dir() -> PathBuf {
    default_dir("XDG_CACHE_HOME", ".cache", "/var/cache/anteroom")
}

/// Makes a state folder that is nobody else's.
pub fn make_private(dir: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).with_context(|| {
        let shown = dir.display();
        format!("cannot create the state folder {shown}; choose another with --state-dir")
    })
}
