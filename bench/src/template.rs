//! A template of the demo's image, for as long as something is measured or checked with it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::server::Server;
use xtask::interrupt;

/// In a state folder: the key that templates are signed with.
pub const KEY: &str = "template-key.pem";

/// What `serve` logs once it has one.
const LOADED: &str = "sign-ins start from a template";

/// A template, removed with this.
pub struct Template {
    /// The image's folder.
    pub image_dir: PathBuf,
    /// Its id.
    pub id: String,
    /// Where its key is.
    pub state_dir: PathBuf,
    /// What `anteroom image snapshot --json` printed.
    pub report: Value,
}

impl Template {
    /// Makes one by `anteroom image snapshot`, with these options, whose browser trusts this authority; its
    /// key lies in `key` of the folder.
    pub fn make(
        anteroom: &Path,
        folder: &Path,
        options: &[&str],
        authority_pem: &str,
    ) -> Result<Self> {
        let (state_dir, authority) = (folder.join("key"), folder.join("authority.pem"));
        std::fs::write(&authority, authority_pem)?;
        let output = Command::new(anteroom)
            .args(["image", "snapshot", "demo", "--json", "--state-dir"])
            .arg(&state_dir)
            .arg("--trust")
            .arg(&authority)
            .args(options)
            .stderr(Stdio::inherit())
            .output()
            .context("starting `anteroom image snapshot` failed")?;
        ensure!(output.status.success(), "`anteroom image snapshot` failed");
        let report: Value = serde_json::from_slice(&output.stdout)?;
        let dir = Path::new(report["dir"].as_str().context("it reports no folder")?);
        let image_dir =
            dir.ancestors().nth(2).context("its folder is in no image's")?.to_path_buf();
        let id = report["template"].as_str().context("it reports no id")?.to_owned();
        Ok(Self { image_dir, id, state_dir, report })
    }

    /// Starts a controller with QEMU in a new folder, which has the key.
    pub fn serve(
        &self,
        anteroom: &Path,
        folder: &Path,
        provider_file: &str,
        options: &[&str],
    ) -> Result<Server> {
        self.serve_by("qemu", anteroom, folder, provider_file, options)
    }

    /// The same with this driver.
    pub fn serve_by(
        &self,
        driver: &str,
        anteroom: &Path,
        folder: &Path,
        provider_file: &str,
        options: &[&str],
    ) -> Result<Server> {
        let state_dir = folder.join("state");
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&state_dir)?;
        std::fs::copy(self.state_dir.join(KEY), state_dir.join(KEY))?;
        Server::start_with(anteroom, folder, provider_file, driver, options)
    }
}

impl Drop for Template {
    fn drop(&mut self) {
        if let Err(error) = anteroom_template::remove(&self.image_dir, &self.id) {
            eprintln!("the template {} is left: {error}", self.id);
        }
    }
}

/// Waits until the controller has loaded the template of its provider.
pub fn until_loaded(server: &Server) -> Result<()> {
    let began = Instant::now();
    while !server.log().contains(LOADED) {
        interrupt::check()?;
        ensure!(
            began.elapsed() < Duration::from_secs(60),
            "no template was loaded:\n{}",
            server.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
