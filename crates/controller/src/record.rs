//! A session as the controller knows it: its state, its history, and what it was started with.

use std::net::Ipv4Addr;

use anteroom_api::{
    AwaitingView, CredentialState, CredentialView, EgressEntry, Reason, SessionView, TeardownState,
    TermsView, Visit,
};
use anteroom_clock::now;
use anteroom_confine::SessionUser;
use anteroom_node_protocol::SandboxRecord;
use anteroom_provider::{Custody, TermsOfUse};
use anteroom_session::{
    Accelerator, AccessGrant, Chosen, Confined, DriverKind, Method, OpenableBy, Prompt,
    PromptReason, Session, SessionId, State, Teardown, TimelineEntry, Timestamp, View,
};
use anteroom_vault::Declared;
use serde::{Deserialize, Serialize};

use super::declared::files_of;
use super::timeline::short;

/// Everything about one session.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    /// State machine and terms.
    pub session: Session,
    /// The CLI's display name.
    pub provider_name: String,
    /// What the end user has to do.
    pub instructions: String,
    /// What boots its sandbox.
    pub driver: DriverKind,
    /// Who its processes run as; none: whoever runs Anteroom.
    #[serde(default)]
    pub user: Option<SessionUser>,
    /// What holds them, once it was read.
    #[serde(default)]
    pub confined: Option<Confined>,
    /// Known once the VM runs.
    pub accelerator: Option<Accelerator>,
    /// Who the credential is sealed to.
    pub recipient: String,
    /// Whose key that is.
    pub openable_by: OpenableBy,
    /// All that may come out of it.
    #[serde(default)]
    pub declared: Vec<Declared>,
    /// What the provider's terms say of who may hold it.
    #[serde(default)]
    pub provider_terms: Option<TermsOfUse>,
    /// Address of the guest's own interface.
    pub browser_ip: Ipv4Addr,
    /// The last sign-in URL of the CLI.
    pub sign_in_url: Option<String>,
    /// Whether the sealed credential is in the store.
    pub credential_stored_at: Option<Timestamp>,
    /// Hosts the guest asked for.
    pub egress: Vec<EgressEntry>,
    /// Who opened which view of the sandbox.
    #[serde(default)]
    pub visits: Vec<Visit>,
    /// Kept in a table of its own.
    #[serde(skip)]
    pub timeline: Vec<TimelineEntry>,
}

/// How often the same viewer is reported to open the same view: one whose connection breaks reconnects.
const MAX_VISITS_ALIKE: usize = 20;

/// Visits of a session.
const MAX_VISITS: usize = 500;

impl Record {
    /// Its id.
    pub fn id(&self) -> SessionId {
        self.session.params.id
    }

    /// Whether it is over and its sandbox was torn down, as far as that went.
    pub fn is_finished(&self) -> bool {
        matches!(self.session.state, State::Ended { teardown: Teardown::TornDown { .. }, .. })
    }

    /// Whether, in addition, nothing is left of it.
    pub fn is_gone(&self) -> bool {
        matches!(&self.session.state, State::Ended { teardown, .. } if teardown.is_gone())
    }

    /// Its sandbox, as its node can find it.
    pub fn sandbox(&self) -> SandboxRecord {
        SandboxRecord { session: self.id(), user: self.user, driver: Some(self.driver) }
    }

    /// Records a visit; `false` when there were too many like it to report each.
    pub fn visited(&mut self, at: Timestamp, opened: View, viewer: AccessGrant) -> bool {
        let same = |visit: &&Visit| visit.opened == opened && visit.viewer == viewer;
        let reported = self.visits.iter().filter(same).count() < MAX_VISITS_ALIKE
            && self.visits.len() < MAX_VISITS;
        if reported {
            self.visits.push(Visit { at: at.0, opened, viewer });
        }
        reported
    }

    /// Whether links have opened views since some were revoked last. Whether each of them was still open is
    /// not known here.
    pub fn has_views_of_links(&self) -> bool {
        let revokes =
            |entry: &&TimelineEntry| matches!(&*entry.kind, "link_created" | "links_revoked");
        let last = self.timeline.iter().rev().find(revokes).map_or(0, |entry| entry.at.0);
        self.visits.iter().any(|visit| {
            visit.at >= last
                && visit.opened != View::Link
                && matches!(visit.viewer, AccessGrant::Link { .. })
        })
    }

    fn method_reason(&self) -> String {
        match self.session.params.method_chosen {
            Chosen::ByCaller => "the caller asked for it".to_owned(),
            Chosen::First => {
                format!("it is the first method in the provider file of {}", self.provider_name)
            }
        }
    }

