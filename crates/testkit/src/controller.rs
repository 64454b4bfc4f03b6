//! A running `anteroom serve`.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::api::{Api, text};
use crate::wait::PATIENCE;

/// A fake guest that boots for ever.
pub const SILENT: &str = "#!/bin/sh\nexec sleep 1000\n";

/// A controller on free ports. It ends with this: its sessions first, as at SIGTERM.
pub struct Controller {
    child: Child,
    folder: PathBuf,
    api: Api,
    media: SocketAddr,
}

impl Controller {
    /// Starts `command`, which is `anteroom serve` with the options of this one alone, and waits until it
    /// is ready. In `folder` are its state (`state`), its log and its ready file; it may have been
    /// another controller's before.
    ///
    /// # Errors
    /// When it ends at once, or is not ready within [`PATIENCE`].
    pub fn start(mut command: Command, folder: &Path) -> Result<Self> {
        let ready_file = folder.join("ready.json");
        let _ = std::fs::remove_file(&ready_file);
        let mut log = std::fs::OpenOptions::new();
        let log = log.create(true).append(true).open(folder.join("serve.log"))?;
        let child = command
            .args(["--listen", "127.0.0.1:0"])
            .arg("--state-dir")
            .arg(folder.join("state"))
            .arg("--ready-file")
            .arg(&ready_file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("starting the controller failed")?;
        let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
        let folder = folder.to_owned();
        let mut controller = Self { child, folder, api: Api::new("", ""), media: nowhere };
        let ready = controller.wait_until_ready(&ready_file)?;
        controller.api = Api::new(&text(&ready, "url")?, &text(&ready, "apiKey")?);
        controller.media = text(&ready, "media")?.parse()?;
        Ok(controller)
    }

    fn wait_until_ready(&mut self, file: &Path) -> Result<Value> {
        let started = Instant::now();
        loop {
            // Written in one piece (rename), so it is whole when it is there.
            if let Ok(content) = std::fs::read(file) {
                return serde_json::from_slice(&content)
                    .context("reading the controller's ready file failed");
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the controller ended at once ({status}): {}", self.log().trim());
            }
            if started.elapsed() > PATIENCE {
                bail!("the controller was not ready within {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where media comes in.
    #[must_use]
    pub fn media(&self) -> SocketAddr {
        self.media
    }

    /// The controller's process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Where its state is.
    #[must_use]
    pub fn state_dir(&self) -> PathBuf {
        self.folder.join("state")
    }

    /// What it said on its standard error.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("serve.log")).unwrap_or_default()
    }

    /// Whether it has ended.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn has_ended(&mut self) -> Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Asks it to end, which ends its sessions first.
    ///
    /// # Errors
    /// When it is gone.
    pub fn terminate(&self) -> Result<()> {
        let pid = Pid::from_raw(i32::try_from(self.child.id())?);
        kill(pid, Signal::SIGTERM).context("asking the controller to end failed")
    }

    /// Waits until it has ended.
    ///
    /// # Errors
    /// When the kernel does not say.
    pub fn wait(&mut self) -> Result<()> {
        self.child.wait().context("waiting for the controller's end failed")?;
        Ok(())
    }

    /// Ends it in order.
    ///
    /// # Errors
    /// As [`Self::terminate`] and [`Self::wait`].
    pub fn stop(&mut self) -> Result<()> {
        self.terminate()?;
        self.wait()
    }

    /// Ends it by SIGKILL.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.wait()
    }
}

impl Deref for Controller {
    type Target = Api;

    fn deref(&self) -> &Api {
        &self.api
    }
}

impl DerefMut for Controller {
    fn deref_mut(&mut self) -> &mut Api {
        &mut self.api
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // Ctrl-C reached it too; whatever happened here, it must be gone before its folder is.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.stop();
        }
    }
}

/// Writes a program into `folder` for `serve --driver host --agent`; as another user runs it when this is
/// root, the folder is opened to all.
///
/// # Errors
/// When it cannot be written.
pub fn fake_guest(folder: &Path, script: &str) -> Result<PathBuf> {
    let guest = folder.join("fake-guest");
    std::fs::write(&guest, script)?;
    for path in [folder, &guest] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755))?;
    }
    Ok(guest)
}
