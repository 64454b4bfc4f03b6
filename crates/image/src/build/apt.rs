//! Where this machine's apt has Debian's packages from, and how it gets there: a company's mirror, a
//! cache, a proxy. An image's packages come the same way.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::{BuildError, quoted};
use crate::recipe::Recipe;

/// Names that a suite goes by beside its own.
const ALIASES: [&str; 5] = ["stable", "oldstable", "testing", "unstable", "sid"];

/// What comes with a suite.
const UPDATES: [&str; 2] = ["-updates", "-security"];

/// What of this machine's configuration an image's build needs too: proxies, authorities, and what a
/// frozen mirror wants.
const OPTIONS: [&str; 3] = ["Acquire::http", "Acquire::https", "Acquire::Check-"];

/// mmdebstrap's options.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Apt {
    /// Lines of apt's sources.
    pub(super) sources: Vec<String>,
    /// Lines of apt's configuration.
    pub(super) options: Vec<String>,
    /// Files with the passwords of its mirrors.
    passwords: Vec<PathBuf>,
}

/// The recipe's mirror, or what this machine's apt has.
pub(super) fn of_recipe(recipe: &Recipe) -> Result<Apt, BuildError> {
    let suite = &recipe.suite;
    let sources = match &recipe.mirror {
        Some(mirror) => of_mirror(suite, mirror),
        None => of_this_machine(suite),
    };
    if sources.is_empty() {
        return Err(BuildError::NoSource { suite: suite.clone() });
    }
    Ok(Apt { sources, options: options(&said_by("apt-config", "dump")), passwords: passwords() })
}

impl Apt {
    /// The first source's address, for people: without what may be a password in it.
    pub(super) fn shown(&self) -> String {
        let fields = self.sources.iter().flat_map(|line| line.split(' '));
        let address = fields.into_iter().find(|field| field.contains("://")).unwrap_or_default();
        match address.split_once("://") {
            Some((scheme, rest)) => {
                let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
                let host = host.rsplit('@').next().unwrap_or(host);
                format!("{scheme}://{host}/{path}")
            }
            None => address.to_owned(),
        }
    }

    /// Shell lines and built-in commands of mmdebstrap, run before apt is: they carry the passwords.
    /// What is carried is removed with the rest of apt's configuration.
    pub(super) fn carried(&self) -> Vec<String> {
        let mut hooks = Vec::new();
        if !self.passwords.is_empty() {
            hooks.push("mkdir -p \"$1\"/etc/apt/auth.conf.d".to_owned());
        }
        hooks.extend(
            self.passwords
                .iter()
                .enumerate()
                .map(|(n, file)| format!("upload {} /etc/apt/auth.conf.d/{n}.conf", quoted(file))),
        );
        hooks
    }
}

/// A mirror of the recipe: the suite, and its security and other updates where the archive is laid out
/// as Debian's own. A browser without its security updates would make the sandbox a trap.
fn of_mirror(suite: &str, mirror: &str) -> Vec<String> {
    let base = mirror.trim_end_matches('/');
    let mut lines = vec![format!("deb {base} {suite} main")];
    if let Some(host) = base.strip_suffix("/debian")
        && !["sid", "unstable"].contains(&suite)
    {
        lines.push(format!("deb {base} {suite}-updates main"));
        lines.push(format!("deb {host}/debian-security {suite}-security main"));
    }
    lines
}

fn of_this_machine(suite: &str) -> Vec<String> {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let codename = release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    let own = codename.unwrap_or_default().trim_matches('"');
    let files = source_files();
    sources(suite, own, &said_by("apt-get", "indextargets"), &files)
}

