//! The providers that are offered: the shipped ones, and the operator's files as they are now.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anteroom_guest_protocol::chain;
use anteroom_private::{PrivateError, read_text};
use anteroom_provider::{Provider, ProviderError};
use anteroom_session::ProviderId;

/// Reads the operator's folder anew where a file in it has changed. A file that cannot be used any
/// more counts as it was before, which is logged once.
#[derive(Debug)]
pub struct Providers {
    folder: Option<PathBuf>,
    shipped: BTreeMap<ProviderId, Provider>,
    files: Mutex<Files>,
}

/// What was read of the operator's folder, and what was logged of it.
#[derive(Debug, Default)]
struct Files {
    by_path: BTreeMap<PathBuf, File>,
    /// Why the folder cannot be read.
    unreadable: Option<String>,
    /// Of each file that is left out because of its id, why.
    same_ids: BTreeSet<String>,
}

#[derive(Debug)]
struct File {
    stamp: Stamp,
    /// What it said when it could be used last; nothing of a recipe.
    provider: Option<Provider>,
}

/// When a file was changed last (its permissions too), and how large it was; absent where that cannot
/// be seen.
type Stamp = Option<(i64, i64, u64)>;

impl Providers {
    /// The shipped ones, by name and text, and those of a folder.
    ///
    /// # Errors
    /// When it cannot be read, or a file in it cannot be used.
    pub fn open(
        shipped: &[(String, String)],
        folder: Option<&Path>,
    ) -> Result<Self, ProvidersError> {
        // Whoever starts with a mistake in a file is there to mend it.
        load_providers(shipped, folder)?;
        let shipped = load_providers(shipped, None)?;
        let folder = folder.map(Path::to_owned);
        Ok(Self { folder, shipped, files: Mutex::default() })
    }

    /// Those that are offered now.
    pub fn now(&self) -> BTreeMap<ProviderId, Provider> {
        let mut providers = self.shipped.clone();
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = &self.folder {
            let unreadable = read_anew(folder, &mut files.by_path).err().map(|error| chain(&error));
            if let Some(error) = &unreadable
                && unreadable != files.unreadable
            {
                tracing::warn!("{error}; the providers that were read before stay in use");
            }
            files.unreadable = unreadable;
        }
        providers.extend(files.by_id());
        providers
    }
}

impl Files {
    /// Of two with the same id the first by name counts.
    fn by_id(&mut self) -> BTreeMap<ProviderId, Provider> {
        let mut providers = BTreeMap::new();
        let mut names: BTreeMap<&ProviderId, &Path> = BTreeMap::new();
        let mut same_ids = BTreeSet::new();
        for (path, file) in &self.by_path {
            let Some(provider) = &file.provider else { continue };
            if let Some(other) = names.get(&provider.id) {
                let (name, other) = (path.display().to_string(), other.display().to_string());
                let same = ProvidersError::SameId { name, other, id: provider.id.clone() };
                same_ids.insert(format!("{same}; until then {} is left out", path.display()));
            } else {
                names.insert(&provider.id, path);
                providers.insert(provider.id.clone(), provider.clone());
            }
        }
        for same in same_ids.difference(&self.same_ids) {
            tracing::warn!("{same}");
        }
        self.same_ids = same_ids;
        providers
    }
}

/// Provider files that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ProvidersError {
    /// There is no such folder.
    #[error(transparent)]
    NoFolder(#[from] PrivateError),
    /// A file or the folder cannot be read.
    #[error("reading {} failed", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// One is not valid.
    #[error(transparent)]
    Invalid(#[from] ProviderError),
    /// Two name one provider.
    #[error("{name} and {other} have the same id, {id}; give one of them another")]
    SameId {
        /// One.
        name: String,
        /// The one before it.
        other: String,
        /// Of both.
        id: ProviderId,
    },
}

/// The shipped providers, and those in the operator's folder, which take precedence.
///
/// # Errors
/// When one cannot be read or is not valid.
pub fn load_providers(
    shipped: &[(String, String)],
    folder: Option<&Path>,
) -> Result<BTreeMap<ProviderId, Provider>, ProvidersError> {
    let mut providers = read_all(shipped)?;
    let mut texts = Vec::new();
    if let Some(folder) = folder {
        anteroom_private::providers_are_there(folder)?;
        for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
            let path = entry.map_err(unreadable(folder))?.path();
            if path.extension().is_some_and(|extension| extension == "toml") {
                let text = read_text(&path).map_err(unreadable(&path))?;
                if !is_recipe(&text) {
                    texts.push((path.display().to_string(), text));
                }
            }
        }
    }
    providers.extend(read_all(&texts)?);
    Ok(providers)
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> ProvidersError {
    |source| ProvidersError::Unreadable { path: path.to_owned(), source }
}

fn read_anew(folder: &Path, files: &mut BTreeMap<PathBuf, File>) -> Result<(), ProvidersError> {
    let mut there = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(unreadable(folder))? {
        let path = entry.map_err(unreadable(folder))?.path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            there.push(path);
        }
    }
    files.retain(|path, _| there.contains(path));
    for path in there {
        let stamp: Stamp = std::fs::metadata(&path)
            .ok()
            .map(|found| (found.ctime(), found.ctime_nsec(), found.len()));
        if files.get(&path).is_some_and(|file| file.stamp == stamp) {
            continue;
        }
        let before = files.remove(&path);
        let provider = match read(&path) {
            Ok(provider) => {
                if before.is_some() {
                    tracing::info!("{} was reloaded", path.display());
                }
                provider
            }
            Err(error) => {
                let instead = match before.as_ref().and_then(|file| file.provider.as_ref()) {
                    Some(_) => "the version that was read before stays in use",
                    None => "the provider is left out",
                };
                tracing::warn!("{}; {instead}", chain(&error));
                before.and_then(|file| file.provider)
            }
        };
        files.insert(path, File { stamp, provider });
    }
    Ok(())
}

