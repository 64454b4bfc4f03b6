//! Written, loaded, replaced, listed and removed.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use anteroom_template::{TemplateError, TemplateFor, list, remove};

use crate::support::{Image, MIB, PICTURE, content, made_for, memfd, memory, state, write};

#[test]
fn what_is_loaded_is_what_was_saved_and_stays_sparse() {
    let image = Image::new();
    let written = image.write();
    assert_eq!(written.id, made_for().id());
    assert_eq!(written.dir, image.dir.join("templates").join(&written.id));
    let loaded = image.load().unwrap();
    assert_eq!((&loaded.manifest.made_for, &*loaded.manifest.wake_token), (&made_for(), "wake"));
    assert_eq!(loaded.manifest.made_unix_ms, written.made_unix_ms);
    let (in_memory, of_devices) = (File::from(loaded.memory), File::from(loaded.state));
    assert!(content(&in_memory) == content(&memory()) && content(&of_devices) == content(&state()));
    assert_eq!(loaded.picture, PICTURE);
    // Not more than the guest itself had: 10 pages.
    assert_eq!(in_memory.metadata().unwrap().blocks() * 512, 10 * 4096);
    let on_disk = fs::metadata(written.dir.join("memory")).unwrap();
    assert_eq!((on_disk.len(), on_disk.mode() & 0o777), (2 * MIB as u64, 0o600));
    assert!(on_disk.blocks() * 512 <= 4 * 65_536 + 4096, "{} blocks", on_disk.blocks());
    assert_eq!(fs::metadata(&written.dir).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_new_one_takes_the_place_of_the_old_and_what_is_loaded_stays() {
    let image = Image::new();
    let first = image.write();
    let old = image.load().unwrap();
    let other = memfd(2 * MIB, &[(5, vec![9; 5])]);
    let second = write(&image.dir, &image.key, made_for(), &other).unwrap();
    assert_eq!((&first.id, vec![first.id.clone()]), (&second.id, image.left()));
    assert!(content(&File::from(image.load().unwrap().memory)) == content(&other));
    assert!(content(&File::from(old.memory)) == content(&memory()));
}

#[test]
fn they_are_listed_and_removed() {
    let image = Image::new();
    assert_eq!(list(&image.dir), []);
    let first = image.write();
    let made_for = TemplateFor { vcpus: 1, ..made_for() };
    let second = write(&image.dir, &image.key, made_for.clone(), &memory()).unwrap();
    fs::create_dir(image.dir.join("templates/0000000000000000")).unwrap();
    let mut listed = list(&image.dir);
    listed.sort_by_key(|one| one.made_for.vcpus);
    assert_eq!(listed, [second.clone(), first.clone()]);
    assert!(first.bytes >= 100_000 && first.bytes < MIB as u64, "{}", first.bytes);
    let loaded = image.load().unwrap();
    remove(&image.dir, &first.id).unwrap();
    assert_eq!(list(&image.dir), std::slice::from_ref(&second));
    assert!(content(&File::from(loaded.memory)) == content(&memory()));
    fs::write(image.dir.join("manifest.json"), "the image's").unwrap();
    for id in [&*first.id, "", "..", "../templates", "*"] {
        let error = remove(&image.dir, id).unwrap_err();
        assert!(matches!(error, TemplateError::NothingToRemove { .. }), "{error}");
    }
    remove(&image.dir, "0000000000000000").unwrap();
    assert_eq!(image.left(), [second.id]);
}

/// What a killed writer leaves lies in `.temporary`: the new one, or the old one after the exchange.
#[test]
fn what_a_killed_writer_left_goes_with_the_next_write_and_the_old_one_stays_usable() {
    let image = Image::new();
    let written = image.write();
    let temporary = image.dir.join("templates/.temporary");
    let steps: [&[&str]; 5] = [
        &[],
        &["memory"],
        &["memory", "state"],
        &["memory", "state", "picture.png"],
        &["memory", "state", "picture.png", "manifest.sig", "manifest.json"],
    ];
    for files in steps {
        fs::create_dir(&temporary).unwrap();
        for name in files {
            fs::copy(written.dir.join(name), temporary.join(name)).unwrap();
        }
        image.load().unwrap();
        assert_eq!(list(&image.dir).len(), 1);
        image.write();
        assert_eq!(image.left(), [&*written.id]);
    }
    // Also with the next removal.
    fs::create_dir(&temporary).unwrap();
    remove(&image.dir, &written.id).unwrap();
    assert!(image.left().is_empty());
}

#[test]
fn one_command_at_a_time_changes_them_and_the_other_waits() {
    let image = Image::new();
    image.write();
    let lock = File::open(image.dir.join("templates")).unwrap();
    lock.lock().unwrap();
    // Whoever loads one waits for nobody.
    image.load().unwrap();
    let (asked, waits) = std::sync::mpsc::channel();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| image.write_until(&move || asked.send(()).is_err()));
        // It has looked twice whether it is stopped, which only one that waits does.
        waits.iter().take(2).for_each(drop);
        assert!(!other.is_finished());
        lock.unlock().unwrap();
        waits.iter().for_each(drop);
        other.join().unwrap().unwrap();
    });
}

#[test]
fn one_that_is_stopped_leaves_nothing_and_the_old_one_stays() {
    let image = Image::new();
    let written = image.write();
    let error = image.write_until(&|| true).unwrap_err();
    assert!(matches!(error, TemplateError::Stopped), "{error}");
    assert_eq!(image.left(), [&*written.id]);
    image.load().unwrap();
    let lock = File::open(image.dir.join("templates")).unwrap();
    lock.lock().unwrap();
    assert!(matches!(image.write_until(&|| true), Err(TemplateError::Stopped)));
}

#[test]
fn what_has_a_wrong_size_is_not_written() {
    let image = Image::new();
    let said = |made_for, memory: &File| {
        write(&image.dir, &image.key, made_for, memory).unwrap_err().to_string()
    };
    let error = said(made_for(), &memfd(MIB, &[]));
    assert_eq!(
        error,
        "the template's memory has 1048576 bytes, but must have 2097152; make it again with `anteroom image snapshot demo`"
    );
    let long = TemplateFor { host_cpu: "x".repeat(70_000), ..made_for() };
    let error = said(long, &memory());
    assert!(error.contains("manifest has 7") && error.contains("at most 65536"), "{error}");
    assert!(image.left().is_empty());
    let made_for = made_for();
    let large = memfd(64 * MIB + 1, &[]);
    let saved = anteroom_template::Saved {
        made_for,
        wake_token: String::new(),
        memory: &memory(),
        state: &large,
        picture: &[],
    };
    let error = anteroom_template::write(&image.dir, &image.key, &saved, &|| false).unwrap_err();
    assert!(error.to_string().contains("state has 67108865 bytes"), "{error}");
}

#[test]
fn a_folder_that_cannot_be_written_is_named() {
    let image = Image::new();
    fs::write(image.dir.join("templates"), "a file").unwrap();
    fs::set_permissions(&image.dir, PermissionsExt::from_mode(0o755)).unwrap();
    let error = write(&image.dir, &image.key, made_for(), &memory()).unwrap_err();
    assert!(matches!(error, TemplateError::Unwritable { .. }), "{error}");
}
