//! Whether the template is after the sign-ins what it was before: in the memory of a running controller, which
//! the VMMs map.

use std::cell::{Cell, OnceCell};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

/// How a template's memory is named in /proc, open or mapped.
pub const MEMORY: &str = "anteroom-template-memory";

/// What is digested or left out as a whole, in bytes: most of a guest's memory is zeros.
const BLOCK: usize = 64 * 1024;

/// The template's memory, as it was when it was first looked at, and how often it was another since.
#[derive(Default)]
pub struct TemplateMemory {
    first: OnceCell<String>,
    looked: Cell<usize>,
    changes: Cell<usize>,
}

impl TemplateMemory {
    /// Digests what the controller with this process id has.
    pub fn look(&self, controller: u32) -> Result<()> {
        let now = digest(&memfd(controller)?)?;
        let first = self.first.get_or_init(|| now.clone());
        self.looked.set(self.looked.get() + 1);
        if *first != now {
            eprintln!("The template's memory has changed: its digest was {first}, and is {now}.");
            self.changes.set(self.changes.get() + 1);
        }
        Ok(())
    }

    /// How often it was not what it was first.
    pub fn changes(&self) -> usize {
        self.changes.get()
    }

    /// Whether it is what it was; `None` where it was not looked at twice.
    pub fn unchanged(&self) -> Option<bool> {
        (self.looked.get() > 1).then(|| self.changes() == 0)
    }
}

/// The one template's memory that a process has open.
fn memfd(process: u32) -> Result<PathBuf> {
    let folder = format!("/proc/{process}/fd");
    let prefix = format!("/memfd:{MEMORY} ");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(&folder).with_context(|| format!("reading {folder} failed"))? {
        let path = entry?.path();
        // One that is closed meanwhile is none.
        let is_memory = |target: PathBuf| target.to_string_lossy().starts_with(&prefix);
        if std::fs::read_link(&path).is_ok_and(is_memory)
            && let Ok(metadata) = std::fs::metadata(&path)
        {
            found.insert(metadata.ino(), path);
        }
    }
    let count = found.len();
    ensure!(count == 1, "the process {process} has the memory of {count} templates, not of one");
    found.into_values().next().context("it has none")
}

/// SHA-256 over each block that is not all zeros, after its number.
fn digest(path: &Path) -> Result<String> {
    let failed = || format!("reading the template's memory at {} failed", path.display());
    let mut file = File::open(path).with_context(failed)?;
    let (mut digest, zeros, mut block) = (Sha256::new(), vec![0; BLOCK], vec![0; BLOCK]);
    for number in 0_u64.. {
        match file.read_exact(&mut block) {
            Ok(()) if block == zeros => {}
            Ok(()) => {
                digest.update(number.to_le_bytes());
                digest.update(&block);
            }
            // A VM's memory has whole blocks.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error).with_context(failed),
        }
    }
    Ok(hex::encode(digest.finalize()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn one_byte_that_a_template_has_otherwise_is_a_change() {
        let memory = anteroom_template::in_memory(MEMORY).unwrap();
        memory.set_len(8 * BLOCK as u64).unwrap();
        memory.write_all_at(&[7], 3 * BLOCK as u64 + 5).unwrap();
        let (seen, own) = (TemplateMemory::default(), std::process::id());
        seen.look(own).unwrap();
        assert_eq!(seen.unchanged(), None);
        seen.look(own).unwrap();
        assert_eq!(seen.unchanged(), Some(true));
        // In a block that was all zeros.
        memory.write_all_at(&[1], 6 * BLOCK as u64).unwrap();
        seen.look(own).unwrap();
        assert_eq!((seen.unchanged(), seen.changes()), (Some(false), 1));
        drop(memory);
        assert!(seen.look(own).is_err());
    }
}
