//! One declared file of a credential.

use std::fs::OpenOptions;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anteroom_guest_protocol::{CredentialFileSpec, SQLITE_COMPANIONS, name_matches};
use anyhow::Result;

use super::bundle::BundledFile;
use super::complete::Complete;
use super::look::Look;
use super::missing::Missing;
use crate::guest::{GUEST_UID, Guest, GuestKind};

/// Names that are looked at in a folder, when a file's is only known afterwards.
const MAX_NAMES: usize = 4096;

/// A file, resolved for this sandbox.
pub struct WatchedFile {
    /// From the home on, as the provider file has it: with a `*` perhaps.
    pub declared: String,
    /// Where it is looked for.
    pub home: PathBuf,
    /// What must be in it.
    pub complete: Complete,
    /// Whether the credential is complete without it.
    pub optional: bool,
    /// The largest that is taken.
    pub max_bytes: u64,
    /// Whose it must be, by user id.
    pub owner: Option<u32>,
}

/// Whose the files must be.
pub fn owner(guest: &Guest) -> Option<u32> {
    (guest.kind == GuestKind::Vm).then_some(GUEST_UID)
}

impl WatchedFile {
    pub fn new(spec: &CredentialFileSpec, guest: &Guest) -> Result<Self> {
        Ok(Self {
            declared: spec.path.clone(),
            home: guest.home.clone(),
            complete: Complete::of(spec)?,
            optional: spec.optional,
            max_bytes: spec.max_bytes,
            owner: owner(guest),
        })
    }

    /// One look at the file, or at each that has such a name; none for an optional one that is not
    /// there.
    pub fn look(&self) -> Result<Vec<BundledFile>, Look> {
        let mut found = Vec::new();
        let mut missing = None;
        for name in self.names() {
            match self.look_at(&name) {
                Ok(Some(file)) => found.push(file),
                Ok(None) => {}
                Err(Look::Incomplete(what)) => missing = missing.or(Some(what)),
                Err(look) => return Err(look),
            }
        }
        if found.iter().any(|file| !self.is_companion(&file.path)) {
            return Ok(found);
        }
        // Of files whose names are not known beforehand, others may be called alike.
        let waits = !self.optional || !self.declared.contains('*');
        match missing {
            Some(missing) if waits => Err(Look::Incomplete(missing)),
            None if !self.optional => {
                Err(Look::Incomplete(Missing::File { name: self.declared.clone() }))
            }
            _ => Ok(Vec::new()),
        }
    }

    /// The names that this file may have, of those that are there when it is known by a pattern; and
    /// what SQLite keeps beside it.
    fn names(&self) -> Vec<String> {
        let declared = Path::new(&self.declared);
        let mut names = if self.declared.contains('*') {
            let folder = declared.parent().unwrap_or(Path::new(""));
            let listed = std::fs::read_dir(self.home.join(folder)).into_iter().flatten().flatten();
            let mut names: Vec<String> = listed
                .take(MAX_NAMES)
                .filter_map(|entry| {
                    folder.join(entry.file_name()).into_os_string().into_string().ok()
                })
                .filter(|name| name_matches(&self.declared, name))
                .collect();
            names.sort();
            names
        } else {
            vec![self.declared.clone()]
        };
        if matches!(self.complete, Complete::Binary) {
            let companions = |name: &String| SQLITE_COMPANIONS.map(|end| format!("{name}{end}"));
            names.extend(names.clone().iter().flat_map(companions));
            names.sort();
            names.dedup();
        }
        names
    }

    /// Whether this name is not the file's own, but of what SQLite may keep beside it.
    pub fn is_companion(&self, name: &str) -> bool {
        let beside = |end| {
            let of = name.strip_suffix(end);
            of.is_some_and(|of| name_matches(&self.declared, of))
        };
        matches!(self.complete, Complete::Binary) && SQLITE_COMPANIONS.into_iter().any(beside)
    }

    /// One look at one file. Hostile by assumption: no symlink is followed, no FIFO waited on, no more
    /// read than may be taken.
    pub fn look_at(&self, name: &str) -> Result<Option<BundledFile>, Look> {
        let path = self.home.join(name);
        let refused = |what: String| Err(Look::Refused(format!("{} {what}", path.display())));
        let missing = || Look::Incomplete(Missing::File { name: name.to_owned() });
        let optional = self.optional || self.is_companion(name);
        if let Some(folder) = linked_folder(&path, name) {
            return refused(format!("is behind a symbolic link, {}", folder.display()));
        }
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_CLOEXEC;
        let file = match OpenOptions::new().read(true).custom_flags(flags).open(&path) {
            Ok(file) => file,
            Err(error) if error.raw_os_error() == Some(libc::ELOOP) => {
                return refused("is a symbolic link".into());
            }
            Err(_) if optional => return Ok(None),
            Err(error) if !is_absent(&error) => {
                let what = format!("cannot be opened ({error})");
                return Err(Look::Incomplete(Missing::Content { name: name.to_owned(), what }));
            }
            Err(_) => return Err(missing()),
        };
        let metadata = file.metadata().map_err(|_| missing())?;
        if !metadata.is_file() {
            return refused("is not a regular file".into());
        }
        if self.owner.is_some_and(|owner| owner != metadata.uid()) {
            return refused(format!("belongs to user {}", metadata.uid()));
        }
        if metadata.len() > self.max_bytes {
            return refused(format!(
                "has {} bytes; at most {} are allowed",
                metadata.len(),
                self.max_bytes
            ));
        }
        let mut content = Vec::new();
        file.take(self.max_bytes + 1).read_to_end(&mut content).map_err(|_| missing())?;
        match self.complete.wrong_with(&content) {
            Some(_) if optional && content.is_empty() => Ok(None),
            Some(what) => Err(Look::Incomplete(Missing::Content { name: name.to_owned(), what })),
            None => Ok(Some(BundledFile {
                path: name.to_owned(),
                mode: metadata.mode() & 0o777,
                content,
            })),
        }
    }
}

/// Whether there is nothing of that name.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

/// A folder between the home and the file of this name that is a symbolic link.
fn linked_folder<'a>(path: &'a Path, name: &str) -> Option<&'a Path> {
    let below_home = Path::new(name).components().count().saturating_sub(1);
    let mut folders = path.ancestors().skip(1).take(below_home);
    folders.find(|folder| folder.is_symlink())
}
