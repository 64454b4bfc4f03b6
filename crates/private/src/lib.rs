//! Files and folders that hold secrets: written so that nobody else's hand is in it, and looked at
//! before they are used.

mod text;

use std::fs::Metadata;
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

pub use text::{MAX_TEXT, open_regular, read_text, read_text_or_pipe};

/// A file or folder cannot be written, or must not be used as it is. One sentence, with its cause.
#[derive(Debug, thiserror::Error)]
pub enum PrivateError {
    /// What was tried, and why it failed.
    #[error("{operation}: {cause}")]
    Failed {
        /// With its path.
        operation: String,
        /// Why.
        cause: Box<PrivateError>,
    },
    /// The system refused it.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Others can read or change it, or it is not what it should be; and how to mend that.
    #[error("{0}")]
    Refused(String),
    /// Something is where a new file was to be.
    #[error("something already exists there")]
    Exists,
}

fn failed<E: Into<PrivateError>>(operation: String) -> impl FnOnce(E) -> PrivateError {
    move |cause| PrivateError::Failed { operation, cause: Box::new(cause.into()) }
}

fn refused<T>(why: String) -> Result<T, PrivateError> {
    Err(PrivateError::Refused(why))
}

/// Permission bits of others than the owner.
const OTHERS: u32 = 0o077;
/// Of these, those that let them write.
const OTHERS_WRITE: u32 = 0o022;
/// In a folder with this bit, others replace and remove nothing that is not theirs.
const STICKY: u32 = 0o1000;

/// Writes a file that its owner alone may read: a new one, which takes the path in one step. A link
/// that lies there, a folder, a device or a pipe is refused; a file is replaced, whoever made it.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), PrivateError> {
    write_with_mode(path, bytes, 0o600)
}

/// The same where nothing is; otherwise [`PrivateError::Exists`].
pub fn write_new(path: &Path, bytes: &[u8]) -> Result<(), PrivateError> {
    let operation = format!("writing {} failed", path.display());
    let file = beside(path, bytes, 0o600).map_err(failed(operation.clone()))?;
    file.persist_noclobber(path).map(drop).map_err(|error| match error.error.kind() {
        ErrorKind::AlreadyExists => PrivateError::Exists,
        _ => failed(operation)(error.error),
    })
}

/// The same with other permission bits.
pub fn write_with_mode(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PrivateError> {
    replace(path, bytes, mode).map_err(failed(format!("writing {} failed", path.display())))
}

fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), PrivateError> {
    check_target(path)?;
    beside(path, bytes, mode)?.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// A file of this content on its way to a path, in the same folder.
fn beside(path: &Path, bytes: &[u8], mode: u32) -> Result<NamedTempFile, PrivateError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // Exclusive (O_EXCL), so it is no link of somebody's, and with a name that nobody can foretell.
    let mut file = tempfile::Builder::new()
        .prefix(".anteroom-")
        .permissions(PermissionsExt::from_mode(mode))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .map_err(without_path)?;
    file.write_all(bytes).map_err(without_path)?;
    // Whatever the umask says.
    file.as_file().set_permissions(PermissionsExt::from_mode(mode))?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// An error of `tempfile`'s without the name that it made up, which is at its end.
fn without_path(error: io::Error) -> io::Error {
    let text = error.to_string();
    match text.rsplit_once(" at path ") {
        Some((cause, _)) => io::Error::new(error.kind(), cause),
        None => error,
    }
}

/// What lies at a path that is to be written must be a file, or nothing.
fn check_target(path: &Path) -> Result<(), PrivateError> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error.into()),
        Ok(found) if found.is_file() => Ok(()),
        Ok(found) => {
            let there = kind(&found);
            refused(format!("{there} already exists; remove it, or choose another file"))
        }
    }
}

fn kind(found: &Metadata) -> &'static str {
    let file_type = found.file_type();
    if file_type.is_symlink() {
        "a link"
    } else if file_type.is_dir() {
        "a folder"
    } else {
        "not a regular file"
    }
}

