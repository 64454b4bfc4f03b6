//! Each mismatch is refused and named.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use anteroom_template::{MachineKey, TemplateError, TemplateFor, load};

use crate::support::{Image, made_for, memory, write};

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

#[test]
fn a_flipped_byte_is_named_by_its_file() {
    let image = Image::new();
    let written = image.write();
    for (name, length) in [("memory", 2 * 1024 * 1024), ("state", 100_000), ("picture.png", 5000)] {
        // In data, and for the memory in a hole.
        for at in [0, 7, 50_000 % length, length - 1] {
            flip(&written.dir.join(name), at);
            let error = image.load().unwrap_err();
            let said = error.to_string();
            assert!(matches!(error, TemplateError::FileChanged { .. }), "{said}");
            assert!(said.contains(&format!("/{name} was changed: it has the digest ")), "{said}");
            flip(&written.dir.join(name), at);
        }
    }
    for name in ["manifest.json", "manifest.sig"] {
        let path = written.dir.join(name);
        for at in 0..fs::metadata(&path).unwrap().len() {
            flip(&path, at);
            let error = image.load().unwrap_err();
            assert!(matches!(error, TemplateError::NotSigned { .. }), "{name} {at}: {error}");
            flip(&path, at);
        }
    }
    image.load().unwrap();
}

#[test]
fn another_machines_template_is_refused() {
    let image = Image::new();
    let written = image.write();
    let key = MachineKey::load_or_create(&image.folder.path().join("other.pem")).unwrap();
    let said = load(&image.dir, &key, &made_for()).unwrap_err().to_string();
    let expected = format!(
        "the template in {} is not signed with this machine's key, because it was made on another machine or its manifest was changed; make it again with `anteroom image snapshot demo`",
        written.dir.display()
    );
    assert_eq!(said, expected);
    // Nor does it count where one for something else is looked for.
    let other = TemplateFor { vcpus: 7, ..made_for() };
    let error = load(&image.dir, &key, &other).unwrap_err();
    assert!(matches!(error, TemplateError::NoTemplate { .. }), "{error}");
}

#[test]
fn each_field_that_differs_is_named() {
    let image = Image::new();
    assert!(image.refusal().starts_with("there is no template of the image demo in "));
    image.write();
    let here = made_for;
    let cases = [
        (TemplateFor { image: "ff".into(), ..here() }, "the image 0123456789abcdef", "ff"),
        (TemplateFor { agent_sha256: "cc".into(), ..here() }, "the agent with SHA-256 aa", "cc"),
        (TemplateFor { vmm: "QEMU 8.0".into(), ..here() }, "the VMM QEMU 7.2.19", "QEMU 8.0"),
        (TemplateFor { driver: "x".into(), ..here() }, "the driver qemu", "x"),
        (TemplateFor { accelerator: "tcg".into(), ..here() }, "the accelerator kvm", "tcg"),
        (
            TemplateFor { cpu: "x".into(), ..here() },
            "the guest's processor x86-64-v2 (Nehalem-v1)",
            "x",
        ),
        (TemplateFor { memory_mib: 4, ..here() }, "a memory of 2 MiB", "4 MiB"),
        (TemplateFor { vcpus: 1, ..here() }, "a number of processors of 2", "1"),
        (TemplateFor { screen_width: 9, ..here() }, "a screen width of 1280 pixels", "9 pixels"),
        (TemplateFor { screen_height: 9, ..here() }, "a screen height of 800 pixels", "9 pixels"),
        (TemplateFor { services_sha256: "x".into(), ..here() }, "services with SHA-256 bb", "x"),
        (
            TemplateFor { authorities_sha256: "x".into(), ..here() },
            "authorities with SHA-256 cc",
            "x",
        ),
        (
            TemplateFor { host_cpu: "x".into(), ..here() },
            "this machine's processor GenuineIntel 6/143/8",
            "x",
        ),
    ];
    let fields = serde_json::to_value(here()).unwrap().as_object().unwrap().len();
    assert_eq!(cases.len(), fields);
    for (wanted, made_for, here) in cases {
        let expected = format!(
            "the template was made for {made_for}, and here it is {here}; make it again with `anteroom image snapshot demo`"
        );
        let error = load(&image.dir, &image.key, &wanted).unwrap_err();
        assert_eq!(error.to_string(), expected);
        // Also when somebody has given it that very name.
        let (own, moved) = (made_for_dir(&image, &self::made_for()), made_for_dir(&image, &wanted));
        fs::rename(&own, &moved).unwrap();
        let error = load(&image.dir, &image.key, &wanted).unwrap_err();
        assert_eq!(error.to_string(), expected);
        fs::rename(&moved, &own).unwrap();
    }
}

