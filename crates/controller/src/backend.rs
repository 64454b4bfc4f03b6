//! What the API asks of the controller.

use std::sync::Arc;
use std::time::Duration;

use anteroom_api::{
    Backend, Begun, Channel, CodeTaken, EndUserSessionView, Health, Idempotency, KeyRole, KeyView,
    MadeKey, MemoryView, NewKey, Principal, Problem, ProblemCode, SessionSummary, SessionView,
    StartRequest, ViewerAccess, Watched,
};
use anteroom_clock::now;
use anteroom_guest_protocol::StreamKind;
use anteroom_node_protocol::{Node, Notice};
use anteroom_session::{AccessGrant, Event, HolderGeneration, SessionId, State, StateName, View};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::watch;

use super::live::SessionHandle;
use super::record::Record;
use super::store::{Cookie, Exchanged, Store};
use super::views::{self, link_refused, no_answer, revoked};
use super::{Controller, internal, not_stored, secret, unreadable};

/// How long whoever ends a session waits until that is stored; it is tried every two seconds.
const STORED_WITHIN: Duration = Duration::from_secs(5);

/// Waits until a session's end is stored: an answer that it ends has to outlive this process.
async fn end_stored(handle: SessionHandle) -> Result<(), Problem> {
    let mut view = handle.view;
    let is_stored =
        |view: &SessionView| view.state == StateName::Ended && view.end_not_stored.is_none();
    // Its task goes on until the end is stored, unless it fails itself.
    let waiting = tokio::time::timeout(STORED_WITHIN, view.wait_for(is_stored));
    if matches!(waiting.await, Ok(Ok(_))) {
        return Ok(());
    }
    let why = view.borrow().end_not_stored.clone();
    let why = why.unwrap_or_else(|| format!("it takes longer than {STORED_WITHIN:?}"));
    let detail = format!(
        "the end of the session is not stored yet, and is forgotten if the controller stops before: {why}"
    );
    Err(Problem::new(ProblemCode::StorageUnavailable, detail))
}

impl<N: Node, S: Store> Backend for Controller<N, S> {
    async fn authenticate(&self, key: &str) -> Result<Option<Principal>, Problem> {
        self.keys.authenticate(key).await
    }

    async fn keys(&self) -> Result<Vec<KeyView>, Problem> {
        self.keys.list().await
    }

    async fn add_key(&self, key: NewKey, principal: &Principal) -> Result<MadeKey, Problem> {
        let role = key.role.unwrap_or(KeyRole::Caller);
        self.keys.add(&key.name, role, &principal.actor()).await
    }

    async fn rotate_key(&self, name: &str, principal: &Principal) -> Result<MadeKey, Problem> {
        self.rotate(name, &principal.actor()).await
    }

    async fn revoke_key(&self, name: &str, principal: &Principal) -> Result<(), Problem> {
        self.keys.revoke(name, &principal.actor()).await
    }

    async fn holder(
        &self,
        session: SessionId,
        secret: &str,
    ) -> Result<Option<HolderGeneration>, Problem> {
        match self.store.cookie(session, secret, now().0).await.map_err(unreadable)? {
            Some(Cookie::Good(generation)) => Ok(Some(generation)),
            Some(Cookie::Revoked(at)) => Err(revoked().at(at)),
            None => Ok(None),
        }
    }

    async fn start(
        &self,
        request: StartRequest,
        idempotency: Option<Idempotency>,
        principal: &Principal,
    ) -> Result<Begun, Problem> {
        let begun = self.begin_once(request, idempotency, principal).await;
        begun.inspect_err(|problem| self.context.metrics.refused(problem.code.as_str()))
    }

    async fn sessions(&self) -> Result<Vec<SessionSummary>, Problem> {
        let records = self.store.all().await.map_err(internal)?;
        let summary = |record: Record| match self.handle(record.id()) {
            // One that lives knows better: what it is may still be on the way to the store.
            Some(handle) => views::summary(&handle.view.borrow()),
            None => views::summary(&record.view()),
        };
        Ok(records.into_iter().map(summary).collect())
    }

    async fn memory(&self) -> MemoryView {
        let memory = self.context.node.memory().await;
        self.admission.measured(&memory);
        views::memory(&memory, &self.admission, &self.context.live)
    }

