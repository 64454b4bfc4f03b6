//! What is left of a session, by looking at the machine: nothing here asks Anteroom.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;

/// What programs of a desktop on this host, and Anteroom, leave in /tmp under names of their own. What
/// xtask makes there is named by it: another of its runs is nothing that a session left. The browser's are
/// not among them: its temporary files go into its sandbox, and an end user's browser has the same names.
const DESKTOP_NAMES: [&str; 3] = [".X", "anteroom-", "dbus-"];

/// The machine before a session.
pub struct Before(BTreeSet<PathBuf>);

impl Before {
    /// Looks.
    pub fn look() -> Self {
        Self(desktop_files())
    }
}

/// Processes, sockets, files, mounts and cgroups that carry the session's id, and what a desktop
/// left in /tmp that was not there `before`; the session's bounded logs and the store are meant to
/// stay and are not counted.
pub fn of_session(id: &str, demo_folder: &Path, before: &Before) -> Result<Vec<String>> {
    let mut found = Vec::new();
    // Names without a session's id are ambiguous while other sessions run on this machine.
    let alone = !others_run(id)?;
    let new = desktop_files().into_iter().filter(|path| !before.0.contains(path));
    found.extend(
        new.filter(|path| alone && !demo_folder.starts_with(path))
            .map(|path| format!("file: {}", path.display())),
    );
    processes(id, &mut found)?;
    lines_with(id, "/proc/net/unix", "socket", &mut found);
    lines_with(id, "/proc/self/mountinfo", "mount", &mut found);
    for (place, kind) in [
        ("/sys/fs/cgroup", "cgroup"),
        ("/run", "file"),
        ("/tmp", "file"),
        ("/dev/shm", "file"),
        ("/var/lib", "file"),
    ] {
        files(Path::new(place), id, kind, demo_folder, 6, &mut found);
    }
    Ok(found)
}

fn desktop_files() -> BTreeSet<PathBuf> {
    // All X servers share this folder; the first makes it, on machines that do not at their boot.
    const SOCKETS: &str = ".X11-unix";
    let in_folder = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten();
    let tmp = Path::new("/tmp");
    in_folder(tmp)
        .chain(in_folder(&tmp.join(SOCKETS)))
        .filter(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let is_desktop_s =
                name.starts_with('X') || DESKTOP_NAMES.iter().any(|known| name.starts_with(known));
            name != SOCKETS && is_desktop_s
        })
        .map(|entry| entry.path())
        .collect()
}

/// Whether a process of another session runs.
fn others_run(id: &str) -> Result<bool> {
    Ok(fs::read_dir("/proc")?.flatten().any(|entry| {
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        contains(&environment, "ANTEROOM_SANDBOX=") && !contains(&environment, id)
    }))
}

fn processes(id: &str, found: &mut Vec<String>) -> Result<()> {
    for entry in fs::read_dir("/proc")? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.bytes().all(|b| b.is_ascii_digit()) || name == std::process::id().to_string() {
            continue;
        }
        // A process may end while it is looked at; then there is nothing to read, and nothing left.
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        let (command, environment) = (read("cmdline"), read("environ"));
        let command = String::from_utf8_lossy(&command).replace('\0', " ");
        if names(&command, id) || contains(&environment, id) {
            found.push(format!("process {name}: {}", command.trim()));
        }
    }
    Ok(())
}

/// Whether a command has the session's id, but in a link to its viewer: that is a browser, which the end user
/// opened with it.
fn names(command: &str, id: &str) -> bool {
    command.replace(&format!("/v/{id}"), "").contains(id)
}

fn lines_with(id: &str, path: &str, kind: &str, found: &mut Vec<String>) {
    let text = fs::read_to_string(path).unwrap_or_default();
    found.extend(
        text.lines().filter(|line| line.contains(id)).map(|line| format!("{kind}: {line}")),
    );
}

fn files(
    folder: &Path,
    id: &str,
    kind: &str,
    demo_folder: &Path,
    depth: u32,
    found: &mut Vec<String>,
) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        let is_log = path.starts_with(demo_folder)
            && path.components().any(|part| part.as_os_str() == "logs");
        if path.to_string_lossy().contains(id) && !is_log {
            found.push(format!("{kind}: {}", path.display()));
        } else if depth > 0 && entry.file_type().is_ok_and(|t| t.is_dir()) {
            files(&path, id, kind, demo_folder, depth - 1, found);
        }
    }
}

fn contains(haystack: &[u8], needle: &str) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_user_s_browser_is_not_left_over() {
        let id = "01a22996-7da4-778d-a38d-fde56421b853";
        assert!(!names(&format!("chromium http://127.0.0.1:7070/v/{id}#8mY1"), id));
        assert!(names(&format!("qemu-system-x86_64 -name anteroom-{id}"), id));
        assert!(names(&format!("Xvnc -auth /tmp/anteroom-{id}/v/{id}"), id));
    }
}
