//! What the API's answers are made of: who views a session, and what they are given.

use std::sync::Arc;

use anteroom_api::{
    Channel, EndUserSessionView, MemoryView, Named, Principal, PrincipalId, Problem, ProblemCode,
    Revoked, SessionMemoryView, SessionSummary, SessionView, TemplateMemoryView, WaitingCloneView,
};
use anteroom_clock::now;
use anteroom_guest_protocol::{StreamKind, chain};
use anteroom_node_protocol::{
    Answer, AskError, Node, NodeMemory, Notice, Offer, SessionMemory, TemplateMemory,
    ViewerChannel, WaitingMemory,
};
use anteroom_session::{
    AccessGrant, Event, HolderGeneration, SessionId, StateName, TimelineEntry, View,
};
use tokio_util::task::AbortOnDropHandle;

use super::admission::Admission;
use super::live::{Live, SessionHandle};
use super::shortage::Reserved;
use super::store::{Store, Unusable};
use super::{Controller, timeline};

/// A session as it stands in the list of all.
pub fn summary(session: &SessionView) -> SessionSummary {
    SessionSummary {
        session_id: session.session_id.clone(),
        provider: session.provider.clone(),
        state: session.state,
        reason: session.reason.as_ref().map(|reason| reason.code.clone()),
        created_at: session.created_at,
        recipient: session.credential.recipient.clone(),
    }
}

/// What was measured, of the sessions that have something reserved.
pub fn memory(measured: &NodeMemory, admission: &Admission, live: &Live) -> MemoryView {
    let Reserved { memory_bytes, budget_bytes, .. } = admission.reserved();
    let of = |(id, reserved_bytes): (SessionId, u64)| {
        let session = live.get(id)?;
        let session = session.view.borrow();
        let of_it = measured.sessions.iter().find(|measured| measured.session == id);
        let pages = of_it.and_then(|measured| measured.pages);
        Some(SessionMemoryView {
            session_id: id.to_string(),
            provider: session.provider.clone(),
            state: session.state,
            template: of_it.and_then(|measured| measured.template.clone()),
            reserved_bytes,
            private_bytes: pages.map(|pages| pages.private_bytes),
            shared_bytes: pages.map(|pages| pages.shared_bytes),
        })
    };
    let template = |template: &TemplateMemory| {
        let is_clone = |session: &&SessionMemory| session.template.as_ref() == Some(&template.id);
        TemplateMemoryView {
            id: template.id.clone(),
            bytes: template.bytes,
            clones: measured.sessions.iter().filter(is_clone).count() as u64,
        }
    };
    let waiting = |WaitingMemory { template, pages }: &WaitingMemory| WaitingCloneView {
        template: template.clone(),
        private_bytes: pages.private_bytes,
        shared_bytes: pages.shared_bytes,
    };
    MemoryView {
        budget_bytes,
        reserved_bytes: memory_bytes,
        free_bytes: measured.free.memory_bytes,
        sessions: admission.sessions().into_iter().filter_map(of).collect(),
        templates: measured.templates.iter().map(template).collect(),
        waiting_clones: measured.waiting.iter().map(waiting).collect(),
    }
}

/// A session as its viewer sees it.
pub fn end_user_view(
    session: &SessionView,
    viewer: &AccessGrant,
    operator: &str,
) -> EndUserSessionView {
    let session = session.clone();
    let visits = session.visits.into_iter();
    let visits_of_others = visits.filter(|visit| visit.viewer != *viewer).collect();
    EndUserSessionView {
        session_id: session.session_id,
        provider: Named { id: session.provider, name: session.provider_name },
        operator: Named { id: String::new(), name: operator.to_owned() },
        state: session.state,
        reason: session.reason,
        timeline: session.timeline,
        visits_of_others,
        created_at: session.created_at,
        deadline: session.deadline,
        idle_deadline: session.idle_deadline,
        server_now: now().0,
        emulated: session.emulated,
        isolation: session.isolation,
        credential: session.credential,
        sign_in_url_host: session.sign_in_url.map(|url| timeline::host_of(&url)),
        instructions: session.instructions,
        method: session.method,
        awaiting: session.awaiting,
        teardown: session.teardown,
        leftovers: session.leftovers,
    }
}

impl<N: Node, S: Store> Controller<N, S> {
    pub(super) async fn channel(
        &self,
        id: SessionId,
        kind: StreamKind,
        view: View,
        principal: &Principal,
    ) -> Result<Channel, Problem> {
        let (handle, state) = self.with_desktop(id).await?;
        let viewer = principal.viewer();
        let channel = self.context.node.open_channel(id, kind, viewer.clone()).await;
        let channel = channel.map_err(|error| no_answer(error, ProblemCode::WrongState, state))?;
        let right_revoked = self.revoked(&handle, principal);
        if handle.is_revoked(&viewer) {
            return Err(revoked());
        }
        handle.report(Event::Opened { view, viewer }).await;
        let ViewerChannel { from_sandbox, to_sandbox, evicted } = channel;
        let revoked = async {
            tokio::select! { () = right_revoked => {}, () = evicted => {} }
        };
        Ok(Channel { from_sandbox, to_sandbox, revoked: Box::pin(revoked) })
    }

