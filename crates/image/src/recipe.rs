//! Recipes: what goes into an image.

use std::path::{Path, PathBuf};

use anteroom_guest_protocol::ServiceSpec;
use anteroom_provider::Provider;
use anteroom_provider::install::{
    Archive, DebianPackage, Install, Link, NpmPackage, is_pypi_package, is_sha256,
};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Raised when a build of the same recipe gives something else than before.
const FORMAT: u32 = 5;

/// One recipe file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recipe {
    /// The image's name: 1 to 64 of `a-z 0-9 -`.
    pub name: String,
    /// Debian's suite.
    pub suite: String,
    /// Debian's archive; without it the sources that this machine's apt has.
    pub mirror: Option<String>,
    /// Packages beside the smallest system: `name`, `name=version` or `name=version@sha256:…`.
    pub packages: Vec<String>,
    /// Files copied in.
    #[serde(default)]
    pub files: Vec<CopiedFile>,
    /// What runs in its sandboxes beside the sandbox's own services.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceSpec>,
    /// Providers whose CLIs are installed as their own files say; see [`Recipe::add`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub providers: Vec<String>,
    /// npm packages, from where this machine's npm has them. Nothing of theirs runs while it is built.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub npm: Vec<NpmPackage>,
    /// Python packages as pip's requirements have them, `name==1.2.3 --hash=sha256:…`, with all that
    /// they depend on, as wheels, from where this machine's pip has them; they need `python3` in the
    /// image.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pypi: Vec<String>,
    /// Archives unpacked into it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub archives: Vec<Archive>,
    /// Symbolic links in it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub links: Vec<Link>,
    /// Programs that must run in it: `anteroom image verify` tries each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub programs: Vec<ProgramSpec>,
    /// Folder of the recipe, for relative sources.
    #[serde(skip)]
    folder: PathBuf,
}

/// A file copied into the image, owned by root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopiedFile {
    /// On the host, relative to the recipe.
    pub source: PathBuf,
    /// In the image, absolute.
    pub path: String,
    /// Permission bits.
    #[serde(default = "default_mode")]
    pub mode: u32,
}

/// A program that must run in the image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramSpec {
    /// Its name: 1 to 40 of `a-z 0-9 -`.
    pub name: String,
    /// Its smoke command: one that ends soon with exit code 0, such as `["node", "--version"]`.
    pub command: Vec<String>,
    /// What its output must hold.
    #[serde(default)]
    pub prints: Option<String>,
    /// How long it may take, in seconds.
    #[serde(default = "program_seconds")]
    pub seconds: u32,
}

fn program_seconds() -> u32 {
    120
}

fn default_mode() -> u32 {
    0o644
}

