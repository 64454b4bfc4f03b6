//! Why a program cannot be started, by looking at it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anteroom_crash::{elf, elf32};
use anteroom_guest_protocol::{MAX_EVIDENCE_TEXT, NotStarted};
use object::ReadCache;

/// The longest first line of a script (BINPRM_BUF_SIZE of Linux).
const FIRST_LINE: usize = 256;

/// Looks at the program of a command before it is started: what the C library would otherwise hand
/// to a shell, or report by a bare "not found".
pub fn look(command: &Command) -> Result<(), NotStarted> {
    let program = command.get_program();
    let path = command
        .get_envs()
        .find_map(|(name, value)| (name == "PATH").then_some(value).flatten())
        .map(|path| path.to_string_lossy().into_owned())
        .unwrap_or_default();
    let named = text(&program.to_string_lossy());
    let Some(found) = find(Path::new(program), &path) else {
        return Err(NotStarted::NoProgram { program: named });
    };
    look_at(&found)
}

/// In each folder of PATH; the first that is there and may be executed, else the first that is there.
fn find(program: &Path, path: &str) -> Option<PathBuf> {
    if program.components().count() > 1 {
        return program.exists().then(|| program.to_path_buf());
    }
    let candidates = || path.split(':').map(|folder| Path::new(folder).join(program));
    candidates()
        .find(|path| mode(path).is_some_and(|mode| mode & 0o111 != 0))
        .or_else(|| candidates().find(|path| path.is_file()))
}

fn mode(path: &Path) -> Option<u32> {
    let metadata = path.metadata().ok()?;
    metadata.is_file().then(|| metadata.permissions().mode())
}

fn look_at(path: &Path) -> Result<(), NotStarted> {
    let program = text(&path.to_string_lossy());
    if path.is_dir() {
        return Err(NotStarted::Other { program, errno: libc::EISDIR });
    }
    match mode(path) {
        Some(mode) if mode & 0o111 != 0 => {}
        mode => return Err(NotStarted::NotExecutable { program, mode: mode.unwrap_or(0) }),
    }
    let other = |error: std::io::Error| NotStarted::Other {
        program: program.clone(),
        errno: error.raw_os_error().unwrap_or(0),
    };
    let mut file = File::open(path).map_err(other)?;
    let mut head = vec![0; FIRST_LINE];
    let count = file.read(&mut head).map_err(other)?;
    head.truncate(count);
    let interpreter = if let Some(line) = head.strip_prefix(b"#!") {
        let line = line.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let line = String::from_utf8_lossy(line).into_owned();
        // As the kernel does: a carriage return is a part of the name.
        line.split([' ', '\t']).find(|word| !word.is_empty()).map(str::to_owned)
    } else {
        let file = ReadCache::new(file);
        let facts = elf::facts(&file).ok().map(|facts| facts.interpreter);
        match facts.or_else(|| elf32::interpreter(&file)) {
            Some(Some(interpreter)) => Some(interpreter),
            Some(None) => return Ok(()),
            None => None,
        }
    };
    match interpreter {
        Some(interpreter) if Path::new(&interpreter).exists() => Ok(()),
        Some(interpreter) => {
            let interpreter = text(&interpreter.replace('\r', "\\r"));
            Err(NotStarted::NoInterpreter { program, interpreter })
        }
        None => Err(match elf::other_processor(&head) {
            Some(processor) => NotStarted::OtherProcessor { program, processor },
            None => {
                let begins_with = hex::encode(&head[..head.len().min(8)]);
                NotStarted::NotAProgram { program, begins_with }
            }
        }),
    }
}

fn text(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_EVIDENCE_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(content: &[u8], mode: u32) -> Result<(), NotStarted> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        look(Command::new(&path).env("PATH", "/bin"))
    }

    /// A program for 32-bit x86, of nothing but headers.
    fn for_32_bits(interpreter: Option<&[u8]>) -> Vec<u8> {
        let mut program = b"\x7fELF\x01\x01\x01".to_vec();
        program.resize(16, 0);
        program.extend([2, 0, 3, 0, 1, 0, 0, 0]);
        program.extend([0_u32, 52, 0, 0].map(u32::to_le_bytes).concat());
        program.extend([52, 0, 32, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
        let (kind, length) =
            interpreter.map_or((1, 0), |path| (3, u32::try_from(path.len()).unwrap()));
        program.extend([kind, 84, 0, 0, length, length, 4, 1].map(u32::to_le_bytes).concat());
        program.extend(interpreter.unwrap_or_default());
        program
    }

    #[test]
    fn each_obstacle_is_named() {
        assert_eq!(at(b"#!/bin/sh\n", 0o755), Ok(()));
        let missing = at(b"#!/usr/bin/nodejs-9 --flag\n", 0o755).unwrap_err();
        assert!(
            matches!(&missing, NotStarted::NoInterpreter { interpreter, .. } if interpreter == "/usr/bin/nodejs-9")
        );
        let carriage_return = at(b"#!/bin/sh\r\necho\r\n", 0o755).unwrap_err();
        assert!(
            matches!(&carriage_return, NotStarted::NoInterpreter { interpreter, .. } if interpreter == "/bin/sh\\r")
        );
        assert_eq!(at(b"#! /bin/sh -e\n", 0o755), Ok(()));
        assert!(matches!(at(b"#!/bin/sh\n", 0o644), Err(NotStarted::NotExecutable { .. })));
        assert!(matches!(at(b"nothing", 0o755), Err(NotStarted::NotAProgram { .. })));
        let mut arm = b"\x7fELF\x02\x01\x01".to_vec();
        arm.resize(16, 0);
        arm.extend([3, 0, 183, 0]);
        let other = at(&arm, 0o755).unwrap_err();
        assert!(
            matches!(&other, NotStarted::OtherProcessor { processor, .. } if processor.contains("AArch64")),
            "{other:?}"
        );
        assert_eq!(at(&for_32_bits(None), 0o755), Ok(()));
        let loader = at(&for_32_bits(Some(b"/lib/ld-none.so.2\0")), 0o755).unwrap_err();
        assert!(
            matches!(&loader, NotStarted::NoInterpreter { interpreter, .. } if interpreter == "/lib/ld-none.so.2"),
            "{loader:?}"
        );
        assert!(matches!(at(b"", 0o755), Err(NotStarted::NotAProgram { .. })));
        assert_eq!(look(Command::new("sh").env("PATH", "/nowhere:/bin")), Ok(()));
        let none = look(Command::new("sh").env("PATH", "/nowhere")).unwrap_err();
        assert_eq!(none, NotStarted::NoProgram { program: "sh".into() });
        // This test's own program: an ELF file with an interpreter that is there.
        assert_eq!(look(&Command::new(std::env::current_exe().unwrap())), Ok(()));
    }
}