/// Refuses a state folder, or a secret in it, that others can change or that is not ours; says which
/// command mends it.
pub fn check_state(dir: &Path) -> Result<(), PrivateError> {
    check_folder(dir, "0700")?;
    let names = [
        "anteroom.db",
        "anteroom.db-journal",
        "anteroom.db-wal",
        "anteroom.db-shm",
        "cli.json",
        "controller.json",
        "first-key.txt",
        "template-key.pem",
    ];
    let mut secrets: Vec<PathBuf> = names.iter().map(|name| dir.join(name)).collect();
    for (name, holds_secrets) in [("vault", true), ("waiting", true), ("logs", false)] {
        let folder = dir.join(name);
        if !exists(&folder)? {
            continue;
        }
        check_own(&folder, Secret::Folder)?;
        if holds_secrets {
            let entries = std::fs::read_dir(&folder)
                .map_err(failed(format!("reading {} failed", folder.display())))?;
            for entry in entries {
                secrets.push(entry?.path());
            }
        }
    }
    secrets.iter().try_for_each(|secret| check_own(secret, Secret::File))
}

/// Refuses folders that others can change, of those that are there: what lies in them is run, or kept.
pub fn check_used(dirs: &[&Path]) -> Result<(), PrivateError> {
    dirs.iter().filter(|dir| dir.exists()).try_for_each(|dir| check_folder(dir, "0755"))
}

/// Refuses a folder that others can change: it, or one that it is in. `mode` is what it should have.
fn check_folder(dir: &Path, mode: &str) -> Result<(), PrivateError> {
    // A link to it is the operator's; what counts is where it leads.
    let real = dir
        .canonicalize()
        .map_err(failed(format!("looking at the folder {} failed", dir.display())))?;
    let found = look(&real)?;
    let shown = real.display();
    if !found.is_dir() {
        return refused(format!("{shown} is {}, not a folder", kind(&found)));
    }
    // Root's is as good: images that everybody on a machine uses.
    if found.uid() != 0 {
        check_owner(&real, &found)?;
    }
    if found.mode() & OTHERS_WRITE != 0 {
        return refused(format!(
            "others can write to the folder {shown} (mode {:04o}); close it with `chmod {mode} {}`",
            found.mode() & 0o7777,
            quoted(&real)
        ));
    }
    check_above(&real)?;
    // The links on the way to it are followed again when it is used.
    check_links(dir)
}

/// Refuses a folder that others can replace, since those above it are theirs or open to them.
fn check_above(real: &Path) -> Result<(), PrivateError> {
    let shown = real.display();
    for above in real.ancestors().skip(1) {
        let found = look(above)?;
        let mode = found.mode();
        let everybody = mode & 0o002 != 0;
        // One of ours is most likely ours alone, as distributions make them.
        let a_group = mode & 0o020 != 0 && !is_own_group(&found);
        if (everybody || a_group) && mode & STICKY == 0 {
            let (who, bits) = if everybody { ("everybody", "go-w") } else { ("a group", "g-w") };
            return refused(format!(
                "others can replace {shown}, because {who} can write to {} (mode {:04o}); prevent that with `chmod {bits} {}`",
                above.display(),
                mode & 0o7777,
                quoted(above)
            ));
        }
        if !is_trusted(&found) {
            return refused(format!(
                "the user {} can replace {shown}, because {} belongs to them; move it elsewhere, or give that folder to root with `chown root {}`",
                found.uid(),
                above.display(),
                quoted(above)
            ));
        }
    }
    Ok(())
}

/// Refuses a path in which somebody else made a link: they can lead it elsewhere at any time.
fn check_links(path: &Path) -> Result<(), PrivateError> {
    let path = std::path::absolute(path)
        .map_err(failed(format!("looking at the folder {} failed", path.display())))?;
    for part in path.ancestors() {
        let found = look(part)?;
        if found.is_symlink() && !is_trusted(&found) {
            return refused(format!(
                "{} is a link that belongs to the user {}, who can point it elsewhere; pass the folder itself, {}",
                part.display(),
                found.uid(),
                path.canonicalize().unwrap_or(path.clone()).display()
            ));
        }
    }
    Ok(())
}

