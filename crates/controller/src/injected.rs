//! The files that a caller puts into a session's sandbox.

use anteroom_api::StartFile;
use anteroom_provider::{InjectedFile, is_guest_path};

/// Injected files of one session, together.
const MAX_FILES: usize = 32;

/// The files, if all of them are valid.
pub fn injected(files: Vec<StartFile>) -> Result<Vec<InjectedFile>, String> {
    if files.len() > MAX_FILES {
        return Err(format!("at most {MAX_FILES} files can be injected"));
    }
    files
        .into_iter()
        .map(|file| {
            let owner = file.owner.unwrap_or_else(|| "person".to_owned());
            let mode = file.mode.unwrap_or(0o600);
            if !is_guest_path(&file.path) {
                return Err(format!(
                    "{:?} is not a path in the guest; it must be absolute or start with ~/",
                    file.path
                ));
            }
            if !["person", "root"].contains(&owner.as_str()) {
                return Err(format!("the owner of {} must be root or person", file.path));
            }
            if mode > 0o777 || file.content.len() > 1024 * 1024 {
                return Err(format!(
                    "{} must be at most 1 MiB, with a mode of at most 511",
                    file.path
                ));
            }
            Ok(InjectedFile { path: file.path, owner, mode, content: file.content })
        })
        .collect()
}