fn made_for_dir(image: &Image, made_for: &TemplateFor) -> std::path::PathBuf {
    image.dir.join("templates").join(made_for.id())
}

/// Named as the crate `guest-session` names them. A state is read by the version that wrote it.
#[test]
fn another_firecracker_is_refused_by_name_be_it_older_or_newer() {
    let image = Image::new();
    let of = |version: &str| TemplateFor { vmm: format!("Firecracker {version}"), ..made_for() };
    write(&image.dir, &image.key, of("1.16.2"), &memory()).unwrap();
    for version in ["1.16.1", "1.17.0", "1.16.2-dev"] {
        let said = load(&image.dir, &image.key, &of(version)).unwrap_err().to_string();
        let expected = format!(
            "the template was made for the VMM Firecracker 1.16.2, and here it is Firecracker {version}; \
             make it again with `anteroom image snapshot demo`"
        );
        assert_eq!(said, expected);
    }
    load(&image.dir, &image.key, &of("1.16.2")).unwrap();
}

#[test]
fn of_several_the_nearest_is_named() {
    let image = Image::new();
    for (vmm, driver, vcpus) in [("Firecracker 1", "firecracker", 1), ("QEMU 7", "qemu", 1)] {
        let made_for = TemplateFor { vmm: vmm.into(), driver: driver.into(), vcpus, ..made_for() };
        write(&image.dir, &image.key, made_for, &memory()).unwrap();
    }
    let said = image.refusal();
    assert!(said.contains("made for the VMM QEMU 7, and here it is QEMU 7.2.19"), "{said}");
}

#[test]
fn files_that_are_cut_grown_missing_or_something_else_are_named() {
    let image = Image::new();
    let written = image.write();
    let path = |name| written.dir.join(name);
    let resize = |name, length| {
        File::options().write(true).open(path(name)).unwrap().set_len(length).unwrap();
    };
    for (name, length, other) in
        [("memory", 2_097_152, 65_536), ("memory", 2_097_152, 2_097_153), ("state", 100_000, 0)]
    {
        image.write();
        resize(name, other);
        let expected =
            format!("/{name} was changed: it has {other} bytes, the manifest says {length} bytes;");
        assert!(image.refusal().contains(&expected), "{}", image.refusal());
    }
    // As long as before, but its end is a hole.
    image.write();
    resize("memory", 1_000_000);
    resize("memory", 2_097_152);
    assert!(image.refusal().contains("/memory was changed: it has the digest"));
    image.write();
    resize("manifest.json", 65_537);
    assert!(image.refusal().contains("manifest has 65537 bytes, but must have at most 65536"));
    for (name, length) in [("manifest.json", 40), ("manifest.json", 0), ("manifest.sig", 63)] {
        image.write();
        resize(name, length);
        assert!(matches!(image.load(), Err(TemplateError::NotSigned { .. })));
    }
    for name in ["memory", "state", "picture.png", "manifest.json", "manifest.sig"] {
        image.write();
        fs::rename(path(name), path("away")).unwrap();
        assert!(image.refusal().contains(&format!("/{name} cannot be read")));
        // The very bytes, but by a link or in a pipe.
        std::os::unix::fs::symlink("away", path(name)).unwrap();
        assert!(image.refusal().contains(&format!("/{name} cannot be read")));
        fs::remove_file(path(name)).unwrap();
        nix::unistd::mkfifo(&path(name), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(image.refusal().contains(&format!("/{name} cannot be read")));
    }
}
