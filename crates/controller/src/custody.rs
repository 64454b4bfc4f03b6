//! Who may hold a credential, and what the controller states of one that is sealed.

use anteroom_api::{Problem, ProblemCode};
use anteroom_node_protocol::Node;
use anteroom_provider::{Custody, Provider, TermsOfUse};
use anteroom_session::{OpenableBy, SessionId};
use anteroom_vault::{Statement, check_recipient};

use super::store::Store;
use super::{Controller, internal};

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
            let detail = "this credential was sealed by an older version of Anteroom, which did not record what its envelope must list; sign in again";
            return Err(Problem::wrong_state(detail));
        }
        let statement = Statement {
            session: id,
            provider: record.session.params.provider.clone(),
            sha256: Statement::digest(sealed),
            recipient: record.recipient,
            openable_by: record.openable_by,
            declared: record.declared,
        };
        statement.sign(&self.key).map_err(internal)
    }
}

fn not_for_the_vault(provider: &Provider, terms: &TermsOfUse) -> Problem {
    let (name, id, TermsOfUse { page, read, .. }) = (&provider.name, &provider.id, terms);
    let detail = format!(
        "the terms of {name} ({page}, read on {read}) allow only the end user to hold the credential, so it cannot be sealed to the vault; send the end user's own age key as recipient, or have them run `anteroom credentials receive {id}` where the tool is to run; the operator can override the terms with `serve --allow-vault-custody {id}`"
    );
    Problem::new(ProblemCode::CustodyNotAllowed, detail)
}
