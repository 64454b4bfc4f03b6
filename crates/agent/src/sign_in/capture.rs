//! From complete files to a sealed credential.

use anteroom_guest_protocol::{BeginSignIn, GuestMessage};
use anyhow::Result;
use base64::Engine;

use super::context::Context;
use crate::credential::bundle::{BundledFile, archive};
use crate::credential::seal::seal;
use crate::credential::status::{self, Answer};

/// How complete files were found.
#[derive(Clone, Copy)]
pub struct Found {
    /// Bytes that the CLI wrote until then.
    pub terminal_bytes: u64,
    /// Whether only the CLI itself can say if they are a sign-in at all.
    pub cli_decides: bool,
}

/// What became of files that were found.
pub enum Captured {
    /// They are sealed or refused, and the host knows.
    Reported,
    /// They are no sign-in yet.
    NotYet,
}

/// Asks the CLI itself about what was found, seals it, reports it. Not yet, of a CLI that goes on and
/// whose files say nothing by themselves, when it answers that nobody is signed in.
pub async fn capture(
    context: &Context,
    wanted: &BeginSignIn,
    files: &[BundledFile],
    found: Found,
) -> Result<Captured> {
    let Found { terminal_bytes, cli_decides } = found;
    let (reaper, reporter) = (&context.supervisor.reaper, &context.supervisor.reporter);
    if !cli_decides {
        reporter.report(GuestMessage::CredentialFound { terminal_bytes }).await;
    }
    if let Some(spec) = &wanted.credential.status {
        match status::ask(spec, files, &context.guest, reaper, reporter).await {
            Ok(Answer::SignedIn(said)) => {
                if cli_decides {
                    reporter.report(GuestMessage::CredentialFound { terminal_bytes }).await;
                }
                reporter.report(GuestMessage::CredentialVerified { said }).await;
            }
            Ok(Answer::NotSignedIn(_)) if cli_decides => return Ok(Captured::NotYet),
            Ok(Answer::NotSignedIn(why)) => return Ok(refuse(context, why).await),
            Err(error) => {
                let cause = format!("running the tool's status command failed: {error:#}");
                return Ok(refuse(context, cause).await);
            }
        }
    }
    let sealed = seal(&archive(files)?, &wanted.recipient)?;
    let ciphertext_base64 = base64::engine::general_purpose::STANDARD.encode(sealed);
    reporter.report(GuestMessage::CredentialSealed { ciphertext_base64 }).await;
    Ok(Captured::Reported)
}

/// Reports why there is no credential.
pub async fn refuse(context: &Context, cause: String) -> Captured {
    context.supervisor.reporter.report(GuestMessage::CredentialRefused { cause }).await;
    Captured::Reported
}
