//! What of this machine stands against a start.

use std::path::Path;

use anteroom_node_protocol::Free;

use super::free;
use super::settings::{DriverChoice, NodeSettings};

/// Files that starting a session opens: sockets, their duplicates, its log; and some to spare.
const FILES_TO_START: usize = 16;

/// One sentence each; empty when a session can be started.
pub fn look(settings: &NodeSettings) -> Vec<String> {
    let mut reasons = Vec::new();
    if let Err(error) = can_open_files() {
        reasons.push(format!("no more files can be opened: {error}; raise `ulimit -n`"));
    }
    reasons.extend(shortages(&free::look(&settings.state_dir), &settings.state_dir));
    if let DriverChoice::Vm(vm) = &settings.driver {
        if let Err(error) = vm.vmm.installed() {
            reasons.push(error.to_string());
        }
        reasons.extend(no_images(&settings.images_dir));
    }
    reasons
}

/// What is used up. Memory that sessions take is not: they give it back.
fn shortages(Free { disk_bytes, pids, .. }: &Free, state_dir: &Path) -> Vec<String> {
    let disk = || {
        let folder = state_dir.display();
        format!("the disk of {folder} is full, or nearly; free space on it")
    };
    let processes = || {
        "this machine can start no more processes; end some, or raise `kernel.pid_max` or the `pids.max` of \
         the controller's control group"
            .to_owned()
    };
    let is_used_up = |free: &Option<u64>| *free == Some(0);
    let disk = is_used_up(disk_bytes).then(disk);
    disk.into_iter().chain(is_used_up(pids).then(processes)).collect()
}

fn no_images(dir: &Path) -> Option<String> {
    anteroom_image::list(dir).is_empty().then(|| {
        format!(
            "there is no golden image in {}; build one with `anteroom image build`",
            dir.display()
        )
    })
}

/// Whether this process may open as many files as starting a session takes.
fn can_open_files() -> std::io::Result<()> {
    let files: std::io::Result<Vec<_>> =
        (0..FILES_TO_START).map(|_| std::fs::File::open("/dev/null")).collect();
    files.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_known_to_be_used_up_is_an_obstacle() {
        let shortages = |disk_bytes, pids| {
            let free = Free { disk_bytes, pids, memory_bytes: Some(0), ..Free::default() };
            shortages(&free, Path::new("/state")).len()
        };
        assert_eq!(shortages(Some(1), Some(1)), 0);
        assert_eq!(shortages(None, None), 0);
        assert_eq!(shortages(Some(0), None), 1);
        assert_eq!(shortages(Some(0), Some(0)), 2);
    }
}
