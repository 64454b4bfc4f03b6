//! The files of a keyring without a password: what is in them, and which of it a provider means.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use anteroom_guest_protocol::{KeyringItem, KeyringSpec, attributes_match};
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::guest::Guest;

/// From the home on: the folder of keyrings, and the one that is used when none is named.
pub const FOLDER: &str = ".local/share/keyrings";
const DEFAULT: &str = "login";

/// Says of an item, in the Secret Service's own attribute, what its others mean; the usual value says
/// nothing, and the service leaves it out by itself.
const SCHEMA: (&str, &str) = ("xdg:schema", "org.freedesktop.Secret.Generic");

/// The text of a keyring without a password, for secrets that are in it from the start.
pub fn text(items: &[KeyringItem]) -> String {
    let mut text = "[keyring]\ndisplay-name=Login\nctime=0\nmtime=0\nlock-on-idle=false\n\
                    lock-after=false\n"
        .to_owned();
    for (n, item) in (1..).zip(items) {
        let secret = STANDARD.decode(&item.secret_base64).unwrap_or_default();
        text += &format!(
            "\n[{n}]\nitem-type=0\ndisplay-name=-\nbinary-secret={}\nmtime=0\nctime=0\n",
            hex::encode_upper(secret)
        );
        for (k, (name, value)) in item.attributes.iter().enumerate() {
            text += &format!("\n[{n}:attribute{k}]\nname={name}\ntype=string\nvalue={value}\n");
        }
    }
    text
}

/// Lays a keyring into a home, so that nobody is asked for a password.
pub fn lay(home: &Path, items: &[KeyringItem], guest: &Guest) -> Result<()> {
    let folder = home.join(FOLDER);
    let missing: Vec<&Path> = folder.ancestors().take_while(|folder| !folder.exists()).collect();
    for folder in missing.into_iter().rev() {
        fs::create_dir(folder)?;
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))?;
        guest.give_to_end_user(folder)?;
    }
    let keyring = format!("{DEFAULT}.keyring");
    for (name, text) in [("default", DEFAULT.to_owned()), (keyring.as_str(), text(items))] {
        let path = folder.join(name);
        fs::write(&path, text)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        guest.give_to_end_user(&path)?;
    }
    Ok(())
}

/// What there is of a declared secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// Those that it means.
    Items(Vec<KeyringItem>),
    /// One that it would mean, if it had said this attribute too.
    Undeclared(String),
}

/// The items of a keyring that a provider declares.
pub fn declared(spec: &KeyringSpec, items: &[KeyringItem]) -> Found {
    let has_all = |item: &&KeyringItem| {
        let of_both =
            item.attributes.iter().filter(|(name, _)| spec.attributes.contains_key(*name));
        let of_both = of_both.map(|(name, value)| (name.clone(), value.clone())).collect();
        attributes_match(&spec.attributes, &of_both)
    };
    let (exact, more): (Vec<&KeyringItem>, Vec<_>) = items
        .iter()
        .filter(has_all)
        .partition(|item| attributes_match(&spec.attributes, &item.attributes));
    if exact.is_empty()
        && let Some(name) = more
            .iter()
            .flat_map(|item| item.attributes.keys())
            .find(|name| !spec.attributes.contains_key(*name))
    {
        return Found::Undeclared(name.clone());
    }
    Found::Items(exact.into_iter().cloned().collect())
}

/// Reads the text of a keyring without a password. What is no item is passed over: it is the guest's
/// own, and a tool may have written anything.
pub fn items(text: &str) -> Vec<KeyringItem> {
    let mut secrets: BTreeMap<&str, Vec<u8>> = BTreeMap::new();
    let mut attributes: BTreeMap<&str, BTreeMap<String, String>> = BTreeMap::new();
    for (name, body) in groups(text) {
        match name.split_once(':') {
            None => {
                if let Some(secret) = secret(body) {
                    secrets.insert(name, secret);
                }
            }
            Some((item, _)) => {
                let pair = value(body, "name").zip(value(body, "value"));
                if let Some((name, value)) = pair.filter(|pair| *pair != SCHEMA) {
                    let of_item = attributes.entry(item).or_default();
                    of_item.insert(name.to_owned(), value.to_owned());
                }
            }
        }
    }
    let item = |(name, secret): (&str, Vec<u8>)| KeyringItem {
        attributes: attributes.remove(name).unwrap_or_default(),
        secret_base64: STANDARD.encode(secret),
        content_type: "text/plain".to_owned(),
    };
    secrets.into_iter().map(item).collect()
}

