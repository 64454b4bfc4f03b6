//! The Debian part: mmdebstrap, and what is done to its tree.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anteroom_provider::install::DebianPackage;

use super::apt::Apt;
use super::{BuildError, BuildStep, Job, archives, quoted, registries, system};

/// The kernel's package, as fetched beside the tree.
pub(super) const KERNEL_PACKAGE: &str = "kernel.deb";
/// dpkg's record of what is installed.
pub(super) const STATUS: &str = "dpkg-status";

/// Left out of every package: nobody reads manuals in a sandbox that lives for minutes.
const EXCLUDED: [&str; 5] = [
    "/usr/share/man/*",
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/lintian/*",
];

/// The installed system: a folder as root, otherwise an archive, since its files have many owners.
pub(super) enum Tree {
    Folder(PathBuf),
    Archive(PathBuf),
}

/// Installs the recipe's packages and files, and fetches the kernel's package beside them.
pub(super) fn install(
    job: &Job<'_>,
    work: &Path,
    apt: &Apt,
    archives: &[PathBuf],
    filled: &[registries::Filled],
) -> Result<Tree, BuildError> {
    let root = nix::unistd::geteuid().is_root();
    let tree =
        if root { Tree::Folder(work.join("root")) } else { Tree::Archive(work.join("root.tar")) };
    let mut command = Command::new("mmdebstrap");
    command
        .arg(if root { "--mode=root" } else { "--mode=unshare" })
        .args(["--variant=minbase", "--aptopt=Apt::Install-Recommends \"false\""])
        .args(["--aptopt=Acquire::Retries \"3\"", "--aptopt=Acquire::Languages \"none\""])
        .arg(format!("--include={}", included(&job.recipe.packages).join(",")))
        .args(apt.options.iter().map(|option| format!("--aptopt={option}")))
        .args(apt.carried().iter().map(|hook| format!("--setup-hook={hook}")))
        .args(held(&job.recipe.packages).iter().map(|hook| format!("--extract-hook={hook}")));
    for path in EXCLUDED {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    for hook in hooks(job, work, archives, filled)? {
        command.arg(format!("--customize-hook={hook}"));
    }
    command.arg(&job.recipe.suite).arg(tree.path()).args(&apt.sources);
    let expected = expected_packages(job);
    job.run_program(command, |log| {
        let (part, detail) = progress_of(log, expected);
        job.progress.at(BuildStep::Packages, part * 0.75, detail);
    })?;
    Ok(tree)
}

/// The recipe's packages as apt takes them.
fn included(packages: &[String]) -> Vec<String> {
    let parsed = packages.iter().filter_map(|text| DebianPackage::parse(text));
    parsed
        .map(|package| match package.version {
            Some(version) => format!("{}={version}", package.name),
            None => package.name.to_owned(),
        })
        .collect()
}

/// Shell lines, run before anything of the packages is: the signed index has the very files that the
/// recipe means. apt holds what it fetches to that index. A plus at the end is a word of apt's where no
/// package has it in its name, as some have.
fn held(packages: &[String]) -> Vec<String> {
    let parsed = || packages.iter().filter_map(|text| DebianPackage::parse(text));
    let is_there = parsed().map(|package| package.name).filter(|name| name.ends_with('+'));
    let is_there = is_there.map(|name| {
        format!(
            "APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-cache pkgnames {name} | grep -qxF {name} \
             || {{ echo \"There is no Debian package {name}.\" >&2; exit 1; }}"
        )
    });
    let digests = parsed()
        .filter_map(|DebianPackage { name, version, sha256 }| {
            let (version, sha256) = (version?, sha256?);
            Some(format!(
                "found=$(APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" apt-cache show {name}={version} \
                 | sed -n 's/^SHA256: //p'); case \"$found\" in *{sha256}*) ;; *) \
                 echo \"The Debian package {name}={version} has the SHA-256 ${{found:-(not found)}}, \
                 and the recipe says {sha256}.\" >&2; exit 1;; esac"
            ))
        });
    is_there.chain(digests).collect()
}

/// Shell lines and built-in commands of mmdebstrap, run when the packages are installed. All texts of
/// the recipe in them were checked to hold no special character.
fn hooks(
    job: &Job<'_>,
    work: &Path,
    archives: &[PathBuf],
    filled: &[registries::Filled],
) -> Result<Vec<String>, BuildError> {
    let mut hooks = vec![
        "chroot \"$1\" useradd --uid 1000 --create-home --shell /bin/bash person".to_owned(),
        // Its dependency is the newest kernel; installing it would pull in an initramfs builder.
        // From outside, where this machine's authorities and passwords are.
        "cd \"$1\"/var/tmp && export APT_CONFIG=\"$MMDEBSTRAP_APT_CONFIG\" && \
         apt-get download $(apt-cache depends linux-image-cloud-amd64 \
         | awk '/Depends: linux-image/{print $2; exit}') && mv linux-image-*.deb kernel.deb"
            .to_owned(),
        format!("download /var/tmp/kernel.deb {}", quoted(&work.join(KERNEL_PACKAGE))),
        format!("download /var/lib/dpkg/status {}", quoted(&work.join(STATUS))),
        // An identity shared by all guests is none; the agent makes what a session needs. And where
        // this machine has packages from, with which password, is nothing for a guest.
        "rm -f \"$1\"/var/tmp/kernel.deb \"$1\"/etc/machine-id \"$1\"/var/lib/dbus/machine-id \
         \"$1\"/etc/hostname \"$1\"/etc/resolv.conf; : > \"$1\"/etc/machine-id; \
         rm -rf \"$1\"/etc/apt/sources.list \"$1\"/etc/apt/sources.list.d/* \
         \"$1\"/etc/apt/auth.conf.d \"$1\"/etc/apt/apt.conf.d/99mmdebstrap; \
         printf '127.0.0.1 localhost anteroom\\n' > \"$1\"/etc/hosts"
            .to_owned(),
    ];
    for (archive, file) in job.recipe.archives.iter().zip(archives) {
        hooks.push(archives::unpacking(&archive.path, archive.strip, file)?);
    }
    for registries::Filled { archive, path, strip, link } in filled {
        hooks.push(archives::unpacking(path, *strip, archive)?);
        hooks.extend(link.map(|link| format!("chroot \"$1\" sh -ec '{link}'")));
    }
    for link in &job.recipe.links {
        hooks.push(folder_of(&link.path));
        hooks.push(format!("chroot \"$1\" ln -s {} {}", link.target, link.path));
    }
    for file in &job.recipe.files {
        let source = job.recipe.source_of(file);
        let source = fs::canonicalize(&source).unwrap_or(source);
        hooks.push(folder_of(&file.path));
        hooks.push(format!("upload {} {}", quoted(&source), file.path));
        hooks.push(format!("chroot \"$1\" chmod {:o} {}", file.mode, file.path));
    }
    Ok(hooks)
}

/// Shell line that makes the folder of a path. In a chroot, like all that touches the tree: a link in it
/// leads where it will lead in the guest, and nowhere on this machine.
fn folder_of(path: &str) -> String {
    format!("chroot \"$1\" mkdir -p \"$(dirname {path})\"")
}

/// Packages that will be unpacked, roughly: a browser pulls in a few hundred.
fn expected_packages(job: &Job<'_>) -> usize {
    150 + 12 * job.recipe.packages.len()
}

/// How far mmdebstrap is, by what it printed.
fn progress_of(log: &str, expected: usize) -> (f32, &'static str) {
    #[expect(clippy::cast_precision_loss, reason = "hundreds of packages")]
    let share = |marker: &str| (log.matches(marker).count() as f32 / expected as f32).min(1.0);
    if log.contains("I: cleaning package lists") {
        (0.98, "cleaning")
    } else if log.contains("I: installing remaining packages") {
        (0.4 + 0.55 * (share("Setting up ") * 0.5 + share("Unpacking ") * 0.5), "installing")
    } else if log.contains("I: downloading packages") {
        (0.1 + 0.3 * share("Get:"), "downloading")
    } else {
        (0.02, "reading the package lists")
    }
}

impl Tree {
    fn path(&self) -> &Path {
        match self {
            Self::Folder(path) | Self::Archive(path) => path,
        }
    }

    /// Packs it into a read-only file system.
    pub(super) fn pack(&self, job: &Job<'_>, image: &Path) -> Result<(), BuildError> {
        let command = match self {
            Self::Folder(folder) => {
                let mut command = Command::new("mkfs.erofs");
                command.args(["-zlz4", "--preserve-mtime"]).arg(image).arg(folder);
                command
            }
            // In a user namespace with a range of ids the archive's owners can be kept.
            Self::Archive(archive) => {
                let mut command = Command::new("unshare");
                command
                    .args(["--map-root-user", "--map-auto", "--mount", "sh", "-ec"])
                    .arg(
                        // What it unpacks belongs to ids that nobody outside can remove. Devices
                        // cannot be made there; the guest mounts its own.
                        "trap 'rm -rf \"$1.d\"' EXIT; trap 'exit 143' TERM; mkdir \"$1.d\"; \
                         tar -x --numeric-owner --exclude='./dev/*' -f \"$1\" -C \"$1.d\"; \
                         mkfs.erofs -zlz4 --preserve-mtime \"$2\" \"$1.d\"",
                    )
                    .arg("sh")
                    .arg(archive)
                    .arg(image);
                command
            }
        };
        job.run_program(command, |_| ())
    }

    /// Removes it: a folder of a gigabyte, or an archive.
    pub(super) fn remove(&self, _: &Job<'_>) -> Result<(), BuildError> {
        let removed = match self {
            Self::Folder(path) => fs::remove_dir_all(path),
            Self::Archive(path) => fs::remove_file(path),
        };
        removed.map_err(system(format!("removing {}", self.path().display())))
    }
}

/// Unpacks a Debian package.
pub(super) fn unpack(job: &Job<'_>, package: &Path, into: &Path) -> Result<(), BuildError> {
    let mut command = Command::new("dpkg-deb");
    command.arg("-x").arg(package).arg(into);
    job.run_program(command, |_| ())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_recipe_puts_into_the_tree_is_put_there_in_a_chroot() {
        struct Quiet;
        impl crate::build::Progress for Quiet {
            fn at(&self, _: BuildStep, _: f32, _: &str) {}
        }
        let folder = tempfile::tempdir().unwrap();
        let archive = folder.path().join("a.tgz");
        fs::write(&archive, [0x1f, 0x8b, 8, 0, 0, 0, 0]).unwrap();
        let text = format!(
            "name='a'\nsuite='bookworm'\npackages=[]\n\
             [[files]]\nsource='f'\npath='/opt/cur/f'\n\
             [[links]]\npath='/opt/cur'\ntarget='/opt/a'\n\
             [[archives]]\nurl='a.tgz'\nsha256='{}'\npath='/opt/a'\n",
            "0".repeat(64)
        );
        let recipe = crate::Recipe::parse(&folder.path().join("r.toml"), &text).unwrap();
        let cancel = std::sync::atomic::AtomicBool::new(false);
        let job = Job {
            recipe: &recipe,
            digest: "0",
            folder: folder.path(),
            log: folder.path(),
            cache_dir: folder.path(),
            progress: &Quiet,
            cancel: &cancel,
        };
        let hooks = hooks(&job, folder.path(), &[archive], &[]).unwrap();
        let own: Vec<_> = hooks.iter().filter(|hook| hook.contains("/opt/")).collect();
        assert_eq!(own.len(), 6);
        // `upload` is mmdebstrap's own and writes in a chroot too.
        let inside =
            |hook: &&String| hook.starts_with("chroot \"$1\" ") || hook.starts_with("upload ");
        assert!(own.iter().all(|hook| inside(hook) && !hook.contains("\"$1\"/")), "{own:?}");
        assert!(own[0].contains("| chroot \"$1\" tar -x"), "{own:?}");
    }

    #[test]
    fn packages_are_named_to_apt_with_their_versions_and_held_to_their_digests() {
        let digest = "0".repeat(64);
        let packages = ["a".to_owned(), "b=1:2~3".to_owned(), format!("c=4@sha256:{digest}")];
        assert_eq!(included(&packages), ["a", "b=1:2~3", "c=4"]);
        let held = held(&packages);
        assert_eq!(held.len(), 1);
        assert!(held[0].contains("apt-cache show c=4 ") && held[0].contains(&digest), "{held:?}");
    }

    /// With an apt that knows two packages.
    #[test]
    fn a_plus_that_apt_would_take_for_a_word_of_its_own_is_reported() {
        let folder = tempfile::tempdir().unwrap();
        let apt = folder.path().join("apt-cache");
        fs::write(&apt, "#!/bin/sh\nprintf 'gh\\nmemtest86+\\n'\n").unwrap();
        fs::set_permissions(&apt, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
        let run = |name: &str| {
            let hooks = held(&[name.to_owned()]);
            let mut sh = Command::new("sh");
            sh.args(["-c", hooks.first().map_or("", String::as_str)]).env("PATH", &path);
            sh.output().unwrap()
        };
        assert!(run("memtest86+").status.success() && run("gh").status.success());
        let refused = run("gh+");
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && said.contains("no Debian package gh+"), "{said}");
    }
}