    /// Has a viewer's offer answered; they are disconnected when their right ends.
    pub(super) async fn show(
        &self,
        id: SessionId,
        handle: &SessionHandle,
        sdp: String,
        principal: &Principal,
    ) -> Result<String, AskError> {
        let mut showing = handle.showing.lock().await;
        let offer = Offer { sdp, viewer: principal.viewer() };
        let Answer { sdp, connection } = self.context.node.offer(id, offer).await?;
        let (right_ends, node) = (self.revoked(handle, principal), Arc::clone(&self.context.node));
        // The viewer before is gone, and with this goes what watched over their right.
        *showing = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            right_ends.await;
            let _ = node.notify(id, Notice::Dismiss { connection }).await;
        })));
        Ok(sdp)
    }

    /// Resolves when the principal's right is revoked: an end user's link, or a caller's key.
    pub(super) fn revoked(&self, handle: &SessionHandle, principal: &Principal) -> Revoked {
        match &principal.id {
            PrincipalId::ViewerLink { .. } => Box::pin(handle.revoked(&principal.viewer())),
            PrincipalId::ApiKey { id, .. } => Box::pin(self.keys.revoked(*id)),
        }
    }

    /// Has the timeline say that a link was opened, also where the session has ended.
    pub(super) async fn report_of_the_link(&self, id: SessionId, generation: HolderGeneration) {
        let viewer = AccessGrant::Link { generation };
        let (kind, message) = timeline::of_view(View::Link, &viewer);
        let event = Event::Opened { view: View::Link, viewer };
        let by = event.actor();
        if let Some(handle) = self.handle(id)
            && handle.report(event).await
        {
            return;
        }
        let entry = TimelineEntry { by, ..TimelineEntry::new(now(), kind, message) };
        if let Err(error) = self.store.add_entry(id, &entry).await {
            tracing::error!(session = %id, "{}", chain(&error));
        }
    }

    /// Where a session stands.
    pub(super) async fn state(&self, id: SessionId) -> Result<StateName, Problem> {
        match self.handle(id) {
            Some(handle) => Ok(handle.view.borrow().state),
            None => Ok(self.record(id).await?.session.state.name()),
        }
    }

    /// A session whose guest can show a desktop, or soon will, and where it stands.
    pub(super) async fn with_desktop(
        &self,
        id: SessionId,
    ) -> Result<(SessionHandle, StateName), Problem> {
        let state = self.state(id).await?;
        let booted = !matches!(state, StateName::Requested | StateName::Booting);
        match self.handle(id).filter(SessionHandle::runs) {
            Some(found) if booted => Ok((found, state)),
            _ => Err(Problem::wrong_state(format!(
                "{} and has no running sandbox",
                state.sentence()
            ))),
        }
    }
}

/// A node's refusal as the caller gets it; `refused` is the code where the session said why.
pub fn no_answer(error: AskError, refused: ProblemCode, state: StateName) -> Problem {
    let code = match error {
        AskError::Refused { .. } => refused,
        AskError::Gone {} => ProblemCode::WrongState,
        AskError::Silent { .. } => ProblemCode::TooSlow,
    };
    let refused_by_state = refused == ProblemCode::WrongState;
    Problem::new(
        code,
        match error {
            AskError::Refused { cause } if refused_by_state => {
                format!("{cause} ({})", state.sentence())
            }
            other => other.to_string(),
        },
    )
}

/// The principal's link was revoked.
pub fn revoked() -> Problem {
    let detail = "the link that this viewer was opened with has been revoked; open a newer link if you were sent one, or ask for one";
    Problem::new(ProblemCode::ViewerRevoked, detail)
}

pub fn link_refused(unusable: Unusable) -> Problem {
    let used = |detail: &str| Problem::new(ProblemCode::LinkUsed, detail);
    match unusable {
        Unusable::Opened(at) => used(
            "this link has already been opened; if that was not you, ask for a new one, which closes what this one opened",
        )
        .at(at),
        Unusable::Revoked(at) => {
            used("this link was revoked; open a newer link if you were sent one, or ask for one").at(at)
        }
        Unusable::Unknown => used("this link has expired or is unknown; ask for a new one"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_a_state_only_where_it_counts() {
        let refused = |code, state| {
            no_answer(AskError::Refused { cause: "no".to_owned() }, code, state).detail
        };
        for state in StateName::ALL {
            let detail = refused(ProblemCode::WrongState, state);
            assert_eq!(detail, format!("no ({})", state.sentence()));
            assert!(!detail.contains('_'), "{detail}");
            // What was asked is wrong whatever the state.
            assert_eq!(refused(ProblemCode::OfferRefused, state), "no");
            // The state that it had is not the one that it has.
            let gone = no_answer(AskError::Gone {}, ProblemCode::WrongState, state);
            assert_eq!(gone.detail, "the session is ending; its runner is gone");
        }
        assert_eq!(StateName::Ended.sentence(), "the session has ended");
    }
}