/// The groups of a key file: names, and what is below each. A secret may have lines of its own, also
/// such as begin a group; whose they are cannot be known then.
fn groups(text: &str) -> impl Iterator<Item = (&str, &str)> {
    let numbered = |name: &str| {
        let (item, rest) = name.split_once(':').unwrap_or((name, "attribute0"));
        let is_number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        is_number(item) && rest.strip_prefix("attribute").is_some_and(is_number)
    };
    let parts = text.split("\n[").filter_map(|part| part.split_once("]\n"));
    parts.filter(move |(name, _)| numbered(name))
}

fn value<'a>(body: &'a str, key: &str) -> Option<&'a str> {
    body.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
}

/// Text as it is, over several lines perhaps, up to what always follows it; else bytes in hexadecimal.
fn secret(body: &str) -> Option<Vec<u8>> {
    if let Some(bytes) = value(body, "binary-secret") {
        return hex::decode(bytes).ok();
    }
    let (_, text) = body.split_once("\nsecret=")?;
    let (text, _) = text.rsplit_once("\nmtime=")?;
    Some(text.as_bytes().to_vec())
}

/// The text files of keyrings in a home.
pub fn files(home: &Path) -> Vec<String> {
    let entries = fs::read_dir(home.join(FOLDER)).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries
        .take(64)
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| name.ends_with(".keyring"))
        .map(|name| format!("{FOLDER}/{name}"))
        .collect();
    names.sort();
    names
}

/// The bytes of an item as a bundle has them.
pub fn entry(item: &KeyringItem) -> Result<Vec<u8>> {
    serde_json::to_vec(item).context("writing a secret of the keyring failed")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As GNOME's keyring 42.1 writes it.
    const WRITTEN: &str = "[keyring]\ndisplay-name=Login\nctime=0\nmtime=0\nlock-on-idle=false\n\
        lock-after=false\n\n[2]\nitem-type=0\ndisplay-name=Acme login\nsecret=a\\b\nc\td \nmtime=17\n\
        ctime=17\n\n[2:attribute0]\nname=service\ntype=string\nvalue=acme\n\n[2:attribute1]\n\
        name=username\ntype=string\nvalue=ada\n\n[3]\nitem-type=0\ndisplay-name=Bin\n\
        binary-secret=6E756C0078\nmtime=18\nctime=18\n\n[3:attribute0]\nname=service\ntype=string\n\
        value=bin\n";

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect()
    }

    fn spec(pairs: &[(&str, &str)]) -> KeyringSpec {
        KeyringSpec { attributes: map(pairs), optional: false, max_bytes: 100 }
    }

    #[test]
    fn secrets_are_read_as_they_were_stored() {
        let items = items(WRITTEN);
        let secret = |n: usize| STANDARD.decode(&items[n].secret_base64).unwrap();
        assert_eq!(items.len(), 2);
        assert_eq!(items[0].attributes, map(&[("service", "acme"), ("username", "ada")]));
        assert_eq!((secret(0), secret(1)), (b"a\\b\nc\td ".to_vec(), b"nul\0x".to_vec()));
        assert_eq!(super::items(&text(&items)), items);
    }

    #[test]
    fn a_secret_is_meant_by_all_of_its_attributes() {
        let items = items(WRITTEN);
        let acme = spec(&[("service", "acme"), ("username", "*")]);
        assert_eq!(declared(&acme, &items), Found::Items(vec![items[0].clone()]));
        let too_few = spec(&[("service", "acme")]);
        assert_eq!(declared(&too_few, &items), Found::Undeclared("username".into()));
        assert_eq!(declared(&spec(&[("service", "other")]), &items), Found::Items(vec![]));
    }

    #[test]
    fn what_is_no_keyring_has_no_secrets_and_stops_nobody() {
        for odd in
            ["", "\n[", "\n[1]\n", "[1]\nsecret=x", "\n[1]\nx\nsecret=\nmtime=", "\n[1:]\n\0"]
        {
            assert!(items(odd).iter().all(|item| item.secret_base64.is_empty()), "{odd:?}");
        }
        assert_eq!(items("\n[9999999999999999999999]\nbinary-secret=zz\n"), vec![]);
    }
}
