//! Packages of npm and PyPI: fetched by this machine's npm and pip from where those are set to, held to
//! their integrity, and put into a folder on this machine without running anything of theirs. From
//! there they are unpacked into the tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anteroom_provider::install::{NpmPackage, integrity_of};
use base64::Engine as _;
use sha2::{Digest, Sha512};

use super::{BuildError, BuildStep, Job, system};

/// Python's version in the suite; wheels are made for one.
fn python_of(suite: &str) -> &'static str {
    match suite {
        "bookworm" => "3.11",
        _ => "3.13",
    }
}

/// Whatever npm is set to: it would say that all was done and write nothing.
const NOT_DRY: &str = "--dry-run=false";

/// What goes into the tree: an archive, where to, how many leading parts of its paths are left out, and
/// the shell line that makes its programs known.
pub(super) struct Filled {
    pub(super) archive: PathBuf,
    pub(super) path: String,
    pub(super) strip: u8,
    pub(super) link: Option<&'static str>,
}

/// What the recipe wants of each registry.
pub(super) fn fill_all(job: &Job<'_>, work: &Path) -> Result<Vec<Filled>, BuildError> {
    let mut filled = Vec::new();
    let mut whole = Vec::new();
    for package in &job.recipe.npm {
        job.progress.at(BuildStep::Packages, 0.0, &package.package);
        let archive = fetch(job, work, package)?;
        match &package.path {
            // npm puts all that a package has into one folder.
            Some(path) => filled.push(Filled { archive, path: path.clone(), strip: 1, link: None }),
            None => whole.push(archive),
        }
    }
    if !whole.is_empty() {
        filled.push(install_npm(job, work, &whole)?);
    }
    if !job.recipe.pypi.is_empty() {
        filled.push(install_pypi(job, work)?);
    }
    Ok(filled)
}

/// The package's own archive, as npm has it: fetched once, kept by its integrity.
fn fetch(job: &Job<'_>, work: &Path, package: &NpmPackage) -> Result<PathBuf, BuildError> {
    let expected = integrity_of(&package.integrity).unwrap_or([0; 64]);
    let folder = job.cache_dir.join("archives");
    // npm takes a file for an archive by its name.
    let kept = folder.join(format!("{}.tgz", hex::encode(expected)));
    if kept.exists() && sha512_of(&kept)? == expected {
        return Ok(kept);
    }
    let into = tempfile::tempdir_in(work).map_err(system("creating a folder"))?;
    let mut npm = Command::new("npm");
    npm.current_dir(work).args(["pack", NOT_DRY, "--ignore-scripts", "--pack-destination"]);
    npm.arg(into.path()).arg(&package.package);
    job.run_program(npm, |_| ()).map_err(cannot_fetch(
        "npm",
        "npm config get registry",
        &package.package,
    ))?;
    let fetched = fs::read_dir(into.path())
        .and_then(|mut entries| entries.next().unwrap_or(Err(std::io::ErrorKind::NotFound.into())))
        .map_err(system(format!("reading what npm fetched of {}", package.package)))?
        .path();
    let found = sha512_of(&fetched)?;
    if found != expected {
        let found = base64::engine::general_purpose::STANDARD.encode(found);
        return Err(BuildError::OtherPackage {
            package: package.package.clone(),
            expected: package.integrity.clone(),
            found: format!("sha512-{found}"),
        });
    }
    fs::create_dir_all(&folder).map_err(system(format!("creating {}", folder.display())))?;
    let keeping = || system(format!("keeping {}", kept.display()));
    let part = tempfile::NamedTempFile::new_in(&folder).map_err(keeping())?;
    fs::copy(&fetched, part.path()).map_err(keeping())?;
    part.persist(&kept).map_err(|error| keeping()(error.error))?;
    Ok(kept)
}

/// Packages with what they depend on, as npm resolves it.
fn install_npm(job: &Job<'_>, work: &Path, archives: &[PathBuf]) -> Result<Filled, BuildError> {
    let folder = work.join("npm");
    let mut npm = Command::new("npm");
    npm.current_dir(work).args(["install", NOT_DRY, "--global", "--ignore-scripts", "--omit=dev"]);
    npm.args(["--no-audit", "--no-fund", "--os=linux", "--cpu=x64", "--libc=glibc", "--prefix"]);
    npm.arg(&folder).args(archives);
    job.run_program(npm, |_| ()).map_err(cannot_fetch(
        "npm",
        "npm config get registry",
        "what the packages depend on",
    ))?;
    Ok(Filled {
        archive: packed(job, &folder)?,
        path: "/opt/npm".to_owned(),
        strip: 0,
        link: Some("for program in /opt/npm/bin/*; do ln -sf \"$program\" /usr/local/bin/; done"),
    })
}

/// Wheels, each held to its hashes by pip; what they depend on must be named too.
fn install_pypi(job: &Job<'_>, work: &Path) -> Result<Filled, BuildError> {
    job.progress.at(BuildStep::Packages, 0.0, "PyPI");
    let folder = work.join("pypi");
    let requirements = work.join("requirements.txt");
    fs::write(&requirements, job.recipe.pypi.join("\n"))
        .map_err(system(format!("writing {}", requirements.display())))?;
    let mut pip = Command::new("python3");
    pip.current_dir(work).args(["-m", "pip", "install", "--require-hashes"]);
    pip.args(["--only-binary=:all:", "--python-version", python_of(&job.recipe.suite)]);
    pip.arg("--target").arg(&folder).arg("--requirement").arg(&requirements);
    job.run_program(pip, |_| ()).map_err(cannot_fetch(
        "pip",
        "python3 -m pip config list",
        "the recipe's Python packages",
    ))?;
    Ok(Filled {
        archive: packed(job, &folder)?,
        path: "/opt/pypi".to_owned(),
        strip: 0,
        link: Some(
            "echo /opt/pypi > /usr/lib/python3/dist-packages/anteroom.pth; \
             for program in /opt/pypi/bin/*; do test -f \"$program\" || continue; \
             sed -i \"1s|^#!.*python.*|#!/usr/bin/python3|\" \"$program\"; \
             ln -sf \"$program\" /usr/local/bin/; done",
        ),
    })
}

