//! The files that a caller puts into a session's sandbox.

use anteroom_api::StartFile;
use anteroom_provider::{InjectedFile, guest_path_problem};

/// Injected files of one session, together.
const MAX_FILES: usize = 32;

/// The longest of them, in bytes.
const MAX_CONTENT: usize = 1024 * 1024;

/// Every permission bit.
const MAX_MODE: u32 = 0o777;

/// The files, if all of them are valid.
pub fn injected(files: Vec<StartFile>) -> Result<Vec<InjectedFile>, String> {
    if files.len() > MAX_FILES {
        return Err(format!(
            "there are {} files; at most {MAX_FILES} can be injected",
            files.len()
        ));
    }
    files.into_iter().map(injected_file).collect()
}

fn injected_file(file: StartFile) -> Result<InjectedFile, String> {
    let StartFile { path, owner, mode, content } = file;
    let owner = owner.unwrap_or_else(|| "person".to_owned());
    let mode = mode.unwrap_or(0o600);
    if let Some(problem) = guest_path_problem(&path) {
        return Err(format!("{path:?} is not a path of a file in the guest: it {problem}"));
    }
    if !["person", "root"].contains(&owner.as_str()) {
        return Err(format!("the owner of {path} is {owner:?}; it must be root or person"));
    }
    if mode > MAX_MODE {
        return Err(format!(
            "the mode of {path} is {mode} (octal {mode:o}); it may be at most {MAX_MODE} (octal {MAX_MODE:o})"
        ));
    }
    if content.len() > MAX_CONTENT {
        return Err(format!(
            "the content of {path} has {} bytes; it may have at most {MAX_CONTENT}",
            content.len()
        ));
    }
    Ok(InjectedFile { path, owner, mode, content })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &str, mode: u32, length: usize) -> String {
        let content = "x".repeat(length);
        let file = StartFile { path: path.to_owned(), owner: None, mode: Some(mode), content };
        injected(vec![file]).unwrap_err()
    }

    #[test]
    fn a_file_is_refused_for_what_is_wrong_with_it() {
        for (path, says) in [
            ("etc/x", "it must be absolute or start with ~/"),
            ("~/../../etc/passwd", "it may not contain the parts . or .."),
            ("/", "it must name a file"),
            ("~/a//b", "it must name a file, with one / between"),
            ("~/x\0y", "it may not contain a NUL character"),
        ] {
            let said = refused(path, 0o600, 0);
            assert!(said.contains(says) && said.contains(&format!("{path:?}")), "{said}");
        }
        let said = refused("/x", 0o1000, 0);
        assert_eq!(said, "the mode of /x is 512 (octal 1000); it may be at most 511 (octal 777)");
        let said = refused("/x", 0o777, MAX_CONTENT + 1);
        assert_eq!(said, "the content of /x has 1048577 bytes; it may have at most 1048576");
    }
}