fn is_own_group(found: &Metadata) -> bool {
    found.gid() == 0 || found.gid() == nix::unistd::getegid().as_raw()
}

/// Refuses a folder of text files, or a file in it, that everybody can change.
pub fn check_texts(dir: &Path) -> Result<(), PrivateError> {
    providers_are_there(dir)?;
    let looking = || failed(format!("looking at the folder {} failed", dir.display()));
    let files = std::fs::read_dir(dir).map_err(looking())?;
    let files = files.map(|file| file.map(|file| file.path()));
    for path in std::iter::once(Ok(dir.to_path_buf())).chain(files) {
        let path = path.map_err(looking())?;
        // As they are read: a link to one is the operator's.
        let mode = std::fs::metadata(&path).map_err(looking())?.mode();
        if mode & 0o002 != 0 {
            return refused(format!(
                "everybody can change {} (mode {:04o}); close it with `chmod o-w {}`",
                path.display(),
                mode & 0o7777,
                quoted(&path)
            ));
        }
    }
    Ok(())
}

/// There is a folder of provider files.
pub fn providers_are_there(dir: &Path) -> Result<(), PrivateError> {
    if exists(dir)? {
        return Ok(());
    }
    refused(format!(
        "the folder {} of provider files does not exist; create it, or pass another with --providers (the demo's, \
         target/demo/providers, exists while `cargo xtask provider` runs)",
        dir.display()
    ))
}

/// Whether it is root's or ours: whoever has either can do all that we do.
fn is_trusted(found: &Metadata) -> bool {
    found.uid() == 0 || found.uid() == nix::unistd::geteuid().as_raw()
}

enum Secret {
    File,
    Folder,
}

/// Refuses a secret that is not ours alone; one that is not there, as a controller removes some, is none.
fn check_own(path: &Path, secret: Secret) -> Result<(), PrivateError> {
    let Some(found) = look_if_there(path)? else { return Ok(()) };
    let shown = path.display();
    let (is_right, mode) = match secret {
        Secret::File => (found.is_file(), "0600"),
        Secret::Folder => (found.is_dir(), "0700"),
    };
    if !is_right {
        return refused(format!(
            "{shown} is {}; move it away: `mv {q} {q}.away`",
            kind(&found),
            q = quoted(path)
        ));
    }
    if matches!(secret, Secret::File) && found.nlink() > 1 {
        return refused(format!(
            "{shown} has another name somewhere (a hard link); make it a file of its own: `cp {q} {q}.new && mv {q}.new {q}`",
            q = quoted(path)
        ));
    }
    check_owner(path, &found)?;
    if found.mode() & OTHERS != 0 {
        return refused(format!(
            "{shown} is open to others (mode {:04o}); close it with `chmod {mode} {}`",
            found.mode() & 0o7777,
            quoted(path)
        ));
    }
    Ok(())
}

fn check_owner(path: &Path, found: &Metadata) -> Result<(), PrivateError> {
    let we = nix::unistd::geteuid().as_raw();
    if found.uid() != we {
        return refused(format!(
            "{} belongs to the user {}, but this command runs as the user {we}; change that with `chown {we} {}`, or run the command as the owner",
            path.display(),
            found.uid(),
            quoted(path)
        ));
    }
    Ok(())
}

/// Whether this very content lies at a path, in a file of ours that nobody else can change.
pub fn holds(path: &Path, content: &[u8]) -> bool {
    let no_link = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let opened = std::fs::OpenOptions::new().read(true).custom_flags(no_link).open(path);
    let Ok(mut file) = opened else { return false };
    let Ok(found) = file.metadata() else { return false };
    let is_ours = found.is_file()
        && found.uid() == nix::unistd::geteuid().as_raw()
        && found.mode() & OTHERS_WRITE == 0
        && found.len() == content.len() as u64;
    let mut bytes = Vec::new();
    is_ours && std::io::Read::read_to_end(&mut file, &mut bytes).is_ok() && bytes == content
}

