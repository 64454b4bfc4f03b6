//! `anteroom credentials`: a sealed credential on the machine that is to use it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anteroom_vault::BundledFile;
use anyhow::{Context, Result, bail};
use serde_json::json;

use super::serve::state_dir;
use super::sessions::show;

/// The largest sealed file read, in bytes.
const MAX_FILE: u64 = 4 * 1024 * 1024;

/// Sealed credentials.
#[derive(clap::Subcommand)]
pub enum Credentials {
    /// Opens a sealed credential and puts its files into a home directory, where the tool finds them.
    Open(Open),
}

/// What `credentials open` takes.
#[derive(clap::Args)]
pub struct Open {
    /// The sealed credential, as `auth start -o` or the API gave it.
    file: PathBuf,
    /// The age identity that it was sealed to (a file of age-keygen's); without it this machine's vault's.
    #[arg(long, short)]
    identity: Option<PathBuf>,
    /// The state folder whose vault that is, if the controller was started with another than the usual.
    #[arg(long, env = "ANTEROOM_STATE_DIR")]
    state_dir: Option<PathBuf>,
    /// The home directory; without it your own.
    #[arg(long, value_name = "FOLDER")]
    home: Option<PathBuf>,
    /// Replaces files that are there.
    #[arg(long)]
    force: bool,
    /// Says what is in it and writes nothing.
    #[arg(long, conflicts_with = "home")]
    list: bool,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// `anteroom credentials …`.
pub fn run(command: &Credentials) -> Result<()> {
    let Credentials::Open(options) = command;
    let of_vault =
        || options.state_dir.clone().unwrap_or_else(state_dir).join("vault/identity.txt");
    let identity = options.identity.clone().unwrap_or_else(of_vault);
    let identity = std::fs::read_to_string(&identity).with_context(|| {
        format!("reading the identity {} failed; name another one with -i", identity.display())
    })?;
    let metadata = std::fs::metadata(&options.file)
        .with_context(|| format!("reading {} failed", options.file.display()))?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        bail!("{} is no sealed credential: no file, or too large", options.file.display());
    }
    let sealed = std::fs::read(&options.file)
        .with_context(|| format!("reading {} failed", options.file.display()))?;
    let files = anteroom_vault::open_bundle(&sealed, &identity)
        .with_context(|| format!("{} was not opened", options.file.display()))?;
    let home = match &options.home {
        Some(home) => home.clone(),
        None => std::env::home_dir().context("there is no home directory; name one with --home")?,
    };
    let home =
        std::path::absolute(&home).with_context(|| format!("finding {} failed", home.display()))?;
    if !options.list {
        restore(&files, &home, options.force)?;
    }
    let told: Vec<_> = files
        .iter()
        .map(|file| {
            json!({
                "path": if options.list { file.path.clone() } else { home.join(&file.path) },
                "mode": format!("{:04o}", file.mode),
                "bytes": file.content.len(),
            })
        })
        .collect();
    show(options.json, &json!({ "files": told }), |told| {
        let lines = told["files"].as_array().into_iter().flatten().map(|file| {
            let text = |name: &str| file[name].as_str().unwrap_or_default();
            format!("{}  {:>7} bytes  {}\n", text("mode"), file["bytes"], text("path"))
        });
        lines.collect()
    })
}

/// Puts all files into a home, or none.
fn restore(files: &[BundledFile], home: &Path, force: bool) -> Result<()> {
    let paths: Vec<PathBuf> = files.iter().map(|file| home.join(&file.path)).collect();
    if let Some(there) = paths.iter().find(|path| path.symlink_metadata().is_ok())
        && !force
    {
        bail!("{} is there already; --force replaces it", there.display());
    }
    for path in &paths {
        check_place(path, home)?;
    }
    for (file, path) in files.iter().zip(&paths) {
        write(file, path, home).with_context(|| format!("writing {} failed", path.display()))?;
    }
    Ok(())
}

/// Whether a file can go there: not over a folder, and not through a link out of the home.
fn check_place(path: &Path, home: &Path) -> Result<()> {
    if path.is_dir() {
        bail!("{} is a folder; move it away first", path.display());
    }
    let below = path.ancestors().skip(1).take_while(|folder| *folder != home);
    for folder in below {
        match folder.symlink_metadata() {
            Ok(found) if !found.is_dir() => {
                bail!("{} is no folder, or a link to one; move it away first", folder.display())
            }
            Ok(_) | Err(_) => {}
        }
    }
    Ok(())
}

/// Writes a file at once: its readers see the old one or the new one.
fn write(file: &BundledFile, path: &Path, home: &Path) -> std::io::Result<()> {
    let folder = path.parent().unwrap_or(home);
    let new: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in new.into_iter().rev() {
        std::fs::create_dir(folder)?;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o700))?;
    }
    // Nobody else may read it, and it is gone when anything fails.
    let mut target = tempfile::NamedTempFile::new_in(folder)?;
    target.write_all(&file.content)?;
    target.as_file().set_permissions(std::fs::Permissions::from_mode(file.mode))?;
    target.as_file().sync_all()?;
    target.persist(path)?;
    Ok(())
}
