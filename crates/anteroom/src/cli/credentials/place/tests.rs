//! A home that somebody else changes meanwhile.

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

fn file(path: &str) -> BundledFile {
    BundledFile { path: path.to_owned(), content: b"new".to_vec() }
}

/// Everything below a folder, with kind, mode and content.
fn tree(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        let content = if metadata.is_file() {
            std::fs::read_to_string(&path).unwrap()
        } else {
            String::new()
        };
        found.push(format!("{} {:o} {content}", path.display(), metadata.mode()));
        if metadata.is_dir() {
            found.extend(tree(&path));
        }
    }
    found.sort();
    found
}

fn restore(files: &[BundledFile], home: &Path, force: bool) -> Result<()> {
    let mut placing = Placing::prepare(files, home, force)?;
    placing.commit()?;
    placing.keep();
    Ok(())
}

#[test]
fn files_are_their_owner_s_alone_and_nothing_else_is_left() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    restore(&[file(".a/b/c.json"), file(".d")], &home, false).unwrap();
    let mode = |path: &str| home.join(path).metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(
        [mode(""), mode(".a"), mode(".a/b"), mode(".a/b/c.json"), mode(".d")],
        [0o700, 0o700, 0o700, 0o600, 0o600]
    );
    assert_eq!(tree(&home).len(), 4, "{:?}", tree(&home));
}

#[test]
fn what_is_there_stays_unless_it_may_be_replaced() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".a")).unwrap();
    std::fs::write(home.path().join(".a/old"), "old").unwrap();
    std::fs::set_permissions(home.path().join(".a/old"), std::fs::Permissions::from_mode(0o4755))
        .unwrap();
    let before = tree(home.path());
    let both = [file(".a/new"), file(".a/old")];
    let refused = restore(&both, home.path(), false).unwrap_err().to_string();
    assert!(refused.contains(".a/old already exists; --force"), "{refused}");
    assert_eq!(tree(home.path()), before);
    restore(&both, home.path(), true).unwrap();
    assert_eq!(std::fs::read_to_string(home.path().join(".a/old")).unwrap(), "new");
    let mode = home.path().join(".a/old").metadata().unwrap().mode();
    assert_eq!((mode & 0o7777, tree(home.path()).len()), (0o600, 3));
}

#[test]
fn links_are_refused_wherever_they_lead() {
    let (home, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    symlink(outside.path(), home.path().join(".a")).unwrap();
    std::fs::create_dir(home.path().join(".b")).unwrap();
    symlink(outside.path().join("target"), home.path().join(".b/c")).unwrap();
    std::fs::create_dir(home.path().join(".b/d")).unwrap();
    let before = tree(home.path());
    for path in [".a/x", ".a/x/y", ".b/c", ".b/c/x", ".b/d"] {
        for force in [false, true] {
            let refused = restore(&[file(".new/first"), file(path)], home.path(), force);
            assert!(refused.unwrap_err().to_string().contains("move it away first"), "{path}");
            assert_eq!(tree(home.path()), before);
        }
    }
    assert_eq!(tree(outside.path()), Vec::<String>::new());
}

#[test]
fn a_link_made_meanwhile_is_not_followed() {
    let (home, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::create_dir(home.path().join(".a")).unwrap();
    let mut placing = Placing::prepare(&[file(".a/b"), file(".a/c")], home.path(), false).unwrap();
    // Between the look and the write: the folder becomes a link out of the home.
    std::fs::rename(home.path().join(".a"), home.path().join(".moved")).unwrap();
    symlink(outside.path(), home.path().join(".a")).unwrap();
    placing.commit().unwrap();
    placing.keep();
    assert_eq!(tree(outside.path()), Vec::<String>::new());
    assert!(home.path().join(".moved/b").is_file());
}

#[test]
fn a_link_or_file_put_into_the_place_meanwhile_undoes_all() {
    let (home, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(home.path().join(".old"), "old").unwrap();
    for linked in [false, true] {
        let files = [file(".new/a"), file(".old"), file(".b")];
        let mut placing = Placing::prepare(&files, home.path(), true).unwrap();
        let victim = outside.path().join("victim");
        match linked {
            true => symlink(&victim, home.path().join(".b")).unwrap(),
            false => std::fs::write(home.path().join(".b"), "theirs").unwrap(),
        }
        let refused = format!("{:#}", placing.commit().unwrap_err());
        assert!(refused.contains(".b failed: something else was created there"), "{refused}");
        drop(placing);
        assert!(!victim.exists() && !home.path().join(".new").exists());
        assert_eq!(std::fs::read_to_string(home.path().join(".old")).unwrap(), "old");
        assert_eq!(tree(home.path()).len(), 2, "{:?}", tree(home.path()));
        std::fs::remove_file(home.path().join(".b")).unwrap();
    }
}

#[test]
fn a_home_that_was_made_goes_with_what_failed() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    drop(Placing::prepare(&[file(".a/b")], &home, false).unwrap());
    assert!(!home.exists());
}

/// Somebody swaps a folder for a link as fast as they can: whatever comes of it, nothing is written
/// outside.
#[test]
fn a_race_with_links_gets_nothing_out_of_the_home() {
    use std::sync::atomic::{AtomicBool, Ordering};
    let (home, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (at, aside) = (home.path().join(".a"), home.path().join(".aside"));
            while !over.load(Ordering::Relaxed) {
                let _ = std::fs::rename(&at, &aside);
                let _ = symlink(outside.path(), &at);
                let _ = std::fs::remove_file(&at);
                let _ = std::fs::rename(&aside, &at);
            }
        });
        for _ in 0..300 {
            let _ = restore(&[file(".a/b"), file(".a/c/d")], home.path(), true);
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(tree(outside.path()), Vec::<String>::new());
}
