//! Kernel modules, in the order that the image build wrote down.

use std::ffi::CString;
use std::fs::{self, File};
use std::path::Path;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};

/// Loads each module that `list` names, one path a line, dependencies first.
pub fn load_all(list: &Path) -> Result<()> {
    let list = fs::read_to_string(list).context("reading the list of kernel modules failed")?;
    for path in list.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let path = Path::new("/").join(path);
        let file = File::open(&path)
            .with_context(|| format!("opening module {} failed", path.display()))?;
        let no_options = CString::default();
        match finit_module(&file, &no_options, ModuleInitFlags::empty()) {
            // Built in, or named twice: it is there.
            Ok(()) | Err(Errno::EEXIST) => {}
            // A driver without its hardware (virtio_pci on a machine without PCI).
            Err(Errno::ENODEV) => {}
            Err(error) => {
                return Err(error)
                    .with_context(|| format!("loading module {} failed", path.display()));
            }
        }
    }
    Ok(())
}
