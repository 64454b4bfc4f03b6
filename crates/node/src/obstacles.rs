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
    let Free { disk_bytes, pids, .. } = free::look(&settings.state_dir);
    if disk_bytes == Some(0) {
        let folder = settings.state_dir.display();
        reasons.push(format!("the disk of {folder} is full, or nearly; free space on it"));
    }
    if pids == Some(0) {
        reasons.push(
            "this machine can start no more processes; end some, or raise `kernel.pid_max` or the limit \
             of the controller's control group (`pids.max`)"
                .to_owned(),
        );
    }
    if let DriverChoice::Vm(vm) = &settings.driver {
        if let Err(error) = vm.vmm.installed() {
            reasons.push(error.to_string());
        }
        reasons.extend(no_images(&settings.images_dir));
    }
    reasons
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