/// A client that failed, in words of what it was for.
fn cannot_fetch(
    client: &'static str,
    reported_by: &'static str,
    package: &str,
) -> impl FnOnce(BuildError) -> BuildError {
    move |error| match error {
        BuildError::Program { last_lines, .. } => {
            BuildError::Package { client, reported_by, package: package.to_owned(), last_lines }
        }
        other => other,
    }
}

fn sha512_of(path: &Path) -> Result<[u8; 64], BuildError> {
    let reading = || system(format!("reading {}", path.display()));
    let mut hash = Sha512::new();
    let mut file = fs::File::open(path).map_err(reading())?;
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match std::io::Read::read(&mut file, &mut buffer).map_err(reading())? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(&buffer[..count]),
        }
    }
}

fn packed(job: &Job<'_>, folder: &Path) -> Result<PathBuf, BuildError> {
    let archive = folder.with_extension("tar");
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "--numeric-owner", "-cf"]).arg(&archive);
    tar.arg("-C").arg(folder).arg(".");
    job.run_program(tar, |_| ())?;
    fs::remove_dir_all(folder).map_err(system(format!("removing {}", folder.display())))?;
    Ok(archive)
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::net::TcpListener;
    use std::sync::atomic::AtomicBool;
    use std::thread;

    use super::*;

    const ARCHIVE: &[u8] = b"what a registry of this test has for a-tool@1.2.3";

    struct Quiet;
    impl crate::build::Progress for Quiet {
        fn at(&self, _: BuildStep, _: f32, _: &str) {}
    }

    fn integrity(bytes: &[u8]) -> String {
        let digest = base64::engine::general_purpose::STANDARD.encode(Sha512::digest(bytes));
        format!("sha512-{digest}")
    }

    /// A FAKE registry of one package. Its address; it answers as long as the test runs.
    fn registry() -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let archive = format!("{address}/files/a.tgz");
        let (name, version) = ("a-tool", "1.2.3");
        let dist = serde_json::json!({ "tarball": archive, "integrity": integrity(ARCHIVE) });
        let about = serde_json::json!({
            "name": name, "dist-tags": { "latest": version },
            "versions": { version: { "name": name, "version": version, "dist": dist } },
        })
        .to_string();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let first = lines.next().unwrap().unwrap();
                lines.find(|line| line.as_ref().is_ok_and(String::is_empty));
                let body = if first.contains(" /files/a.tgz ") {
                    ARCHIVE
                } else if first.contains(" /a-tool ") {
                    about.as_bytes()
                } else {
                    b""
                };
                let status = if body.is_empty() { "404 Not Found" } else { "200 OK" };
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
                );
                // npm may have seen enough before the end.
                let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body));
            }
        });
        address
    }

    /// Fetches with a machine's npm that is set to `registry`, into the cache of `folder`.
    fn fetch_from(
        registry: &str,
        folder: &Path,
        package: &NpmPackage,
    ) -> Result<PathBuf, BuildError> {
        let work = folder.join("work");
        fs::create_dir_all(&work).unwrap();
        let settings = format!(
            "registry={registry}/\ncache={}\nfetch-retries=0\ndry-run=true\n",
            folder.join("npm").display()
        );
        fs::write(work.join(".npmrc"), settings).unwrap();
        fs::write(work.join("package.json"), "{}").unwrap();
        let text = "name='a'\nsuite='bookworm'\npackages=[]\n";
        let recipe = crate::Recipe::parse(Path::new("r.toml"), text).unwrap();
        let job = Job {
            recipe: &recipe,
            digest: "0",
            folder,
            log: &folder.join("log"),
            cache_dir: folder,
            progress: &Quiet,
            cancel: &AtomicBool::new(false),
        };
        fetch(&job, &work, package)
    }

    #[test]
    fn a_package_comes_from_where_npm_is_set_to_and_is_held_to_its_integrity() {
        let registry = registry();
        let folder = tempfile::tempdir().unwrap();
        let pinned = |package: &str, bytes| NpmPackage {
            package: package.to_owned(),
            integrity: integrity(bytes),
            path: None,
        };
        let good = pinned("a-tool@1.2.3", ARCHIVE);
        let kept = fetch_from(&registry, folder.path(), &good).unwrap();
        assert_eq!(fs::read(&kept).unwrap(), ARCHIVE);
        // Kept: nothing is asked of a registry that is gone.
        assert_eq!(fetch_from("http://127.0.0.1:9", folder.path(), &good).unwrap(), kept);
        let other = pinned("a-tool@1.2.3", b"something else");
        let refused = fetch_from(&registry, folder.path(), &other).unwrap_err();
        assert_eq!(
            refused.to_string(),
            format!(
                "the npm package a-tool@1.2.3 has the integrity {} from this machine's npm \
                 registry, but the recipe says {}; use the pinned version, or review the change and \
                 update the recipe",
                good.integrity, other.integrity
            )
        );
        let unknown = pinned("a-tool@9.9.9", b"something new");
        let missing = fetch_from(&registry, folder.path(), &unknown).unwrap_err().to_string();
        assert!(missing.contains("npm cannot fetch a-tool@9.9.9"), "{missing}");
        assert!(missing.contains("npm config get registry"), "{missing}");
    }
}
