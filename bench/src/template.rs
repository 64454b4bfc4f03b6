//! A template of the demo's image, for as long as something is measured or checked with it.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anteroom_testkit::processes;
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
        Self::make_in(&[], anteroom, folder, options, authority_pem)
    }

    /// The same with these variables in the program's environment.
    pub fn make_in(
        environment: &[(&str, &Path)],
        anteroom: &Path,
        folder: &Path,
        options: &[&str],
        authority_pem: &str,
    ) -> Result<Self> {
        let (state_dir, authority) = (folder.join("key"), folder.join("authority.pem"));
        std::fs::write(&authority, authority_pem)?;
        let output = snapshot(anteroom, &state_dir, options)
            .arg("--json")
            .arg("--trust")
            .arg(&authority)
            .envs(environment.iter().copied())
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

/// Kills an `anteroom image snapshot` whose VM runs, of the image in this folder; its sandbox's name.
pub fn killed_snapshot(
    anteroom: &Path,
    folder: &Path,
    image_dir: &Path,
    options: &[&str],
) -> Result<String> {
    let mut snapshot = snapshot(anteroom, &folder.join("key"), options)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("starting `anteroom image snapshot` failed")?;
    let running = until_vm_runs(&mut snapshot, image_dir);
    snapshot.kill()?;
    snapshot.wait()?;
    running
}

/// `anteroom image snapshot` of the demo's image.
fn snapshot(anteroom: &Path, state_dir: &Path, options: &[&str]) -> Command {
    let mut command = Command::new(anteroom);
    command.args(["image", "snapshot", "demo", "--state-dir"]).arg(state_dir).args(options);
    command
}

fn until_vm_runs(snapshot: &mut Child, image_dir: &Path) -> Result<String> {
    let logs = format!(".snapshotting-{}-", snapshot.id());
    let began = Instant::now();
    loop {
        interrupt::check()?;
        let folders = std::fs::read_dir(image_dir)?.flatten();
        let mut its = folders.filter(|one| one.file_name().to_string_lossy().starts_with(&logs));
        let record = its.next().and_then(|one| std::fs::read(one.path().join("sandbox.json")).ok());
        let record: Option<Value> = record.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(name) = record.as_ref().and_then(|record| record["name"].as_str())
            && processes::of_session(name)?.iter().any(|(_, command)| command.contains("qemu"))
        {
            return Ok(name.to_owned());
        }
        ensure!(snapshot.try_wait()?.is_none(), "`anteroom image snapshot` ended at once");
        ensure!(began.elapsed() < Duration::from_secs(60), "its VM does not run");
        std::thread::sleep(Duration::from_millis(2));
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
