//! Packages of npm and PyPI: installed into a folder on this machine, without running anything of
//! theirs, and unpacked from there into the tree.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::{BuildError, BuildStep, Job, system};

/// Python's version in the suite; wheels are made for one.
fn python_of(suite: &str) -> &'static str {
    match suite {
        "bookworm" => "3.11",
        _ => "3.13",
    }
}

/// A folder that was filled, as an archive, and the shell line that makes its programs known.
pub(super) struct Filled {
    pub(super) archive: PathBuf,
    pub(super) path: &'static str,
    pub(super) link: &'static str,
}

/// What the recipe wants of each registry.
pub(super) fn fill_all(job: &Job<'_>, work: &Path) -> Result<Vec<Filled>, BuildError> {
    let mut filled = Vec::new();
    if !job.recipe.npm.is_empty() {
        job.progress.at(BuildStep::Packages, 0.0, "npm");
        let folder = work.join("npm");
        let mut npm = Command::new("npm");
        npm.args(["install", "--global", "--ignore-scripts", "--omit=dev", "--no-audit"]);
        npm.args(["--no-fund", "--os=linux", "--cpu=x64", "--libc=glibc", "--prefix"]);
        npm.arg(&folder).args(&job.recipe.npm);
        job.run_program(npm, |_| ())?;
        filled.push(Filled {
            archive: packed(job, &folder)?,
            path: "/opt/npm",
            link: "for program in /opt/npm/bin/*; do ln -sf \"$program\" /usr/local/bin/; done",
        });
    }
    if !job.recipe.pypi.is_empty() {
        job.progress.at(BuildStep::Packages, 0.0, "PyPI");
        let folder = work.join("pypi");
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "install", "--only-binary=:all:", "--python-version"]);
        pip.arg(python_of(&job.recipe.suite)).arg("--target").arg(&folder).args(&job.recipe.pypi);
        job.run_program(pip, |_| ())?;
        filled.push(Filled {
            archive: packed(job, &folder)?,
            path: "/opt/pypi",
            link: "echo /opt/pypi > /usr/lib/python3/dist-packages/anteroom.pth; \
                   for program in /opt/pypi/bin/*; do test -f \"$program\" || continue; \
                   sed -i \"1s|^#!.*python.*|#!/usr/bin/python3|\" \"$program\"; \
                   ln -sf \"$program\" /usr/local/bin/; done",
        });
    }
    Ok(filled)
}

fn packed(job: &Job<'_>, folder: &Path) -> Result<PathBuf, BuildError> {
    let archive = folder.with_extension("tar");
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "-cf"]).arg(&archive);
    tar.arg("-C").arg(folder).arg(".");
    job.run_program(tar, |_| ())?;
    std::fs::remove_dir_all(folder).map_err(system(format!("removing {}", folder.display())))?;
    Ok(archive)
}
