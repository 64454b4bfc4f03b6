//! The sessions' logs: a folder each, which outlives the session and is bounded by age and by size.

use std::collections::HashSet;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anteroom_fail_point::fail_point;
use anteroom_guest_session::log_files;
use anteroom_node_protocol::KeepLogs;
use anteroom_session::SessionId;
use anteroom_session::counted::counted;

use super::error::LocalNodeError;

const DAY_SECONDS: u64 = 24 * 3600;

/// The folder of all sessions' logs.
#[derive(Clone, Debug)]
pub struct Logs(PathBuf);

/// The logs of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Folder {
    path: PathBuf,
    age: Duration,
    bytes: u64,
}

impl Logs {
    pub fn in_state_dir(state_dir: &Path) -> Self {
        Self(state_dir.join("logs"))
    }

    /// Where a session's logs are.
    pub fn of(&self, session: SessionId) -> PathBuf {
        self.0.join(session.to_string())
    }

    /// Creates a session's folder, for its owner alone. Nothing is left of it when that fails.
    pub fn create(&self, session: SessionId) -> Result<PathBuf, LocalNodeError> {
        let dir = self.of(session);
        let created = std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .and_then(|()| fail_point("start.log_dir"))
            .map_err(LocalNodeError::system(format!("creating {}", dir.display())));
        if created.is_err() {
            self.remove_if_empty(session);
        }
        created.map(|()| dir)
    }

    /// Removes the folder of a session that was not begun.
    pub fn remove_if_empty(&self, session: SessionId) {
        let _ = std::fs::remove_dir(self.of(session));
    }

    /// Removes the folder of a sandbox that never had a session.
    pub fn remove(&self, session: SessionId) {
        let _ = std::fs::remove_dir_all(self.of(session));
    }

    /// A session's logs one after the other, without control characters.
    pub fn read(&self, session: SessionId) -> String {
        let dir = self.of(session);
        let mut text = String::new();
        for name in log_files::ALL {
            if let Ok(bytes) = std::fs::read(dir.join(name)) {
                let lines = String::from_utf8_lossy(&bytes);
                let clean: String =
                    lines.chars().filter(|c| matches!(c, '\n' | '\t') || !c.is_control()).collect();
                text.push_str(&format!("==> {name}\n{clean}\n"));
            }
        }
        text
    }

    /// Removes the logs that are too old or too many, of sessions that are not `live`.
    pub fn sweep(&self, keep: KeepLogs, live: &HashSet<SessionId>) {
        let doomed = too_much(self.of_all(|id| !live.contains(&id)), keep);
        for logs in &doomed {
            if let Err(error) = std::fs::remove_dir_all(&logs.path) {
                tracing::warn!("removing {} failed: {error}", logs.path.display());
            }
        }
        if !doomed.is_empty() {
            let sessions = counted(doomed.len(), "session", "sessions");
            tracing::info!("the logs of {sessions} were removed");
        }
    }

    /// The logs of the sessions that are over. A folder is as old as the last line in it.
    fn of_all(&self, is_over: impl Fn(SessionId) -> bool) -> Vec<Folder> {
        let entries = std::fs::read_dir(&self.0).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_name().to_string_lossy().parse().is_ok_and(&is_over))
            .map(|entry| {
                let files = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
                let metadata: Vec<_> =
                    files.filter_map(|file| file.metadata().ok()).chain(entry.metadata()).collect();
                let written = metadata.iter().filter_map(|file| file.modified().ok()).max();
                let age = written.and_then(|at| SystemTime::now().duration_since(at).ok());
                Folder {
                    path: entry.path(),
                    age: age.unwrap_or_default(),
                    bytes: metadata.iter().map(std::fs::Metadata::len).sum(),
                }
            })
            .collect()
    }
}

/// Those that are too old, and of the others the oldest until the rest fits.
fn too_much(mut logs: Vec<Folder>, keep: KeepLogs) -> Vec<Folder> {
    logs.sort_by_key(|logs| logs.age);
    let oldest = Duration::from_secs(keep.days.saturating_mul(DAY_SECONDS));
    let mut bytes = 0_u64;
    logs.retain(|logs| {
        bytes = bytes.saturating_add(logs.bytes);
        logs.age > oldest || bytes > keep.bytes
    });
    logs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(name: &str, days: u64, bytes: u64) -> Folder {
        Folder { path: name.into(), age: Duration::from_secs(days * DAY_SECONDS), bytes }
    }

    #[test]
    fn the_old_go_and_the_oldest_of_too_many() {
        let keep = KeepLogs { days: 30, bytes: 100 };
        let found = vec![logs("a", 31, 1), logs("b", 3, 60), logs("c", 1, 50), logs("d", 2, 40)];
        let doomed = too_much(found, keep);
        let names: Vec<_> = doomed.iter().map(|logs| logs.path.to_str().unwrap()).collect();
        assert_eq!(names, ["b", "a"]);
    }

    #[test]
    fn only_logs_of_sessions_that_are_over_are_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let (over, live) = (SessionId::generate(), SessionId::generate());
        for name in [over.to_string(), live.to_string(), "notes".to_owned()] {
            std::fs::create_dir(folder.path().join(&name)).unwrap();
            std::fs::write(folder.path().join(&name).join("x.log"), "12345").unwrap();
        }
        let found = Logs(folder.path().to_owned()).of_all(|id| id == over);
        assert_eq!(found.len(), 1);
        assert!(found[0].bytes >= 5 && found[0].path.ends_with(over.to_string()));
    }
}