/// The texts of apt's source files.
fn source_files() -> Vec<String> {
    let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
    let paths = folder.map(|entry| entry.path()).chain(["/etc/apt/sources.list".into()]);
    paths.filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// What apt itself makes of this machine's sources (`apt-get indextargets`), for another suite: those
/// of Debian's archive, each with its updates. `own` is the suite of this machine.
fn sources(suite: &str, own: &str, targets: &str, files: &[String]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for target in targets.split("\n\n") {
        let field = |name: &str| {
            target.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let (Some(address), Some(release)) = (field("Repo-URI"), field("Release")) else {
            continue;
        };
        let is_packages = field("Created-By") == Some("Packages");
        let is_debian =
            field("Origin").is_none_or(|origin| origin.is_empty() || origin == "Debian");
        if !is_packages || !is_debian || field("Component") != Some("main") {
            continue;
        }
        let codename = field("Codename").unwrap_or_default();
        let mut names = ALIASES.iter().chain([&own, &suite]).filter(|name| !name.is_empty());
        // Codenames of updates have their part too.
        let Some(rest) = names.find_map(|name| part_of(release, name)).or_else(|| {
            part_of(
                release,
                UPDATES.iter().fold(codename, |name, part| name.trim_end_matches(part)),
            )
        }) else {
            continue;
        };
        if !rest.is_empty() && ["sid", "unstable"].contains(&suite) {
            continue;
        }
        let address = address.trim_end_matches('/');
        let line = format!("deb {}{address} {suite}{rest} main", trust_of(address, files));
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    // Updates of a suite that is not there are no system.
    let is_whole = lines.iter().any(|line| line.ends_with(&format!(" {suite} main")));
    if is_whole { lines } else { Vec::new() }
}

/// What a release is beside the suite of that name: nothing, or its updates.
fn part_of<'a>(release: &'a str, name: &str) -> Option<&'a str> {
    let rest = release.strip_prefix(name).filter(|_| !name.is_empty())?;
    (rest.is_empty() || UPDATES.contains(&rest)).then_some(rest)
}

/// The option of apt's one-line form that names the key of a source, in whichever form its file is.
/// Debian's own key mmdebstrap finds by itself.
fn trust_of(address: &str, files: &[String]) -> String {
    let is_of = |text: &&str| {
        text.split([' ', '\t', '\n']).any(|word| word.trim_end_matches('/') == address)
    };
    let stanzas = files.iter().flat_map(|text| text.split("\n\n"));
    // In the older form each line is a source of its own.
    let entries = stanzas.flat_map(|stanza| {
        let is_one_line = stanza.lines().any(|line| line.starts_with("deb"));
        if is_one_line { stanza.lines().collect() } else { vec![stanza] }
    });
    let keys = entries.filter(is_of).filter_map(|entry| {
        let lower = entry.to_ascii_lowercase();
        let at = lower.find("signed-by")? + "signed-by".len();
        let value = entry.get(at..)?.trim_start_matches([':', '=', ' ', '"']);
        let key = value.split([' ', '\n', ']', '"']).next()?;
        (key.starts_with('/') && !key.ends_with("/debian-archive-keyring.gpg")).then_some(key)
    });
    keys.into_iter().next().map_or(String::new(), |key| format!("[signed-by={key}] "))
}

/// Those lines of `apt-config dump` that an image's build needs.
fn options(dump: &str) -> Vec<String> {
    let wanted = |line: &&str| {
        OPTIONS.iter().any(|option| line.starts_with(option)) && !line.ends_with(" \"\";")
    };
    dump.lines().filter(wanted).map(|line| line.trim_end_matches(';').to_owned()).collect()
}

/// Files with passwords that whoever builds may read.
fn passwords() -> Vec<PathBuf> {
    let folder = fs::read_dir("/etc/apt/auth.conf.d").into_iter().flatten().flatten();
    let mut files: Vec<_> = folder
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "conf"))
        .chain(["/etc/apt/auth.conf".into()])
        .filter(|path: &PathBuf| fs::File::open(path).is_ok())
        .collect();
    files.sort();
    files
}

