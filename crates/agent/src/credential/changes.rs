//! When to look at a path again: reported by the kernel (inotify(7)), whether or not its folder exists.

use std::path::Path;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::ReadyChunks;
use inotify::{EventStream, Inotify, WatchMask, Watches};

/// The longest wait: for what the kernel does not report, such as another file system mounted over
/// the folder.
const AT_LAST: Duration = Duration::from_secs(5);

/// What can make a file complete, or another one.
const EVENTS: WatchMask = WatchMask::CREATE
    .union(WatchMask::MOVE)
    .union(WatchMask::MODIFY)
    .union(WatchMask::CLOSE_WRITE)
    .union(WatchMask::ATTRIB)
    .union(WatchMask::DELETE)
    .union(WatchMask::DELETE_SELF)
    .union(WatchMask::MOVE_SELF)
    .union(WatchMask::ONLYDIR);

/// Events taken as one; of those beyond, each lot is one more look.
const AT_ONCE: usize = 1024;

/// Changes around some paths. Where the kernel has no inotify for us it only waits.
pub struct Changes(Option<(Watches, ReadyChunks<EventStream<Vec<u8>>>)>);

impl Changes {
    /// Watches nothing yet.
    pub fn new() -> Self {
        Self(Inotify::init().ok().and_then(|inotify| {
            let watches = inotify.watches();
            let events = inotify.into_event_stream(vec![0; 4096]).ok()?;
            Some((watches, events.ready_chunks(AT_ONCE)))
        }))
    }

    /// Watches the folder of `path`, or the nearest one above it that is there. To be called before
    /// each look: what happens after the call and before [`Changes::next`] is not missed.
    pub fn watch(&mut self, path: &Path) {
        let Some((watches, _)) = &mut self.0 else { return };
        // Another watch of the same folder is the same watch.
        path.ancestors().skip(1).find(|folder| watches.add(folder, EVENTS).is_ok());
    }

    /// Returns when something has changed since the last call, after some seconds in any case.
    pub async fn next(&mut self) {
        let reported = async {
            match &mut self.0 {
                Some((_, events)) => events.next().await,
                None => std::future::pending().await,
            }
        };
        let _ = tokio::time::timeout(AT_LAST, reported).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Less than [`AT_LAST`]: the kernel reported it.
    async fn reported(changes: &mut Changes) -> bool {
        tokio::time::timeout(AT_LAST / 2, changes.next()).await.is_ok()
    }

    #[tokio::test]
    async fn a_file_two_folders_down_is_seen_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b/c.json");
        let mut changes = Changes::new();
        changes.watch(&path);
        std::fs::create_dir(folder.path().join("a")).unwrap();
        assert!(reported(&mut changes).await, "its first folder");
        changes.watch(&path);
        std::fs::create_dir(folder.path().join("a/b")).unwrap();
        assert!(reported(&mut changes).await, "its second folder");
        changes.watch(&path);
        std::fs::write(&path, "x").unwrap();
        assert!(reported(&mut changes).await, "the file");
    }

    #[tokio::test]
    async fn what_changed_before_the_wait_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("c.json");
        let mut changes = Changes::new();
        changes.watch(&path);
        std::fs::write(folder.path().join("new"), "x").unwrap();
        std::fs::rename(folder.path().join("new"), &path).unwrap();
        assert!(reported(&mut changes).await);
        assert!(!reported(&mut changes).await, "and once");
    }
}
