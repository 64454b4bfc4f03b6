//! Who may hold a credential, and what the controller states of one that is sealed.

use anteroom_api::{Problem, ProblemCode, TermsView};
use anteroom_guest_protocol::SQLITE_COMPANIONS;
use anteroom_provider::{Custody, FileFormat, Provider, TermsOfUse};
use anteroom_session::{OpenableBy, SessionId};
use anteroom_vault::{Declared, Statement, check_recipient};

use super::store::Store;
use super::{Controller, internal};
use crate::node_protocol::Node;

impl<N: Node, S: Store> Controller<N, S> {
    /// Who a credential is sealed to, if the provider's terms allow that.
    pub(super) fn sealed_to(
        &self,
        provider: &Provider,
        recipient: Option<String>,
    ) -> Result<(String, OpenableBy), Problem> {
        let recipient = recipient.map(|recipient| check_recipient(&recipient)).transpose();
        let recipient = recipient
            .map_err(|error| Problem::new(ProblemCode::InvalidValue, error.to_string()))?;
        // The vault's own key is public: who sends it asks for the vault.
        if let Some(recipient) = recipient.filter(|key| key != self.vault.recipient()) {
            return Ok((recipient, OpenableBy::Caller));
        }
        match &provider.terms {
            Some(terms)
                if terms.custody == Custody::RecipientOnly
                    && !self.settings.vault_custody.contains(&provider.id) =>
            {
                Err(not_for_the_vault(provider, terms))
            }
            _ => Ok((self.vault.recipient().to_owned(), OpenableBy::Operator)),
        }
    }

    /// The envelope of a session's sealed credential. It is signed when it is asked for: what it says
    /// is stored, and a lost key takes no credential with it.
    pub(super) async fn envelope_of(
        &self,
        id: SessionId,
        sealed: &[u8],
    ) -> Result<String, Problem> {
        let record = self.record(id).await?;
        if record.declared.is_empty() {
            let detail = "this credential was sealed by an Anteroom that recorded no names for its envelope; sign in again";
            return Err(Problem::wrong_state(detail));
        }
        let statement = Statement {
            session: id,
            provider: record.session.terms.provider.clone(),
            sha256: Statement::digest(sealed),
            recipient: record.recipient,
            openable_by: record.openable_by,
            declared: record.declared,
        };
        statement.sign(&self.key).map_err(|error| internal(error.into()))
    }
}

fn not_for_the_vault(provider: &Provider, terms: &TermsOfUse) -> Problem {
    let (name, id, TermsOfUse { page, read, .. }) = (&provider.name, &provider.id, terms);
    let detail = format!(
        "the terms of {name} ({page}, read on {read}) let nobody but the person hold the credential, so it is not sealed to the vault; send an age key of the person's as recipient, or have them call `anteroom credentials receive {id}` where the tool is to run; the operator's own word is `serve --allow-vault-custody {id}`"
    );
    Problem::new(ProblemCode::CustodyNotAllowed, detail)
}

/// All that may come out of a credential of this provider's.
pub fn declared(provider: &Provider) -> Vec<Declared> {
    let credential = &provider.credential;
    let files = credential.files.iter().flat_map(|file| {
        let name = file.path.trim_start_matches("~/");
        let beside: &[&str] =
            if file.format == FileFormat::Binary { &SQLITE_COMPANIONS } else { &[] };
        let names = beside.iter().map(move |suffix| format!("{name}{suffix}"));
        std::iter::once(name.to_owned()).chain(names)
    });
    let printed = credential.printed.iter().map(|secret| &secret.path);
    let files = files.chain(printed.map(|path| path.trim_start_matches("~/").to_owned()));
    let files = files.map(|name| match name.contains('*') {
        true => Declared::Files { pattern: name },
        false => Declared::File { path: name },
    });
    let secrets = credential.keyring.iter().map(|secret| Declared::KeyringSecret {
        label: secret.label.clone(),
        attributes: secret.attributes.clone(),
    });
    files.chain(secrets).collect()
}

/// The files among what may come out.
pub fn files_of(declared: &[Declared]) -> Vec<String> {
    let name = |one: &Declared| match one {
        Declared::File { path } => Some(path.clone()),
        Declared::Files { pattern } => Some(pattern.clone()),
        Declared::KeyringSecret { .. } => None,
    };
    declared.iter().filter_map(name).collect()
}

/// Terms as callers and viewers are shown them.
pub fn terms_view(terms: &TermsOfUse, openable_by: OpenableBy) -> TermsView {
    let only_the_end_user = terms.custody == Custody::RecipientOnly;
    TermsView {
        page: terms.page.clone(),
        read: terms.read.clone(),
        custody: if only_the_end_user {
            anteroom_api::Custody::RecipientOnly
        } else {
            anteroom_api::Custody::Vault
        },
        overridden: only_the_end_user && openable_by == OpenableBy::Operator,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_file_names_may_come_out() {
        let text = include_str!("../../../../providers/demo.toml");
        let more = "[[credential.files]]\npath = '~/.demo-login/db'\nformat = 'binary'\n\
                    [[credential.files]]\npath = '~/.demo-login/*.yml'\noptional = true\n\
                    [[credential.printed]]\npath = '~/.demo-login/token'\nbegins = 'tok-'\nrest = 'x+'\n\
                    [[credential.keyring]]\nlabel = 'Demo'\nattributes = { service = 'demo' }\n\
                    [egress]";
        let provider = Provider::parse("demo", &text.replace("[egress]", more)).unwrap();
        let file = |path: &str| Declared::File { path: path.to_owned() };
        let label = "Demo".to_owned();
        let attributes = [("service".to_owned(), "demo".to_owned())].into();
        assert_eq!(
            declared(&provider),
            [
                file(".demo-login/credentials.json"),
                file(".demo-login/db"),
                file(".demo-login/db-wal"),
                file(".demo-login/db-shm"),
                file(".demo-login/db-journal"),
                Declared::Files { pattern: ".demo-login/*.yml".to_owned() },
                file(".demo-login/token"),
                Declared::KeyringSecret { label, attributes },
            ]
        );
    }
}
