//! What is written down of waiting clones before they are there: no session's record names them.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anteroom_node_protocol::SandboxRecord;
use anteroom_private::read_text;
use anteroom_session::SessionId;

use crate::error::LocalNodeError;

/// A folder with a file for each.
#[derive(Clone, Debug)]
pub struct Records(PathBuf);

impl Records {
    /// Those of the controller with this state folder.
    pub fn in_state_dir(state_dir: &Path) -> Self {
        Self(state_dir.join("waiting"))
    }

    /// Writes one.
    pub fn write(&self, record: &SandboxRecord) -> Result<(), LocalNodeError> {
        let path = self.path(record.session);
        let write = || {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.0)?;
            let mut options = fs::File::options();
            let mut file = options.write(true).create_new(true).mode(0o600).open(&path)?;
            file.write_all(&serde_json::to_vec(record)?)
        };
        write().map_err(|error| {
            // Nothing was begun.
            let _ = fs::remove_file(&path);
            LocalNodeError::system(format!("writing {}", path.display()))(error)
        })
    }

    /// Removes one: the clone is a session's, or nothing of it is left.
    pub fn remove(&self, session: SessionId) {
        let path = self.path(session);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!("removing {} failed: {error}", path.display());
            }
            _ => {}
        }
    }

    /// All that are there: at a start, what an earlier controller left.
    pub fn all(&self) -> Vec<SandboxRecord> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries.filter_map(|entry| read(&entry.path())).collect()
    }

    /// Not by the whole id: that is what leftovers of a sandbox are found by.
    fn path(&self, session: SessionId) -> PathBuf {
        let id = session.to_string();
        let random = id.rsplit('-').next().unwrap_or_default();
        self.0.join(format!("{random}.json"))
    }
}

/// A record; one that was not written whole is that of a clone that was never begun.
fn read(path: &Path) -> Option<SandboxRecord> {
    let record = read_text(path).and_then(|text| Ok(serde_json::from_str(&text)?));
    match record {
        Ok(record) => Some(record),
        Err(error) => {
            tracing::warn!("{} is no record of a waiting clone: {error}", path.display());
            let _ = fs::remove_file(path);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use anteroom_session::DriverKind;

    use super::*;

    #[test]
    fn what_was_written_is_found_until_it_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let records = Records::in_state_dir(folder.path());
        assert_eq!(records.all(), []);
        let session = SessionId::generate();
        let record = SandboxRecord { session, user: None, driver: Some(DriverKind::Qemu) };
        records.write(&record).unwrap();
        fs::write(folder.path().join("waiting/half.json"), "{\"session\":").unwrap();
        assert_eq!(records.all(), [record]);
        records.remove(session);
        records.remove(session);
        assert_eq!(records.all(), []);
    }
}
