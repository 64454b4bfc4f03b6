//! What is sealed: one ustar archive of files, named from the home on, and of secrets that the tool
//! kept in the desktop's keyring. The guest makes it, its owner opens it (`anteroom-vault`).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The first component of names that are no file's.
pub const RESERVED_FOLDER: &str = ".anteroom";

/// What SQLite keeps beside a database: appended to its name.
pub const SQLITE_COMPANIONS: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Entries of a bundle at most.
pub const MAX_BUNDLE_ENTRIES: usize = 64;

/// Stands for any value in the attributes that a provider declares.
pub const ANY_VALUE: &str = "*";

/// A secret of the keyring, as the JSON in a bundle's entry [`keyring_entry`]. How it is called is
/// not the guest's to say.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyringItem {
    /// What it is found by.
    pub attributes: BTreeMap<String, String>,
    /// Its bytes, base64.
    pub secret_base64: String,
    /// Its media type, as the tool gave it.
    pub content_type: String,
}

/// The name of the entry that holds a bundle's `n`th secret of the keyring.
#[must_use]
pub fn keyring_entry(n: usize) -> String {
    format!("{RESERVED_FOLDER}/keyring/{n}.json")
}

/// Whether an entry's name is that of a secret of the keyring.
#[must_use]
pub fn is_keyring_entry(name: &str) -> bool {
    (0..MAX_BUNDLE_ENTRIES).any(|n| keyring_entry(n) == name)
}

/// Whether a file is a rollback journal of SQLite's that names a super-journal: whoever opens the
/// database next removes the file of that name, wherever it is (SQLite's file format, 3; pager.c,
/// `pager_delsuper`).
#[must_use]
pub fn deletes_a_file(name: &str, content: &[u8]) -> bool {
    const END: [u8; 8] = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    name.ends_with("-journal") && content.ends_with(&END)
}

/// Whether a file's name, from the home on, is one that a declared name stands for: the same, or
/// with one or more characters in place of the `*` in its last component. What stands there is no
/// folder, does not hide the file, and turns no text around it.
#[must_use]
pub fn name_matches(declared: &str, name: &str) -> bool {
    let (folder, last) = declared.rsplit_once('/').unwrap_or(("", declared));
    let Some((before, after)) = last.split_once('*') else { return declared == name };
    let (found_folder, found) = name.rsplit_once('/').unwrap_or(("", name));
    let between = found.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    let Some(between) = between.filter(|between| !between.is_empty()) else { return false };
    let hides = before.is_empty() && between.starts_with('.');
    folder == found_folder && !hides && !between.contains(crate::is_harmful)
}

/// Whether a secret's attributes are those declared, no more and no less: one that is not declared
/// could make other programs find the secret.
#[must_use]
pub fn attributes_match(
    declared: &BTreeMap<String, String>,
    found: &BTreeMap<String, String>,
) -> bool {
    declared.len() == found.len()
        && declared.iter().all(|(name, value)| {
            found.get(name).is_some_and(|found| value == ANY_VALUE || value == found)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_matched_as_a_whole() {
        let sso = ".aws/sso/cache/*.json";
        for (declared, name) in [
            (".a/b.json", ".a/b.json"),
            (sso, ".aws/sso/cache/0f.json"),
            ("*.json", "a.json"),
            (".a/.t-*", ".a/.t-1"),
            (".a/.*", ".a/.x"),
        ] {
            assert!(name_matches(declared, name), "{declared} {name}");
        }
        for (declared, name) in [
            (".a/b.json", ".a/B.json"),
            (".a/b.json", "./.a/b.json"),
            (".a/b.json", ".a//b.json"),
            (".a/b.json", ".a/b.json/"),
            (sso, ".aws/sso/cache/.json"),
            (sso, ".aws/sso/cache/.x.json"),
            (sso, ".aws/sso/cache/../../x.json"),
            (sso, ".aws/sso/cache/x/y.json"),
            (sso, ".aws/sso/x.json"),
            (sso, ".aws/sso/cache/x\u{1b}.json"),
            (sso, ".aws/sso/cache/x\u{202e}.json"),
            (".a/t*t", ".a/t"),
        ] {
            assert!(!name_matches(declared, name), "{declared} {name}");
        }
    }

    #[test]
    fn attributes_are_matched_as_a_whole() {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
        };
        let declared = map(&[("service", "acme"), ("username", ANY_VALUE)]);
        assert!(attributes_match(&declared, &map(&[("service", "acme"), ("username", "ada")])));
        for found in [
            &[("service", "acme")][..],
            &[("service", "other"), ("username", "ada")],
            &[("service", "acme"), ("username", "ada"), ("application", "chrome")],
            &[("service", "acme"), ("user", "ada")],
        ] {
            assert!(!attributes_match(&declared, &map(found)), "{found:?}");
        }
    }

    #[test]
    fn entries_of_the_keyring_have_one_spelling() {
        assert!(is_keyring_entry(&keyring_entry(0)) && is_keyring_entry(&keyring_entry(63)));
        for odd in [".anteroom/keyring/64.json", ".anteroom/keyring/00.json", ".anteroom/x"] {
            assert!(!is_keyring_entry(odd), "{odd}");
        }
    }
}