    /// What the end user has to do, while it is their turn.
    fn awaiting(&self) -> Option<AwaitingView> {
        let Session { params, state: State::AwaitingUser { prompt, .. }, .. } = &self.session
        else {
            return None;
        };
        let (url, code, screen, instructions) = match prompt {
            Prompt::Page { url, code } => {
                (Some(url.clone()), code.clone(), Vec::new(), self.instructions.clone())
            }
            Prompt::Terminal { screen, reason } => (None, None, screen.clone(), what_to_do(reason)),
        };
        Some(AwaitingView {
            method: params.method,
            url,
            code,
            takes_code: params.method == Method::PasteCode,
            screen,
            instructions,
            deadline: self.session.turn_deadline(now()).0,
        })
    }

    /// As callers see it.
    pub fn view(&self) -> SessionView {
        let Session { params, state, deadline, .. } = &self.session;
        let (reason, teardown, leftovers) = match state {
            State::Ended { reason, teardown, .. } => {
                let (teardown, leftovers) = match teardown {
                    Teardown::TearingDown => (TeardownState::TearingDown, Vec::new()),
                    Teardown::TornDown { leftovers, .. } => {
                        (TeardownState::TornDown, leftovers.clone())
                    }
                };
                let reason = Reason {
                    code: reason.code().to_owned(),
                    message: reason.sentence(self.driver),
                    detail: serde_json::to_value(reason).unwrap_or_default(),
                };
                (Some(reason), Some(teardown), leftovers)
            }
            _ => (None, None, Vec::new()),
        };
        SessionView {
            session_id: params.id.to_string(),
            provider: params.provider.to_string(),
            provider_name: self.provider_name.clone(),
            user_id: params.user.as_ref().map(ToString::to_string),
            started_by: params.started_by.clone(),
            state: state.name(),
            reason,
            end_not_stored: None,
            created_at: params.created_at.0,
            deadline: deadline.0,
            idle_deadline: self.session.idle_deadline().map(|at| at.0),
            driver: self.driver,
            accelerator: self.accelerator,
            isolation: self.driver.isolation(),
            emulated: self.accelerator.map(|accelerator| accelerator == Accelerator::Tcg),
            confinement: self.confined.clone(),
            browser_ip: self.browser_ip.to_string(),
            sign_in_url: self.sign_in_url.clone(),
            instructions: self.instructions.clone(),
            method: params.method,
            method_reason: self.method_reason(),
            awaiting: self.awaiting(),
            credential: CredentialView {
                status: match self.credential_stored_at {
                    Some(_) => CredentialState::Sealed,
                    None => CredentialState::None,
                },
                openable_by: self.openable_by,
                recipient: self.recipient.clone(),
                files: files_of(&self.declared),
                terms: self
                    .provider_terms
                    .as_ref()
                    .map(|terms| terms_view(terms, self.openable_by)),
            },
            egress: self.egress.clone(),
            visits: self.visits.clone(),
            teardown,
            leftovers,
            timeline: self.timeline.clone(),
        }
    }
}

/// SessionParams as callers and viewers are shown them.
fn terms_view(terms: &TermsOfUse, openable_by: OpenableBy) -> TermsView {
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

/// What the end user has to do in the CLI's terminal.
fn what_to_do(reason: &PromptReason) -> String {
    match reason {
        PromptReason::Unknown => {
            "The tool asks something that Anteroom does not know. Answer it in its terminal."
                .to_owned()
        }
        PromptReason::AddressIgnored { url } => format!(
            "The tool shows an address that Anteroom does not recognise as its sign-in page: {} Check its \
             terminal, and continue there if it waits.",
            short(url)
        ),
        PromptReason::Answered { question } => format!(
            "The tool asked {question:?}. It was answered, but the tool still asks. Check its terminal, and \
             answer there if it waits."
        ),
    }
}

/// Entries of a session's list of hosts.
pub const MAX_HOSTS: usize = 500;

/// Adds a connection to a session's list of hosts.
pub fn count_connection(egress: &mut Vec<EgressEntry>, connection: EgressEntry) {
    let same = |entry: &EgressEntry| {
        entry.host == connection.host
            && entry.port == connection.port
            && entry.verdict == connection.verdict
    };
    if let Some(entry) = egress.iter_mut().find(|entry| same(entry)) {
        entry.connections += connection.connections;
        entry.bytes_up = entry.bytes_up.saturating_add(connection.bytes_up);
        entry.bytes_down = entry.bytes_down.saturating_add(connection.bytes_down);
        entry.detail = connection.detail.or(entry.detail.take());
    } else if egress.len() < MAX_HOSTS {
        // A guest that asks for endless names gets a list that ends.
        egress.push(connection);
    }
}
