//! A disk without space.

use std::path::PathBuf;
use std::process::Command;

use anteroom_template::TemplateError;

use crate::support::{Image, MIB, made_for, memfd, memory, write};

/// Set where this test runs once more, with a small disk at its value.
const SMALL_DISK: &str = "ANTEROOM_TEST_SMALL_DISK";

#[test]
fn a_full_disk_is_named_and_leaves_the_old_one_alone() {
    if let Some(disk) = std::env::var_os(SMALL_DISK) {
        return on_a_small_disk(PathBuf::from(disk));
    }
    let folder = tempfile::tempdir().unwrap();
    let mut command = own_mounts();
    let mount = r#"mount -t tmpfs -o mode=0755,size=1m none "$0""#;
    let can = command.args(["sh", "-c", mount]).arg(folder.path()).status();
    if !can.is_ok_and(|status| status.success()) {
        eprintln!("skipped: this user cannot mount a small disk");
        return;
    }
    let mut command = own_mounts();
    command.args(["sh", "-c", &format!(r#"{mount} && exec "$@""#)]).arg(folder.path());
    command.arg(std::env::current_exe().unwrap()).env(SMALL_DISK, folder.path());
    command.args(["--exact", "disk_full::a_full_disk_is_named_and_leaves_the_old_one_alone"]);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{output:?}");
}

fn on_a_small_disk(disk: PathBuf) {
    let mut image = Image::new();
    image.dir = disk.join("demo/0123456789abcdef");
    std::fs::create_dir_all(&image.dir).unwrap();
    let written = image.write();
    for parts in [vec![(0, vec![1; 2 * MIB])], vec![(0, vec![1; MIB / 2]), (MIB, vec![1; MIB / 4])]]
    {
        let error = write(&image.dir, &image.key, made_for(), &memfd(2 * MIB, &parts)).unwrap_err();
        let said = error.to_string();
        assert!(matches!(error, TemplateError::DiskFull { .. }), "{said}");
        assert!(said.contains("there is no space left on the disk for the template's"), "{said}");
        assert_eq!(image.left(), [&*written.id]);
        image.load().unwrap();
    }
    write(&image.dir, &image.key, made_for(), &memory()).unwrap();
}

/// `unshare` with a mount namespace of its own, which goes with it.
fn own_mounts() -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--map-current-user", "--keep-caps"]);
    }
    command.arg("--mount");
    command
}
