//! What of a machine programs consist of.

use std::io;
use std::path::{Path, PathBuf};

/// Programs, libraries and what they find each other by. What is not there, or is a link, is so on this
/// machine.
const SYSTEM: [&str; 9] = [
    "/usr",
    "/bin",
    "/lib",
    "/lib64",
    "/opt",
    "/nix",
    "/gnu",
    "/etc/alternatives",
    "/etc/ld.so.cache",
];

/// Folders of programs, beside which libraries and firmware of the same build are.
const OF_PROGRAMS: [&str; 2] = ["bin", "build"];

/// All that a program at this path may need to run: the system's, and of somebody's own build the
/// folder that it is installed in, with its libraries and firmware, or the program alone where it is in
/// no `bin` of such.
///
/// # Errors
/// When the program cannot be looked at.
pub fn parts_of(program: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(parts(&std::fs::canonicalize(program)?))
}

fn parts(program: &Path) -> Vec<PathBuf> {
    let mut parts = SYSTEM.map(PathBuf::from).to_vec();
    if !parts.iter().any(|folder| program.starts_with(folder)) {
        let is_of_programs = |folder: &Path| OF_PROGRAMS.iter().any(|name| folder.ends_with(name));
        let mut folders = program.ancestors().skip(1);
        // Never the whole machine.
        let own = match (folders.next(), folders.next()) {
            (Some(bin), Some(own)) if is_of_programs(bin) && own.parent().is_some() => own,
            _ => program,
        };
        parts.push(own.to_path_buf());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_build_of_somebody_s_own_brings_its_folder_and_never_the_machine() {
        let own = |program: &str| parts(Path::new(program)).split_off(SYSTEM.len());
        assert_eq!(own("/usr/bin/qemu"), [] as [PathBuf; 0]);
        assert_eq!(own("/opt/qemu/bin/qemu"), [] as [PathBuf; 0]);
        assert_eq!(own("/home/me/qemu/bin/qemu"), [PathBuf::from("/home/me/qemu")]);
        assert_eq!(own("/home/me/qemu/build/qemu"), [PathBuf::from("/home/me/qemu")]);
        for alone in ["/home/me/release/firecracker", "/tools/qemu", "/qemu", "/build/qemu"] {
            assert_eq!(own(alone), [PathBuf::from(alone)]);
        }
    }

    #[test]
    fn a_program_is_where_its_links_lead() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(folder.join("build/bin")).unwrap();
        std::fs::write(folder.join("build/bin/qemu"), "").unwrap();
        std::os::unix::fs::symlink(folder.join("build/bin/qemu"), folder.join("qemu")).unwrap();
        let parts = parts_of(&folder.join("qemu")).unwrap();
        assert_eq!(parts.last(), Some(&folder.join("build")));
        assert!(parts_of(Path::new("/nowhere/qemu")).is_err());
    }
}