    async fn session(&self, id: SessionId) -> Result<SessionView, Problem> {
        match self.handle(id) {
            Some(handle) => Ok(handle.view.borrow().clone()),
            None => Ok(self.record(id).await?.view()),
        }
    }

    async fn heartbeat(
        &self,
        id: SessionId,
        principal: &Principal,
    ) -> Result<SessionView, Problem> {
        if let Some(mut handle) = self.handle(id) {
            tracing::debug!(session = %id, by = %principal.actor(), "a heartbeat came");
            handle.view.mark_unchanged();
            // The answer shows the new deadline, unless the session is busy with something long.
            if handle.report(Event::Heartbeat).await {
                let _ = tokio::time::timeout(Duration::from_secs(2), handle.view.changed()).await;
            }
        }
        self.session(id).await
    }

    async fn watch(&self, id: SessionId, principal: &Principal) -> Result<Watched, Problem> {
        match self.handle(id) {
            Some(handle) => {
                Ok(Watched { revoked: self.revoked(&handle, principal), changes: handle.view })
            }
            // One that is over does not change: the receiver gives it once.
            None => Ok(Watched {
                changes: watch::channel(self.record(id).await?.view()).1,
                revoked: Box::pin(std::future::pending()),
            }),
        }
    }

    fn end_user_view(&self, session: &SessionView, viewer: &AccessGrant) -> EndUserSessionView {
        views::end_user_view(session, viewer, &self.settings.operator_name)
    }

    async fn end(&self, id: SessionId, principal: &Principal) -> Result<(), Problem> {
        if let Some(handle) = self.handle(id)
            && handle.report(Event::EndRequested(principal.actor())).await
        {
            return end_stored(handle).await;
        }
        let record = self.record(id).await?;
        // Of one that is over something may be left: the operator wants that looked at again.
        if record.is_gone() {
            return Ok(());
        }
        let ended = self.end_abandoned(record, Some(principal.actor())).await;
        end_stored(ended.map_err(internal)?).await
    }

    async fn open_sign_in_page(&self, id: SessionId, principal: &Principal) -> Result<(), Problem> {
        let (_, state) = self.with_desktop(id).await?;
        if state != StateName::AwaitingUser {
            return Err(Problem::wrong_state(format!(
                "{}; its sign-in page can be opened while it is {}",
                state.sentence(),
                StateName::AwaitingUser.label()
            )));
        }
        let notified = self.context.node.notify(id, Notice::OpenSignInPage {}).await;
        notified.map_err(|error| no_answer(error, ProblemCode::WrongState, state))?;
        tracing::info!(session = %id, by = %principal.actor(), "the sign-in page is opened again");
        Ok(())
    }

    async fn start_tool(&self, id: SessionId, principal: &Principal) -> Result<(), Problem> {
        let reported = match self.handle(id) {
            Some(handle) => {
                handle.report(Event::ToolStartRequested { by: principal.actor() }).await
            }
            None => false,
        };
        let state = self.state(id).await?;
        if !reported || state == StateName::Ended {
            return Err(Problem::wrong_state(format!(
                "{}, so its tool cannot be started",
                state.sentence()
            )));
        }
        Ok(())
    }

    async fn enter_code(
        &self,
        id: SessionId,
        code: String,
        principal: &Principal,
    ) -> Result<CodeTaken, Problem> {
        let (_, state) = self.with_desktop(id).await?;
        if !matches!(state, StateName::Preparing | StateName::AwaitingUser) {
            return Err(Problem::wrong_state(format!(
                "{} and does not accept a code",
                state.sentence()
            )));
        }
        let entered = self.context.node.enter_code(id, code).await;
        let taken = entered.map_err(|error| no_answer(error, ProblemCode::CodeRefused, state))?;
        let CodeTaken { typed, replaced } = taken;
        tracing::info!(session = %id, by = %principal.actor(), typed, replaced, "a code came");
        Ok(taken)
    }

    async fn allow_host(
        &self,
        id: SessionId,
        host: String,
        principal: &Principal,
    ) -> Result<(), Problem> {
        let (handle, state) = self.with_desktop(id).await?;
        let (node, by) = (Arc::clone(&self.context.node), principal.actor());
        // A task of its own: a caller who hangs up now does not keep it out of the timeline.
        let allowing = tokio::spawn(async move {
            let host = node.allow_host(id, host).await?;
            handle.report(Event::HostAllowed { host, by }).await;
            Ok(())
        });
        let allowed = allowing.await.map_err(|error| Problem::internal(error.to_string()))?;
        allowed.map_err(|error| no_answer(error, ProblemCode::WrongState, state))
    }