/// A recipe that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// It, or a file it names, cannot be read.
    #[error("reading {} failed", path.display())]
    Read {
        /// The file, by its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not TOML of this form.
    #[error("the recipe {} cannot be read", path.display())]
    Syntax {
        /// The file, by its path.
        path: PathBuf,
        /// Where and what.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// A value that cannot be.
    #[error("the recipe {}: {problem}", path.display())]
    Value {
        /// The file, by its path.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Debian's packages of the desktop's keyring and of the session bus that it is on, for a provider
/// whose tool keeps a secret there.
const KEYRING: [&str; 2] = ["dbus-x11", "gnome-keyring"];

impl Recipe {
    /// Reads a recipe file.
    ///
    /// # Errors
    /// When it cannot be read or holds what cannot be.
    pub fn read(path: &Path) -> Result<Self, RecipeError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| RecipeError::Read { path: path.to_path_buf(), source })?;
        Self::parse(path, &text)
    }

    /// Reads a recipe's text; `path` is where it is from.
    ///
    /// # Errors
    /// When it is not TOML of this form or a value cannot be.
    pub fn parse(path: &Path, text: &str) -> Result<Self, RecipeError> {
        let mut recipe: Self = toml::from_str(text).map_err(|source| RecipeError::Syntax {
            path: path.to_path_buf(),
            source: Box::new(source),
        })?;
        recipe.folder = path.parent().unwrap_or(Path::new(".")).to_path_buf();
        recipe
            .check()
            .map_err(|problem| RecipeError::Value { path: path.to_path_buf(), problem })?;
        Ok(recipe)
    }

    /// Whether all values can be; the error is what is wrong, one sentence.
    fn check(&self) -> Result<(), String> {
        if !is_name(&self.name) {
            return Err(format!(
                "the name {:?} must be 1 to 64 characters of a-z, 0-9 and -",
                self.name
            ));
        }
        // These become arguments of mmdebstrap and lines of shell hooks.
        let plain = |text: &str| {
            text.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-._/:~".contains(&b))
                && !text.is_empty()
                && !text.starts_with('-')
        };
        let texts = self.files.iter().map(|f| &f.path);
        let texts = texts.chain(self.npm.iter().filter_map(|package| package.path.as_ref()));
        let texts = texts.chain(self.archives.iter().map(|archive| &archive.path));
        let texts = texts.chain(self.links.iter().flat_map(|link| [&link.path, &link.target]));
        if let Some(bad) = texts.chain([&self.suite]).chain(&self.mirror).find(|text| !plain(text))
        {
            return Err(format!("{bad:?} is empty or contains characters that are not allowed"));
        }
        let files = self.files.iter().map(|file| &file.path);
        let archives = self.archives.iter().map(|archive| &archive.path);
        let links = self.links.iter().map(|link| &link.path);
        let npm = self.npm.iter().filter_map(|package| package.path.as_ref());
        let mut paths = files.chain(archives).chain(links).chain(npm);
        if let Some(bad) = paths.find(|path| !path.starts_with('/') || path.contains("..")) {
            return Err(format!("the path {bad:?} must be absolute"));
        }
        if let Some(bad) = self.archives.iter().find(|archive| !is_sha256(&archive.sha256)) {
            return Err(format!(
                "the digest {:?} of {} must be 64 characters of 0-9 and a-f; `sha256sum` of the archive prints it",
                bad.sha256, bad.url
            ));
        }
        self.check_packages()?;
        if let Some(bad) = self.files.iter().find(|f| f.mode > 0o7777) {
            return Err(format!("the mode of {:?} must be at most 0o7777", bad.path));
        }
        check_services(&self.services)?;
        check_programs(&self.programs)?;
        Ok(())
    }

    /// Whether all packages are named exactly; the error is what is wrong, one sentence.
    fn check_packages(&self) -> Result<(), String> {
        let bad = |text: &&String| DebianPackage::parse(text).is_none();
        if let Some(bad) = self.packages.iter().find(bad) {
            return Err(format!(
                "the Debian package {bad:?} is not name, name=version or name=version@sha256:DIGEST, with the digest as 64 characters of 0-9 and a-f as `apt-cache show` prints it"
            ));
        }
        for package in &self.npm {
            package.check().map_err(|problem| format!("the npm package {problem}"))?;
        }
        match self.pypi.iter().find(|text| !is_pypi_package(text)) {
            Some(bad) => Err(format!(
                "the Python package {bad:?} is not name==1.2.3 --hash=sha256:DIGEST, with each digest as 64 characters of 0-9 and a-f as `pip hash WHEEL` prints it"
            )),
            None => Ok(()),
        }
    }

    /// Adds what a provider needs; what is there already stays as it is.
    ///
    /// # Errors
    /// When a value cannot be, as in a recipe.
    pub fn add(&mut self, provider: &Provider) -> Result<(), RecipeError> {
        fn extend<T: PartialEq + Clone>(list: &mut Vec<T>, more: &[T]) {
            for one in more {
                if !list.contains(one) {
                    list.push(one.clone());
                }
            }
        }
        let Install { packages, npm, pypi, archives, links, smoke } = &provider.install;
        let program = smoke.as_ref().map(|smoke| ProgramSpec {
            name: provider.id.as_str().replace('_', "-"),
            command: smoke.command.clone(),
            prints: smoke.prints.clone(),
            seconds: program_seconds(),
        });
        extend(&mut self.packages, packages);
        if !provider.credential.keyring.is_empty() {
            extend(&mut self.packages, &KEYRING.map(str::to_owned));
        }
        extend(&mut self.npm, npm);
        extend(&mut self.pypi, pypi);
        extend(&mut self.archives, archives);
        extend(&mut self.links, links);
        extend(&mut self.programs, program.as_slice());
        let path = self.folder.join(format!("{}.toml", self.name));
        self.check().map_err(|problem| RecipeError::Value { path, problem })
    }

    /// Where a copied file's source is.
    #[must_use]
    pub fn source_of(&self, file: &CopiedFile) -> PathBuf {
        self.resolve(&file.source)
    }

    /// A path as the recipe means it.
    pub(crate) fn resolve(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// 16 hexadecimal digits over the recipe, the content of its files and the format: what is built
    /// from the same digest is the same recipe (packages may be newer).
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn digest(&self) -> Result<String, RecipeError> {
        let mut hash = Sha256::new();
        hash.update(FORMAT.to_be_bytes());
        let json = serde_json::to_vec(self).unwrap_or_default();
        hash.update((json.len() as u64).to_be_bytes());
        hash.update(json);
        for file in &self.files {
            let path = self.source_of(file);
            let content =
                std::fs::read(&path).map_err(|source| RecipeError::Read { path, source })?;
            hash.update((content.len() as u64).to_be_bytes());
            hash.update(content);
        }
        Ok(hex::encode(hash.finalize())[..16].to_owned())
    }
}

/// Names of the sandbox's own services, and of others that are reported as if they were.
const OWN_SERVICES: [&str; 8] =
    ["x", "window-manager", "browser", "cli", "keyring", "status", "agent", "sandbox"];

/// Checks declared services; the error is what is wrong, one sentence.
///
/// # Errors
/// When a name is none, or the sandbox's own, or there twice, or a value cannot be.
pub fn check_services(services: &[ServiceSpec]) -> Result<(), String> {
    for (n, service) in services.iter().enumerate() {
        let name = &service.name;
        if !is_name(name) || name.len() > 40 || OWN_SERVICES.contains(&name.as_str()) {
            return Err(format!(
                "the service's name {name:?} must be 1 to 40 characters of a-z, 0-9 and -, and none that the sandbox itself uses"
            ));
        }
        if services[..n].iter().any(|other| other.name == *name) {
            return Err(format!("two services have the name {name:?}"));
        }
        if service.command.is_empty() {
            return Err(format!("the service {name:?} has no command"));
        }
        if service.ready_seconds == 0 {
            return Err(format!("the service {name:?} must have ready_seconds of at least 1"));
        }
        if service.watchdog.as_ref().is_some_and(|watchdog| watchdog.seconds == 0) {
            return Err(format!(
                "the watchdog of the service {name:?} must have seconds of at least 1"
            ));
        }
    }
    Ok(())
}

/// Checks declared programs; the error is what is wrong, one sentence.
fn check_programs(programs: &[ProgramSpec]) -> Result<(), String> {
    for (n, program) in programs.iter().enumerate() {
        let name = &program.name;
        if !is_name(name) || name.len() > 40 {
            return Err(format!(
                "the program's name {name:?} must be 1 to 40 characters of a-z, 0-9 and -"
            ));
        }
        if programs[..n].iter().any(|other| other.name == *name) {
            return Err(format!("two programs have the name {name:?}"));
        }
        if program.command.is_empty() || program.seconds == 0 {
            return Err(format!(
                "the program {name:?} must have a command, and seconds of at least 1"
            ));
        }
    }
    Ok(())
}

fn is_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !name.starts_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("r.toml");
        std::fs::write(&path, text).unwrap();
        path
    }

    #[test]
    fn the_shipped_recipe_is_read() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../images/demo.toml");
        let recipe = Recipe::read(&path).unwrap();
        assert_eq!(recipe.name, "demo");
        assert_eq!(recipe.digest().unwrap().len(), 16);
    }

    #[test]
    fn the_digest_follows_content_and_not_comments() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), "1").unwrap();
        let text = "name='a'\nsuite='bookworm'\npackages=['x']\n[[files]]\nsource='f'\npath='/f'\n";
        let digest =
            |text: &str| Recipe::read(&write(folder.path(), text)).unwrap().digest().unwrap();
        let first = digest(text);
        assert_eq!(first, digest(&format!("# a comment\n{text}")));
        assert_ne!(first, digest(&text.replace("'x'", "'y'")));
        std::fs::write(folder.path().join("f"), "2").unwrap();
        assert_ne!(first, digest(text));
    }

    #[test]
    fn what_could_break_out_of_an_argument_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        for (name, suite, package) in [
            ("../x", "bookworm", "x"),
            ("a", "book worm", "x"),
            ("a", "bookworm", "x;rm"),
            ("a", "bookworm", "-x"),
            ("a", "bookworm", ""),
            ("a", "", "x"),
        ] {
            let text = format!("name='{name}'\nsuite='{suite}'\npackages=['{package}']\n");
            assert!(Recipe::read(&write(folder.path(), &text)).is_err(), "{text}");
        }
        let text = "name='a'\nsuite='bookworm'\npackages=[]\n\
                    [[files]]\nsource='f'\npath='/f'\nmode=0o10000\n";
        assert!(Recipe::parse(Path::new("r.toml"), text).is_err());
    }

    #[test]
    fn a_service_with_the_name_of_the_sandbox_s_own_is_refused() {
        let recipe = |name: &str| {
            let text = "name='a'\nsuite='bookworm'\npackages=[]\n[[services]]\ncommand=['true']\n";
            Recipe::parse(Path::new("r.toml"), &format!("{text}name='{name}'\n"))
        };
        recipe("my-keyring").unwrap();
        for name in ["keyring", "status", "browser", "x"] {
            let refused = recipe(name).unwrap_err().to_string();
            assert!(refused.contains(&format!("{name:?} must be")), "{refused}");
        }
    }
}
