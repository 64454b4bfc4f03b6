//! Embeds what `cargo xtask build` made before: the guest agent and the viewer. Where they are
//! missing the binary builds all the same and says so when they are needed.

use std::path::{Path, PathBuf};
use std::{env, fs};

fn main() {
    let root =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it")).join("../..");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it"));
    // `debug` or `release`: a host binary carries the agent of its own profile.
    let profile = env::var_os("PROFILE").expect("cargo sets it");
    let agent = root.join("target/agent").join(profile).join("anteroom-agent");
    println!("cargo::rerun-if-changed={}", agent.display());
    let content = fs::read(&agent).unwrap_or_default();
    fs::write(out.join("anteroom-agent"), content).expect("OUT_DIR is writable");

    let viewer = root.join("viewer/dist");
    println!("cargo::rerun-if-changed={}", viewer.display());
    let embedded = out.join("viewer");
    let _ = fs::remove_dir_all(&embedded);
    fs::create_dir_all(&embedded).expect("OUT_DIR is writable");
    if viewer.join("index.html").is_file() {
        copy(&viewer, &embedded);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("OUT_DIR is writable");
    for entry in fs::read_dir(from).expect("the viewer's folder can be read").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("the viewer's files can be copied");
        }
    }
}