fn look(path: &Path) -> Result<Metadata, PrivateError> {
    std::fs::symlink_metadata(path).map_err(failed(format!("cannot inspect {}", path.display())))
}

fn exists(path: &Path) -> Result<bool, PrivateError> {
    Ok(look_if_there(path)?.is_some())
}

fn look_if_there(path: &Path) -> Result<Option<Metadata>, PrivateError> {
    match std::fs::symlink_metadata(path) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(format!("cannot inspect {}", path.display()))(error)),
    }
}

/// A path as a shell takes it.
pub fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain =
        |c: char| c.is_ascii_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '+' | ':');
    if text.chars().all(is_plain) {
        return text;
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn mode(path: &Path, mode: u32) {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }

    fn state() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["vault", "waiting"] {
            std::fs::create_dir(folder.path().join(name)).unwrap();
            mode(&folder.path().join(name), 0o700);
        }
        for secret in [
            "anteroom.db",
            "cli.json",
            "controller.json",
            "template-key.pem",
            "waiting/00.json",
            "vault/identity.txt",
            "vault/controller.pem",
        ] {
            std::fs::write(folder.path().join(secret), "x").unwrap();
            mode(&folder.path().join(secret), 0o600);
        }
        folder
    }

    fn refusal(dir: &Path) -> String {
        format!("{:#}", check_state(dir).unwrap_err())
    }

    #[test]
    fn what_is_written_is_a_new_file_of_ours_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "of somebody").unwrap();
        mode(&path, 0o666);
        let theirs = std::fs::File::open(&path).unwrap();
        write(&path, b"ours").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        // Whoever has the file open that lay there reads nothing of it.
        let mut seen = String::new();
        std::io::Read::read_to_string(&mut &theirs, &mut seen).unwrap();
        assert_eq!(
            (seen.as_str(), std::fs::read(&path).unwrap()),
            ("of somebody", b"ours".to_vec())
        );
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn no_link_is_followed_and_nothing_else_is_written_to() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("secret"), folder.path().join("victim"));
        std::fs::write(&victim, "whole").unwrap();
        for target in [victim.as_path(), Path::new("/nowhere/at/all")] {
            symlink(target, &path).unwrap();
            let refused = format!("{:#}", write(&path, b"x").unwrap_err());
            assert!(refused.contains("a link already exists"), "{refused}");
            std::fs::remove_file(&path).unwrap();
        }
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(write(&path, b"x").is_err());
        assert!(write(folder.path(), b"x").is_err());
        assert_eq!(std::fs::read(&victim).unwrap(), b"whole");
    }

    #[test]
    fn a_state_that_others_can_change_or_read_is_refused_with_what_mends_it() {
        let folder = state();
        let dir = folder.path().canonicalize().unwrap();
        check_state(&dir).unwrap();
        for (path, open, closed, command) in [
            (dir.clone(), 0o777, 0o700, "chmod 0700"),
            (dir.clone(), 0o770, 0o700, "chmod 0700"),
            (dir.join("anteroom.db"), 0o644, 0o600, "chmod 0600"),
            (dir.join("cli.json"), 0o640, 0o600, "chmod 0600"),
            (dir.join("controller.json"), 0o666, 0o600, "chmod 0600"),
            (dir.join("template-key.pem"), 0o644, 0o600, "chmod 0600"),
            (dir.join("waiting"), 0o755, 0o700, "chmod 0700"),
            (dir.join("waiting/00.json"), 0o666, 0o600, "chmod 0600"),
            (dir.join("vault"), 0o755, 0o700, "chmod 0700"),
            (dir.join("vault/identity.txt"), 0o604, 0o400, "chmod 0600"),
            (dir.join("vault/controller.pem"), 0o604, 0o600, "chmod 0600"),
        ] {
            mode(&path, open);
            let refused = refusal(&dir);
            let mends = format!("`{command} {}`", path.display());
            assert!(refused.contains(&mends), "{refused}");
            mode(&path, closed);
            check_state(&dir).unwrap();
        }
    }

    #[test]
    fn links_in_a_state_are_refused() {
        let folder = state();
        let dir = folder.path();
        let other = dir.join("other");
        std::fs::rename(dir.join("cli.json"), &other).unwrap();
        symlink(&other, dir.join("cli.json")).unwrap();
        assert!(refusal(dir).contains("cli.json is a link"), "{}", refusal(dir));
        std::fs::remove_file(dir.join("cli.json")).unwrap();
        std::fs::hard_link(&other, dir.join("cli.json")).unwrap();
        assert!(refusal(dir).contains("a hard link"), "{}", refusal(dir));
        std::fs::remove_file(&other).unwrap();
        check_state(dir).unwrap();
    }

    #[test]
    fn a_folder_that_anybody_can_replace_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let inner = folder.path().join("it's in");
        std::fs::create_dir(&inner).unwrap();
        mode(&inner, 0o700);
        mode(folder.path(), 0o777);
        let refused = format!("{:#}", check_folder(&inner, "0700").unwrap_err());
        assert!(refused.contains("chmod go-w"), "{refused}");
        if nix::unistd::geteuid().is_root() {
            mode(folder.path(), 0o770);
            check_folder(&inner, "0700").unwrap();
            std::os::unix::fs::lchown(folder.path(), None, Some(65534)).unwrap();
            let refused = format!("{:#}", check_folder(&inner, "0700").unwrap_err());
            assert!(refused.contains("chmod g-w"), "{refused}");
        }
        mode(folder.path(), 0o1777);
        check_folder(&inner, "0700").unwrap();
        mode(&inner, 0o777);
        let refused = format!("{:#}", check_folder(&inner, "0700").unwrap_err());
        assert!(refused.contains(r"it'\''s in'`"), "{refused}");
    }

    #[test]
    fn a_folder_that_somebody_else_can_replace_is_refused() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let (above, link) = (folder.path().join("above"), folder.path().join("link"));
        let inner = above.join("inner");
        std::fs::create_dir_all(&inner).unwrap();
        symlink(&inner, &link).unwrap();
        for path in [&above, &inner] {
            mode(path, 0o755);
        }
        check_folder(&link, "0755").unwrap();
        std::os::unix::fs::lchown(&link, Some(65534), None).unwrap();
        let refused = format!("{:#}", check_folder(&link, "0755").unwrap_err());
        assert!(refused.contains("a link that belongs to the user 65534"), "{refused}");
        check_folder(&inner, "0755").unwrap();
        std::os::unix::fs::lchown(&above, Some(65534), None).unwrap();
        let refused = format!("{:#}", check_folder(&inner, "0755").unwrap_err());
        assert!(refused.contains("the user 65534 can replace"), "{refused}");
    }

    #[test]
    fn texts_that_everybody_can_change_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (dir, file) = (folder.path(), folder.path().join("demo.toml"));
        std::fs::write(&file, "x").unwrap();
        mode(&file, 0o644);
        check_texts(dir).unwrap();
        for (path, open, closed) in [(dir, 0o1777, 0o755), (&file, 0o666, 0o644)] {
            mode(path, open);
            let refused = format!("{:#}", check_texts(dir).unwrap_err());
            assert!(refused.contains(&format!("`chmod o-w {}`", path.display())), "{refused}");
            mode(path, closed);
        }
    }

    #[test]
    fn a_missing_folder_is_reported_as_missing() {
        let missing = format!("{:#}", check_texts(Path::new("target/none")).unwrap_err());
        assert!(
            missing.contains("the folder target/none of provider files does not exist")
                && missing.contains("xtask provider")
        );
    }

    #[test]
    fn what_somebody_else_created_is_not_taken_for_ours() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent");
        assert!(!holds(&path, b"agent"));
        write_with_mode(&path, b"agent", 0o755).unwrap();
        assert!(holds(&path, b"agent") && !holds(&path, b"Agent"));
        mode(&path, 0o777);
        assert!(!holds(&path, b"agent"));
        mode(&path, 0o755);
        let link = folder.path().join("link");
        symlink(&path, &link).unwrap();
        assert!(!holds(&link, b"agent"));
    }
}
