//! The caller's key, and what is opened with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::Value;
use xtask::shell;

use anteroom_testkit::Sealed;

/// An age identity of this demo's own: the caller's key, which the host never has.
pub struct Identity {
    pub file: PathBuf,
    pub recipient: String,
}

/// A new one, in a folder.
pub fn new_identity(keep: &Path) -> Result<Identity> {
    let file = keep.join("identity.txt");
    let _ = std::fs::remove_file(&file);
    shell::output(Command::new("age-keygen").arg("-o").arg(&file))?;
    let recipient =
        shell::output(Command::new("age-keygen").arg("-y").arg(&file))?.trim().to_owned();
    Ok(Identity { file, recipient })
}

impl Identity {
    /// Takes the place of an earlier session's, and of the credential that only that one opens.
    pub fn move_to(self, keep: &Path) -> Result<Self> {
        let file = keep.join("identity.txt");
        for path in [&file, &keep.join("credential.age")] {
            let _ = std::fs::remove_file(path);
        }
        std::fs::copy(&self.file, &file).context("keeping the demo's key failed")?;
        Ok(Self { file, ..self })
    }

    /// Keeps the sealed credential and restores it into a home; the path and the demo CLI's file.
    pub fn open(&self, anteroom: &Path, keep: &Path, sealed: &Sealed) -> Result<(PathBuf, Value)> {
        let path = self.restore(anteroom, keep, sealed)?;
        let home = keep.join("home");
        let text = std::fs::read_to_string(home.join(".demo-login/credentials.json"))
            .context("reading the restored credential failed")?;
        // In clear it has served its purpose.
        std::fs::remove_dir_all(&home).context("removing the restored credential failed")?;
        Ok((path, serde_json::from_str(&text).context("the opened credential is not valid JSON")?))
    }

    /// Keeps the sealed credential and restores it into the folder's `home`; its path.
    pub fn restore(&self, anteroom: &Path, keep: &Path, sealed: &Sealed) -> Result<PathBuf> {
        shell::output(&mut self.restoring(anteroom, keep, sealed)?)?;
        Ok(keep.join("credential.age"))
    }

    /// Keeps the sealed credential; the command that restores it into the folder's `home`.
    pub fn restoring(&self, anteroom: &Path, keep: &Path, sealed: &Sealed) -> Result<Command> {
        let path = keep.join("credential.age");
        let (envelope, key) =
            (keep.join("credential.age.envelope.json"), keep.join("controller.pem"));
        for (path, bytes) in
            [(&path, &sealed.bytes), (&envelope, &sealed.envelope), (&key, &sealed.key)]
        {
            std::fs::write(path, bytes).context("keeping the sealed credential failed")?;
        }
        let home = keep.join("home");
        let mut open = Command::new(anteroom);
        open.args(["credentials", "open", "--force", "--home"]).arg(&home);
        open.arg("--controller-key").arg(&key).arg("-i").arg(&self.file).arg(&path);
        Ok(open)
    }
}
