//! The credential's files: waits until they are complete and stable.

use std::path::PathBuf;
use std::time::Duration;

use anteroom_guest_protocol::{
    CredentialSpec, MAX_BUNDLE_ENTRIES, MAX_CREDENTIAL, deletes_a_file, name_matches,
};
use anyhow::Result;

use super::changes::Changes;
use super::complete::Complete;
use super::look::Look;
use super::turn::Turn;
use super::watched_file::WatchedFile;
use super::watched_keyring::WatchedKeyring;
use super::{bundle, keyring};
use crate::guest::Guest;

/// Between two looks that must agree, and between any two: CLIs write in different ways (rename,
/// truncate and write, in pieces), and a guest may change files without end.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// Looks that must agree before complete files count as stable.
const AGREEING_LOOKS: u32 = 2;

/// The credential's files, resolved for this sandbox.
pub struct Watched {
    /// Those of the home.
    pub files: Vec<WatchedFile>,
    /// Those of the keyring.
    pub keyring: WatchedKeyring,
    home: PathBuf,
    /// Whether a secret is to be printed too, which says more of a sign-in than any file.
    awaits_print: bool,
    turn: Turn,
}

impl Watched {
    /// What to watch for in this sandbox.
    pub fn new(spec: &CredentialSpec, guest: &Guest) -> Result<Self> {
        let files = spec.files.iter().map(|file| WatchedFile::new(file, guest));
        Ok(Self {
            files: files.collect::<Result<_>>()?,
            keyring: WatchedKeyring::new(spec.keyring.clone(), guest),
            home: guest.home.clone(),
            awaits_print: !spec.printed.is_empty(),
            turn: Turn::default(),
        })
    }

    /// Whether there is nothing to look for.
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.keyring.secrets.is_empty()
    }

    /// Whether a look can show by itself that somebody has signed in: of bytes of which nothing is
    /// read it can only show that they are there.
    pub fn reports(&self) -> bool {
        self.files.iter().any(|file| !file.optional && !matches!(file.complete, Complete::Binary))
            || self.keyring.secrets.iter().any(|secret| !secret.optional)
    }

    /// Returns when the files are complete and two looks in a row agree; the error is a sentence for
    /// the end user.
    pub async fn until_stable(&self) -> Result<(), String> {
        let mut last = None;
        let mut agreeing = 1;
        let mut changes = Changes::new();
        loop {
            for file in &self.files {
                changes.watch(&file.home.join(&file.declared));
            }
            if !self.keyring.secrets.is_empty() {
                changes.watch(&self.home.join(keyring::FOLDER).join("*"));
            }
            let look = self.look();
            // A database may be written without end; it is copied while its tool stands still.
            let settled = self.but_for_databases(&look);
            agreeing = if last.as_ref() == Some(&settled) { agreeing + 1 } else { 1 };
            match &look {
                // What a tool writes when it starts, its database or who its device is, is no sign-in.
                Look::Complete(_) if !self.counts(&look) => {
                    changes.next().await;
                }
                Look::Complete(_) if agreeing >= AGREEING_LOOKS => return Ok(()),
                Look::Refused(cause) if agreeing >= AGREEING_LOOKS => return Err(cause.clone()),
                Look::Incomplete(_) if agreeing >= AGREEING_LOOKS => changes.next().await,
                Look::Incomplete(_) | Look::Complete(_) | Look::Refused(_) => {}
            }
            last = Some(settled);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }

    /// A look without the content of files of which nothing is read.
    fn but_for_databases(&self, look: &Look) -> Look {
        let Look::Complete(files) = look else { return look.clone() };
        let mut files = files.clone();
        for declared in self.files.iter().filter(|file| matches!(file.complete, Complete::Binary)) {
            let its = files.iter_mut().filter(|file| {
                name_matches(&declared.declared, &file.path) || declared.is_companion(&file.path)
            });
            its.for_each(|file| file.content.clear());
        }
        Look::Complete(files)
    }

    /// One look at all files.
    pub fn look(&self) -> Look {
        let mut files = Vec::new();
        for file in &self.files {
            match file.look() {
                Ok(found) => files.extend(found),
                Err(look) => return look,
            }
        }
        match self.keyring.look() {
            Ok(found) => files.extend(found),
            Err(look) => return look,
        }
        if files.len() > MAX_BUNDLE_ENTRIES {
            let count = files.len();
            return Look::Refused(format!(
                "it has {count} files; at most {MAX_BUNDLE_ENTRIES} are allowed"
            ));
        }
        if let Some(file) = files.iter().find(|file| deletes_a_file(&file.path, &file.content)) {
            return Look::Refused(format!(
                "{} names another file, which SQLite would remove where the credential is opened",
                file.path
            ));
        }
        if let Some(file) = files.iter().find(|file| !bundle::holds(&file.path)) {
            return Look::Refused(format!(
                "the path {} is too long; at most 100 bytes after a slash and 155 before it are allowed",
                file.path
            ));
        }
        let bytes: usize = files.iter().map(|file| file.content.len()).sum();
        if bytes > MAX_CREDENTIAL {
            return Look::Refused(format!(
                "its files have {bytes} bytes in total; at most {MAX_CREDENTIAL} are allowed"
            ));
        }
        Look::Complete(files)
    }

    /// The tool gives its address: what is there now is not what the end user's sign-in leaves.
    pub fn turn_begins(&self) {
        self.turn.begins(|| self.look());
    }

    /// An address stands on the terminal. Whether it is the one, the host says when it has read it: by
    /// then the tool may have written already.
    pub fn address_shown(&self) {
        self.turn.address_shown(|| self.look());
    }

    /// The host has read the address: the end user's turn began when it was shown.
    pub fn turn_began(&self) {
        self.turn.began_at_address(|| self.look());
    }

    /// Whether a sign-in may have left this: it was not there when the end user's turn began. A tool that
    /// gives no address had nobody's turn.
    pub fn counts(&self, look: &Look) -> bool {
        self.is_reported_otherwise()
            || ((self.turn.has_begun() || self.reports()) && self.turn.is_new(look))
    }

    /// Whether a tool that ends now leaves just what was there when the end user's turn began.
    pub fn is_left_as_it_was(&self, look: &Look) -> bool {
        !self.is_reported_otherwise() && self.turn.is_left_as_it_was(look)
    }

    /// What was found was no sign-in.
    pub fn waits_for_another(&self, look: Look) {
        self.turn.rejects(look);
    }

    fn is_reported_otherwise(&self) -> bool {
        self.is_empty() || self.awaits_print
    }
}

#[cfg(test)]
mod tests;