/// What a file says; nothing of an image's recipe.
fn read(path: &Path) -> Result<Option<Provider>, ProvidersError> {
    let text = read_text(path).map_err(unreadable(path))?;
    if is_recipe(&text) {
        return Ok(None);
    }
    Ok(Some(Provider::parse(&path.display().to_string(), &text)?))
}

/// Files with these names and texts, by their ids.
fn read_all(texts: &[(String, String)]) -> Result<BTreeMap<ProviderId, Provider>, ProvidersError> {
    let mut providers = BTreeMap::new();
    let mut files: BTreeMap<ProviderId, &str> = BTreeMap::new();
    for (name, text) in texts {
        let provider = Provider::parse(name, text)?;
        if let Some(other) = files.insert(provider.id.clone(), name) {
            let (name, other) = (name.clone(), other.to_owned());
            return Err(ProvidersError::SameId { name, other, id: provider.id });
        }
        providers.insert(provider.id.clone(), provider);
    }
    Ok(providers)
}

/// Whether a file is an image's recipe, which may lie beside the providers that it names.
fn is_recipe(text: &str) -> bool {
    let table: Option<toml::Table> = text.parse().ok();
    table.is_some_and(|table| table.contains_key("suite") && !table.contains_key("login"))
}

/// Two of those that are shipped.
#[cfg(test)]
pub fn shipped() -> Vec<(String, String)> {
    let demo = include_str!("../../../providers/demo.toml");
    let gh = include_str!("../../../providers/gh.toml");
    [("demo.toml", demo), ("gh.toml", gh)].map(|(name, text)| (name.into(), text.into())).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_counts_as_it_is_now_and_a_broken_one_as_it_was() {
        let demo = include_str!("../../../providers/demo.toml");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("own.toml");
        let write = |id: &str, name: &str| {
            let text = demo.replace("id = \"demo\"", &format!("id = \"{id}\""));
            std::fs::write(&path, text.replace("Anteroom demo CLI", name)).unwrap();
        };
        let providers = Providers::open(&shipped(), Some(folder.path())).unwrap();
        let name = |id: &str| providers.now().get(&id.parse().unwrap()).map(|p| p.name.clone());
        assert_eq!((name("own"), name("gh")), (None, Some("GitHub CLI".into())));
        write("own", "First");
        assert_eq!(name("own").as_deref(), Some("First"));
        write("own", "The second");
        assert_eq!(name("own").as_deref(), Some("The second"));
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(name("own").as_deref(), Some("The second"), "a broken file keeps the old one");
        write("gh", "Mine");
        assert_eq!((name("own"), name("gh")), (None, Some("Mine".into())), "it takes its place");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(name("gh").as_deref(), Some("GitHub CLI"));
        std::fs::write(&path, "nonsense").unwrap();
        assert_eq!(name("own"), None);
        assert!(Providers::open(&shipped(), Some(folder.path())).is_err(), "not at a start");
    }

    #[test]
    fn what_is_not_a_small_text_file_is_left_out_and_nobody_waits_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let providers = Providers::open(&shipped(), Some(folder.path())).unwrap();
        let demo = include_str!("../../../providers/demo.toml");
        let pipe = folder.path().join("a-pipe.toml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::os::unix::fs::symlink("/dev/zero", folder.path().join("b-device.toml")).unwrap();
        let large = format!("{demo}\n#{}", "a".repeat(2 << 20)).replace("\"demo\"", "\"large\"");
        std::fs::write(folder.path().join("c-large.toml"), large).unwrap();
        std::fs::create_dir(folder.path().join("d-folder.toml")).unwrap();
        let target = folder.path().join("target");
        std::os::unix::fs::symlink(&target, folder.path().join("e-link.toml")).unwrap();
        let ids = || providers.now().into_keys().map(|id| id.to_string()).collect::<Vec<_>>();
        assert_eq!(ids(), ["demo", "gh"]);
        std::fs::write(&target, demo.replace("id = \"demo\"", "id = \"linked\"")).unwrap();
        assert_eq!(ids(), ["demo", "gh", "linked"], "a link to a file is followed");
        assert!(Providers::open(&shipped(), Some(folder.path())).is_err(), "not at a start");
    }
}
