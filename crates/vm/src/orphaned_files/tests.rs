use std::os::unix::fs::{lchown, symlink};

use super::*;

/// A folder where everybody may write, with these bits.
fn open_folder(mode: u32) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    folder
}

/// A file, a link and a tree; only root gives them to another.
fn left_in(folder: &Path, user: SessionUser) -> Option<[PathBuf; 3]> {
    let left = ["file", "link", "tree"].map(|name| folder.join(name));
    let [file, link, tree] = &left;
    fs::write(file, "x").unwrap();
    symlink("/nowhere", link).unwrap();
    fs::create_dir(tree).unwrap();
    fs::write(tree.join("deep"), "x").unwrap();
    for path in &left {
        lchown(path, Some(user.id()), None).ok()?;
    }
    Some(left)
}

fn found_in(folder: &Path, user: SessionUser) -> Vec<PathBuf> {
    let mut found = OrphanedFiles::within([folder], user, 100).found;
    found.sort();
    found
}

#[test]
fn what_the_user_left_is_found_and_removed_and_nobody_else_s() {
    let (user, other) = (SessionUser::try_from(1_900_000_010).unwrap(), 1_900_000_011);
    let folder = open_folder(0o1777);
    let Some(left) = left_in(folder.path(), user) else { return };
    let others = folder.path().join("other");
    fs::write(&others, "x").unwrap();
    lchown(&others, Some(other), None).unwrap();
    assert_eq!(found_in(folder.path(), user), left);
    assert_eq!(remove(&[folder.path()], user).unwrap().len(), 3);
    assert_eq!(found_in(folder.path(), user), [] as [PathBuf; 0]);
    assert!(others.exists());
}

#[test]
fn a_tree_is_removed_also_where_another_could_be_put_in_its_place() {
    let user = SessionUser::try_from(1_900_000_012).unwrap();
    let exchangeable = [(0o777, 0), (0o1777, 65534)];
    for (mode, owner) in exchangeable {
        let folder = open_folder(mode);
        let Some([_, _, tree]) = left_in(folder.path(), user) else { return };
        lchown(folder.path(), Some(owner), None).unwrap();
        assert_eq!(remove(&[folder.path()], user).unwrap().len(), 3);
        assert!(!tree.exists());
        assert_eq!(found_in(folder.path(), user), [] as [PathBuf; 0]);
    }
}

#[test]
fn a_folder_for_everybody_that_the_user_made_stays_with_what_others_have_in_it() {
    let (user, other) = (SessionUser::try_from(1_900_000_017).unwrap(), 1_900_000_018);
    let folder = open_folder(0o1777);
    let Some(left) = left_in(folder.path(), user) else { return };
    let sockets = &left[2];
    let others = sockets.join("X2");
    fs::write(&others, "x").unwrap();
    lchown(&others, Some(other), None).unwrap();
    lchown(sockets.join("deep"), Some(user.id()), None).unwrap();
    let folders = [folder.path(), sockets.as_path()];
    remove(&folders, user).unwrap();
    assert!(others.exists() && !sockets.join("deep").exists());
    let found = fs::metadata(sockets).unwrap();
    assert_eq!((found.uid(), found.mode() & 0o7777), (0, 0o1777));
    assert_eq!(OrphanedFiles::within(folders, user, 100).found, [] as [PathBuf; 0]);
}

#[test]
fn what_took_the_place_of_a_tree_stays() {
    let (user, other) = (SessionUser::try_from(1_900_000_015).unwrap(), 1_900_000_016);
    let folder = open_folder(0o777);
    let Some([file, link, tree]) = left_in(folder.path(), user) else { return };
    let others = folder.path().join("others");
    fs::create_dir(&others).unwrap();
    fs::write(others.join("kept"), "x").unwrap();
    lchown(&others, Some(other), None).unwrap();
    remove_folder(&others, user).unwrap();
    // Neither what a link leads to nor what is no folder.
    fs::remove_file(&link).unwrap();
    symlink(&tree, &link).unwrap();
    assert!(remove_folder(&link, user).is_err() && remove_folder(&file, user).is_err());
    assert!(others.join("kept").exists() && tree.join("deep").exists());
}

#[test]
fn a_link_in_a_folder_s_place_is_followed_only_where_the_machine_has_it_so() {
    let user = SessionUser::try_from(1_900_000_014).unwrap();
    let folder = open_folder(0o1777);
    let Some(left) = left_in(folder.path(), user) else { return };
    let beside = tempfile::tempdir().unwrap();
    let link = beside.path().join("link");
    symlink(folder.path(), &link).unwrap();
    lchown(&link, Some(65534), None).unwrap();
    assert_eq!(remove(&[link.as_path()], user).unwrap(), [] as [PathBuf; 0]);
    assert_eq!(found_in(&link, user), [] as [PathBuf; 0]);
    assert_eq!(found_in(folder.path(), user), left);
    lchown(&link, Some(0), None).unwrap();
    assert_eq!(found_in(&link, user).len(), 3);
}

#[test]
fn a_folder_without_end_is_reported() {
    let user = SessionUser::try_from(1_900_000_013).unwrap();
    let folder = open_folder(0o1777);
    for name in ["a", "b", "c"] {
        fs::write(folder.path().join(name), "").unwrap();
    }
    let within = |most| OrphanedFiles::within([folder.path()], user, most).unseen.len();
    assert_eq!((within(3), within(2)), (0, 1));
}