/// What a program of apt says; nothing where it is not there.
fn said_by(program: &str, argument: &str) -> String {
    let output = Command::new(program).arg(argument).stdin(Stdio::null()).output();
    output.map(|it| String::from_utf8_lossy(&it.stdout).into_owned()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str, release: &str, more: &str) -> String {
        format!(
            "MetaKey: main/binary-amd64/Packages\nURI: {address}dists\nCreated-By: Packages\n\
             Component: main\nRelease: {release}\nRepo-URI: {address}\n{more}"
        )
    }

    #[test]
    fn packages_come_from_where_this_machines_apt_has_them() {
        let all = [
            target("http://mirror.test/debian/", "bookworm", "Origin: Debian\n"),
            target("http://mirror.test/debian/", "bookworm-updates", "Origin: Debian\n"),
            target("http://mirror.test/debian/", "bookworm-backports", "Origin: Debian\n"),
            target("https://cache.test/sec/", "bookworm-security", ""),
            target("https://tool.test/", "bookworm", "Origin: Somebody\n"),
            target("https://tool.test/", "nodistro", ""),
        ]
        .join("\n");
        let files = [
            "Types: deb\nURIs: https://other.test\nSigned-By: /k/other.gpg\n\nTypes: deb\n\
             URIs: https://cache.test/sec\nSuites: bookworm-security\nSigned-By: /k/ours.gpg\n"
                .to_owned(),
            "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian x main\n"
                .to_owned(),
        ];
        for suite in ["bookworm", "trixie"] {
            assert_eq!(
                sources(suite, "bookworm", &all, &files),
                [
                    format!("deb http://mirror.test/debian {suite} main"),
                    format!("deb http://mirror.test/debian {suite}-updates main"),
                    format!(
                        "deb [signed-by=/k/ours.gpg] https://cache.test/sec {suite}-security main"
                    ),
                ]
            );
        }
        let old = files.map(|text| text.replace("Types: deb\nURIs:", "deb [signed-by=/k/old.gpg]"));
        assert!(sources("sid", "bookworm", &all, &old)[0].ends_with("/debian sid main"));
        assert_eq!(sources("sid", "bookworm", &all, &old).len(), 1);
    }

    #[test]
    fn a_suite_by_another_name_is_the_same() {
        let stable = target("http://mirror.test/debian/", "stable", "Codename: trixie\n");
        assert_eq!(
            sources("trixie", "trixie", &stable, &[]),
            ["deb http://mirror.test/debian trixie main"]
        );
        let foreign = target("http://mirror.test/debian/", "duke-security", "Codename: duke\n");
        assert!(sources("trixie", "duke", &foreign, &[]).is_empty(), "updates alone are no system");
        assert!(sources("trixie", "", "", &[]).is_empty());
    }

    #[test]
    fn a_mirror_of_the_recipe_comes_with_its_security_updates() {
        assert_eq!(
            of_mirror("bookworm", "http://mirror.test/debian/"),
            [
                "deb http://mirror.test/debian bookworm main",
                "deb http://mirror.test/debian bookworm-updates main",
                "deb http://mirror.test/debian-security bookworm-security main",
            ]
        );
        assert_eq!(of_mirror("sid", "http://mirror.test/debian").len(), 1);
        assert_eq!(of_mirror("bookworm", "http://mirror.test/frozen").len(), 1);
    }

    #[test]
    fn proxies_and_what_a_frozen_mirror_wants_are_taken_over_and_nothing_else() {
        let dump = "APT::Architecture \"amd64\";\nAcquire::http \"\";\n\
                    Acquire::http::Proxy \"http://proxy.test:3128\";\n\
                    Acquire::Check-Valid-Until \"false\";\nAcquire::Languages \"en\";\n\
                    Acquire::https::CaInfo \"/etc/ours.pem\";\n";
        assert_eq!(
            options(dump),
            [
                "Acquire::http::Proxy \"http://proxy.test:3128\"",
                "Acquire::Check-Valid-Until \"false\"",
                "Acquire::https::CaInfo \"/etc/ours.pem\"",
            ]
        );
    }

    #[test]
    fn what_is_shown_of_a_source_has_no_password() {
        let of = |line: &str| Apt { sources: vec![line.to_owned()], ..Apt::default() }.shown();
        assert_eq!(
            of("deb [a=b] https://me:pw@mirror.test/debian x main"),
            "https://mirror.test/debian"
        );
        assert_eq!(of("deb http://mirror.test/a@b x main"), "http://mirror.test/a@b");
    }
}
