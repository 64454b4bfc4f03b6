//! Secrets into their owner's keyring (the Secret Service): all of them or none, over nothing that is
//! there without --force.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use anteroom_guest_protocol::ForeignText;
use anteroom_vault::BundledSecret;
use anyhow::{Context, Result, anyhow, bail};
use secret_service::blocking::{Collection, Item, SecretService};
use secret_service::{EncryptionType, Error};

/// How often it is looked whether somebody interrupts the wait for a keyring.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// A secret that was put there, and the one in whose place it is.
struct Put<'a> {
    item: Item<'a>,
    before: Option<BundledSecret>,
}

/// The secrets, as a sentence names them.
pub fn named(secrets: &[BundledSecret]) -> String {
    let labels: Vec<String> =
        secrets.iter().map(|secret| ForeignText::new(&secret.label).to_string()).collect();
    format!("the secret for a keyring ({})", labels.join(", "))
}

/// Waits until the owner's keyring is unlocked: it may ask them for its password.
pub fn unlock(interrupted: &AtomicBool) -> Result<()> {
    let (done, unlocked) = mpsc::channel();
    std::thread::spawn(move || {
        let unlocked = || -> Result<(), Error> {
            let service = SecretService::connect(EncryptionType::Dh)?;
            service.get_default_collection()?.ensure_unlocked().or_else(|error| match error {
                Error::Locked => service.get_default_collection()?.unlock(),
                other => Err(other),
            })
        };
        let _ = done.send(unlocked());
    });
    loop {
        match unlocked.recv_timeout(LOOK_AGAIN) {
            Ok(unlocked) => return unlocked.map_err(explain),
            Err(RecvTimeoutError::Timeout) if interrupted.load(Ordering::SeqCst) => {
                bail!("interrupted while waiting for the keyring; nothing was written")
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => bail!("cannot reach the keyring"),
        }
    }
}

/// Puts all secrets into the owner's keyring and does what comes `then`; when that fails, they are
/// taken out again.
pub fn put(
    secrets: &[BundledSecret],
    force: bool,
    then: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let service = SecretService::connect(EncryptionType::Dh).map_err(explain)?;
    let keyring = service.get_default_collection().map_err(explain)?;
    let mut put = Vec::new();
    let mut done = Ok(());
    for secret in secrets {
        done = put_one(&keyring, secret, force).map(|one| put.push(one));
        if done.is_err() {
            break;
        }
    }
    let done = done.and_then(|()| then());
    if done.is_err() {
        for Put { item, before } in put.into_iter().rev() {
            if let Some(before) = before {
                let _ = create(&keyring, &before);
            }
            let _ = item.delete();
        }
    }
    done
}

fn put_one<'a>(
    keyring: &'a Collection<'a>,
    secret: &BundledSecret,
    force: bool,
) -> Result<Put<'a>> {
    let BundledSecret { label, attributes, .. } = secret;
    let there = existing(keyring, attributes).map_err(explain)?;
    if there.is_some() && !force {
        let what = shown(attributes);
        bail!("{label} ({what}) is already in the keyring; --force replaces it");
    }
    let put = || -> Result<Put<'a>, Error> {
        let before = there.as_ref().map(|item| kept(item, attributes)).transpose()?;
        // What is replaced is removed by its own path: by attributes another's could be meant.
        let item = create(keyring, secret)?;
        if let Some(old) = &there {
            old.delete()?;
        }
        Ok(Put { item, before })
    };
    put().map_err(explain).with_context(|| format!("cannot store {label} in the keyring"))
}

fn create<'a>(keyring: &'a Collection<'a>, secret: &BundledSecret) -> Result<Item<'a>, Error> {
    let BundledSecret { label, attributes, secret, content_type } = secret;
    keyring.create_item(label, pairs(attributes), secret, false, content_type)
}

/// A secret as it is in the keyring.
fn kept(item: &Item<'_>, attributes: &BTreeMap<String, String>) -> Result<BundledSecret, Error> {
    Ok(BundledSecret {
        label: item.get_label()?,
        attributes: attributes.clone(),
        secret: item.get_secret()?,
        content_type: item.get_secret_content_type()?,
    })
}

/// The secret with these attributes and no other.
fn existing<'a>(
    keyring: &'a Collection<'a>,
    attributes: &BTreeMap<String, String>,
) -> Result<Option<Item<'a>>, Error> {
    let wanted: HashMap<&str, &str> = pairs(attributes).into_iter().filter(says).collect();
    for item in keyring.search_items(wanted.clone())? {
        let found = item.get_attributes()?;
        let found = found.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        // What is found may have more of them, and then it is another's.
        if found.filter(says).count() == wanted.len() {
            return Ok(Some(item));
        }
    }
    Ok(None)
}

/// Whether an attribute says anything: GNOME's keyring adds the schema of no kind when it reads a
/// secret from the disk.
fn says((name, value): &(&str, &str)) -> bool {
    (*name, *value) != ("xdg:schema", "org.freedesktop.Secret.Generic")
}

fn pairs(attributes: &BTreeMap<String, String>) -> HashMap<&str, &str> {
    attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect()
}

fn shown(attributes: &BTreeMap<String, String>) -> String {
    let each = attributes
        .iter()
        .map(|(name, value)| ForeignText::new(&format!("{name}={value}")).to_string());
    each.collect::<Vec<_>>().join(" ")
}

fn explain(error: Error) -> anyhow::Error {
    let what = match error {
        Error::Prompt | Error::PromptDisconnected => "the keyring was not unlocked",
        Error::NoResult => "there is no default keyring; create one",
        Error::Locked => "the keyring is locked",
        Error::Unavailable | Error::Zbus(_) | Error::ZbusFdo(_) => {
            "no keyring (Secret Service) is running here, and the credential has secrets for one; open it in the desktop session where the tool will run (GNOME and KDE have a keyring), or start gnome-keyring-daemon there"
        }
        _ => "the keyring failed",
    };
    anyhow!(error).context(what)
}
