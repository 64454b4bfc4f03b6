//! Small text files that somebody names or lays into a folder: read whole, and never waited for.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;

/// The largest text file that is read, in bytes.
pub const MAX_TEXT: u64 = 1024 * 1024;

/// Opens a regular file; a link to one is followed.
///
/// # Errors
/// When it cannot be opened, or is something else.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let regular = |found: std::fs::Metadata| {
        let other = || io::Error::other("it is not a regular file");
        if found.is_file() { Ok(()) } else { Err(other()) }
    };
    // Opening a device can do something, and a pipe waits for its other end: what it is, is asked
    // before, and nobody is waited for should it be another by now.
    regular(std::fs::metadata(path)?)?;
    let no_wait = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let file = File::options().read(true).custom_flags(no_wait.bits()).open(path)?;
    regular(file.metadata()?)?;
    Ok(file)
}

/// The text of a regular file of at most [`MAX_TEXT`].
///
/// # Errors
/// When it cannot be read, is larger, or is something else.
pub fn read_text(path: &Path) -> io::Result<String> {
    utf8(read_to_end(open_regular(path)?, MAX_TEXT)?)
}

/// The text of a file or pipe of at most `most` bytes; a pipe's other end is waited for.
///
/// # Errors
/// When it cannot be read, or is larger.
pub fn read_text_or_pipe(path: &Path, most: u64) -> io::Result<String> {
    utf8(read_to_end(File::open(path)?, most)?)
}

fn read_to_end(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // Its length is no promise: it may grow, and those of /proc have none.
    from.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(io::Error::other(format!("it is larger than {} KiB", most / 1024)));
    }
    Ok(bytes)
}

fn utf8(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|_| io::Error::other("it is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_regular_file_is_read_to_its_bound_and_nothing_else_is_opened() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("text");
        let said = |path: &Path| read_text(path).unwrap_err().to_string();
        let most = usize::try_from(MAX_TEXT).unwrap();
        std::fs::write(&path, "a".repeat(most)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(read_text(&link).unwrap().len(), most);
        std::fs::write(&path, "a".repeat(most + 1)).unwrap();
        assert_eq!(said(&path), "it is larger than 1024 KiB");
        // Cut in the middle of a letter, it is too large all the same.
        std::fs::write(&path, format!("{}é", "a".repeat(most))).unwrap();
        assert_eq!(said(&path), "it is larger than 1024 KiB");
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for odd in [&pipe, Path::new("/dev/zero"), folder.path()] {
            assert_eq!(said(odd), "it is not a regular file", "{}", odd.display());
        }
        let endless = read_text_or_pipe(Path::new("/dev/zero"), 1024).unwrap_err();
        assert_eq!(endless.to_string(), "it is larger than 1 KiB");
        let missing = read_text(&folder.path().join("missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