    async fn terminal(&self, id: SessionId, principal: &Principal) -> Result<Channel, Problem> {
        self.channel(id, StreamKind::Terminal, View::Terminal, principal).await
    }

    async fn vnc(&self, id: SessionId, principal: &Principal) -> Result<Channel, Problem> {
        self.channel(id, StreamKind::Vnc, View::Vnc, principal).await
    }

    async fn credential(&self, id: SessionId) -> Result<Vec<u8>, Problem> {
        let state = self.state(id).await?;
        let sealed = self.store.credential(id).await.map_err(internal)?;
        sealed.ok_or_else(|| {
            Problem::wrong_state(format!("{} and has no credential", state.sentence()))
        })
    }

    async fn envelope(&self, id: SessionId) -> Result<String, Problem> {
        let sealed = self.credential(id).await?;
        self.envelope_of(id, &sealed).await
    }

    fn controller_key(&self) -> String {
        self.key.public().pem().to_owned()
    }

    async fn screenshot(&self, id: SessionId) -> Result<Vec<u8>, Problem> {
        let (_, state) = self.with_desktop(id).await?;
        let png = self.context.node.screenshot(id).await;
        let png = png.map_err(|error| no_answer(error, ProblemCode::WrongState, state))?;
        STANDARD
            .decode(png)
            .map_err(|_| Problem::internal("the runner's screenshot is not valid base64"))
    }

    async fn logs(&self, id: SessionId) -> Result<String, Problem> {
        self.state(id).await?;
        let logs = self.context.node.logs(id).await;
        logs.map_err(|error| Problem::internal(error.to_string()))
    }

    async fn offer(
        &self,
        id: SessionId,
        sdp: String,
        principal: &Principal,
    ) -> Result<String, Problem> {
        let (handle, state) = self.with_desktop(id).await?;
        let viewer = principal.viewer();
        let answered = tokio::select! {
            answered = self.show(id, &handle, sdp, principal) => answered,
            () = handle.revoked(&viewer) => return Err(revoked()),
        };
        answered.map_err(|error| no_answer(error, ProblemCode::OfferRefused, state))
    }

    async fn viewer_link(&self, id: SessionId, principal: &Principal) -> Result<String, Problem> {
        let record = self.record(id).await?;
        if let State::Ended { .. } = record.session.state {
            return Err(Problem::wrong_state("the session has ended"));
        }
        self.new_link(&record, principal.actor()).await.map_err(not_stored)
    }

    async fn revoke_viewers(&self, id: SessionId, principal: &Principal) -> Result<(), Problem> {
        let record = self.record(id).await?;
        self.begin_generation(&record, None).await.map_err(not_stored)?;
        if let Some(handle) = self.handle(id) {
            handle.report(Event::LinksRevoked { by: principal.actor() }).await;
        }
        Ok(())
    }

    async fn exchange(&self, id: SessionId, link_secret: &str) -> Result<ViewerAccess, Problem> {
        let viewer = secret();
        let at = now().0;
        let exchanged = self.store.exchange(id, link_secret, &viewer, at).await;
        let generation = match exchanged.map_err(internal)? {
            Exchanged::Opened(generation) => generation,
            Exchanged::Refused(unusable) => return Err(link_refused(unusable)),
        };
        self.report_of_the_link(id, generation).await;
        let last_moment = self.record(id).await?.session.params.last_moment().0;
        Ok(ViewerAccess {
            secret: viewer,
            max_age_seconds: last_moment.saturating_sub(at).div_ceil(1000),
        })
    }

    fn metrics(&self) -> String {
        let views = self.context.live.all().into_iter().map(|handle| handle.view);
        let states: Vec<StateName> = views.map(|view| view.borrow().state).collect();
        self.context.metrics.page(&states, self.admission.reserved(), self.context.node.pool())
    }

    fn health(&self) -> Health {
        self.health.health()
    }

    fn viewer_file(&self, path: &str) -> Option<(Vec<u8>, &'static str)> {
        (self.settings.viewer_file)(path)
    }
}
