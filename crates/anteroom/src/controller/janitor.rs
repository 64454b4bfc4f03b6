//! What sessions that are over leave in the state folder is bounded by age and by size.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anteroom_session::SessionId;

use super::session_actor::ControllerContext;
use crate::clock::now;
use crate::counted::counted;

/// How often is swept.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);

const DAY_SECONDS: u64 = 24 * 3600;

/// What the operator wants kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Days after which a session, its history and its logs are forgotten. A session with a sealed
    /// credential stays: the credential is its owner's to fetch.
    pub days: u64,
    /// Bytes of all sessions' logs together; the oldest go first.
    pub log_bytes: u64,
}

/// The logs of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Logs {
    folder: PathBuf,
    age: Duration,
    bytes: u64,
}

/// Sweeps now and then, for as long as it is polled.
pub async fn run(context: Arc<ControllerContext>, keep: Keep) {
    loop {
        sweep(&context, keep).await;
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

async fn sweep(context: &Arc<ControllerContext>, keep: Keep) {
    let before = now().0.saturating_sub(keep.days.saturating_mul(DAY_SECONDS * 1000));
    match context.store.forget(before, now().0).await {
        Ok(0) => {}
        Ok(sessions) => {
            let sessions = counted(sessions, "session was", "sessions were");
            let days = counted(keep.days, "day", "days");
            tracing::info!("{sessions} forgotten, being older than {days}")
        }
        Err(error) => tracing::warn!("{error:#}"),
    }
    let context = Arc::clone(context);
    let removed = tokio::task::spawn_blocking(move || {
        let is_over = |id: SessionId| context.live.get(id).is_none();
        let found = logs_in(&context.logs, is_over);
        let doomed = too_much(found, keep);
        for logs in &doomed {
            if let Err(error) = std::fs::remove_dir_all(&logs.folder) {
                tracing::warn!("removing {} failed: {error}", logs.folder.display());
            }
        }
        doomed.len()
    });
    if let Ok(removed @ 1..) = removed.await {
        let sessions = counted(removed, "session", "sessions");
        tracing::info!("the logs of {sessions} were removed");
    }
}

/// The logs of the sessions that are over. A folder is as old as the last line in it.
fn logs_in(folder: &Path, is_over: impl Fn(SessionId) -> bool) -> Vec<Logs> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .filter(|entry| entry.file_name().to_string_lossy().parse().is_ok_and(&is_over))
        .map(|entry| {
            let files = std::fs::read_dir(entry.path()).into_iter().flatten().flatten();
            let metadata: Vec<_> =
                files.filter_map(|file| file.metadata().ok()).chain(entry.metadata()).collect();
            let written = metadata.iter().filter_map(|file| file.modified().ok()).max();
            let age = written.and_then(|at| SystemTime::now().duration_since(at).ok());
            Logs {
                folder: entry.path(),
                age: age.unwrap_or_default(),
                bytes: metadata.iter().map(std::fs::Metadata::len).sum(),
            }
        })
        .collect()
}

/// Those that are too old, and of the others the oldest until the rest fits.
fn too_much(mut logs: Vec<Logs>, keep: Keep) -> Vec<Logs> {
    logs.sort_by_key(|logs| logs.age);
    let oldest = Duration::from_secs(keep.days.saturating_mul(DAY_SECONDS));
    let mut bytes = 0_u64;
    logs.retain(|logs| {
        bytes = bytes.saturating_add(logs.bytes);
        logs.age > oldest || bytes > keep.log_bytes
    });
    logs
}

#[cfg(test)]
mod tests {
    use super::*;

    fn logs(name: &str, days: u64, bytes: u64) -> Logs {
        Logs { folder: name.into(), age: Duration::from_secs(days * DAY_SECONDS), bytes }
    }

    #[test]
    fn the_old_go_and_the_oldest_of_too_many() {
        let keep = Keep { days: 30, log_bytes: 100 };
        let found = vec![logs("a", 31, 1), logs("b", 3, 60), logs("c", 1, 50), logs("d", 2, 40)];
        let doomed = too_much(found, keep);
        let names: Vec<_> = doomed.iter().map(|logs| logs.folder.to_str().unwrap()).collect();
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
        let found = logs_in(folder.path(), |id| id == over);
        assert_eq!(found.len(), 1);
        assert!(found[0].bytes >= 5 && found[0].folder.ends_with(over.to_string()));
    }
}
