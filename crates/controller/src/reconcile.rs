//! What an earlier controller left is finished by the next, before that begins anything.

use anteroom_clock::now;
use anteroom_guest_protocol::chain;
use anteroom_node_protocol::{Node, SandboxRecord};
use anteroom_session::{Actor, Event, Leftover, SessionId, State};

use super::error::ControllerError;
use super::live::SessionHandle;
use super::record::Record;
use super::store::{Store, StoreError};
use super::{Controller, actor};

impl<N: Node, S: Store> Controller<N, S> {
    /// Sessions that are not finished belong to a controller that is gone: their sandboxes are
    /// torn down and their records say so. So are those of sessions that left something, and until
    /// nothing is left, nobody else gets their users.
    pub(super) async fn reconcile(&self) -> Result<(), ControllerError> {
        for id in self.store.unfinished().await? {
            match self.store.load(id).await {
                Ok(Some(record)) => {
                    tracing::warn!(session = %id, state = record.session.state.name().as_str(), "an earlier controller left this session unfinished");
                    self.end_abandoned(record, None).await?;
                }
                Ok(None) => {}
                // One row must not keep all the others from being served.
                Err(error) => {
                    tracing::error!(session = %id, "{}; whatever of it still runs is killed", chain(&error));
                    self.clean_up_after_unreadable(id).await?;
                }
            }
        }
        Ok(())
    }

    /// Its record cannot be written, so what is left is only logged.
    async fn clean_up_after_unreadable(&self, id: SessionId) -> Result<(), ControllerError> {
        let sandbox =
            SandboxRecord { session: id, user: self.store.user_of(id).await?, driver: None };
        let node = &self.context.node;
        node.hold(&sandbox);
        let failed = |source| ControllerError::TearDown { session: id, source };
        let leftovers = node.tear_down(sandbox).await.map_err(failed)?;
        for Leftover { kind, what } in leftovers {
            tracing::error!(session = %id, "it left a {kind} behind: {what}");
        }
        Ok(())
    }

    /// Ends a session that has no task, as far as it has not ended. `by` is who asks for it, where that is
    /// not the controller's own start.
    pub(super) async fn end_abandoned(
        &self,
        mut record: Record,
        by: Option<Actor>,
    ) -> Result<SessionHandle, StoreError> {
        let id = record.id();
        if let State::Ended { .. } = record.session.state {
            // Its end is known; its teardown was not reported, or left something.
            if let Some(by) = by {
                tracing::info!(session = %id, %by, "what is left of the session is torn down again");
            }
            let (session, effects) = record.session.handle(Event::FoundByReconciliation, now());
            record.session = session;
            return Ok(actor::start::<N, S>(record, effects, None, self.context.clone()));
        }
        let has_captured = matches!(record.session.state, State::Capturing);
        let handle = actor::start::<N, S>(record, Vec::new(), None, self.context.clone());
        if has_captured && self.store.credential(id).await?.is_some() {
            handle.report(Event::CredentialStored).await;
        }
        handle.report(by.map_or(Event::FoundByReconciliation, Event::EndRequested)).await;
        Ok(handle)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use anteroom_confine::SessionUser;
    use anteroom_session::OpenableBy;
    use anteroom_session::{
        Chosen, DriverKind, EndReason, Method, Session, SessionParams, Start, Teardown, Timestamp,
    };

    use super::*;
    use crate::DATABASE;
    use crate::fake_node::{Call, FakeNode};
    use crate::store::{SessionStore, SqliteStore};
    use crate::tests::settings;

    /// A session that is over, and whose teardown left this.
    fn over(user: SessionUser, leftovers: Vec<Leftover>) -> Record {
        let params = SessionParams {
            started_by: None,
            id: SessionId::generate(),
            provider: "demo".parse().unwrap(),
            user: None,
            method: Method::Browser,
            method_chosen: Chosen::First,
            start: Start::AtOnce,
            created_at: Timestamp(1),
            ttl_seconds: 1,
            max_seconds: 1,
            idle_seconds: 1,
            tool_waits_seconds: None,
        };
        let (mut session, _) = Session::request(params);
        let teardown = Teardown::TornDown { at: Timestamp(1), leftovers };
        session.state =
            State::Ended { reason: EndReason::ControllerStopped, at: Timestamp(1), teardown };
        Record {
            session,
            provider_name: String::new(),
            instructions: String::new(),
            driver: DriverKind::Qemu,
            user: Some(user),
            confined: None,
            accelerator: None,
            recipient: String::new(),
            openable_by: OpenableBy::Operator,
            declared: Vec::new(),
            provider_terms: None,
            browser_ip: std::net::Ipv4Addr::LOCALHOST,
            sign_in_url: None,
            credential_stored_at: None,
            egress: Vec::new(),
            visits: Vec::new(),
            timeline: Vec::new(),
        }
    }

    /// A controller, and its node, which finds this when it tears down.
    async fn started(
        state_dir: &Path,
        left: Vec<Leftover>,
    ) -> (Arc<Controller<FakeNode, SqliteStore>>, FakeNode) {
        let node = FakeNode::beside(&state_dir.join(DATABASE)).await;
        node.answer(|answers| answers.tear_down = Ok(left));
        let (settings, bound) = (settings(state_dir), "127.0.0.1:1".parse().unwrap());
        let store = store(state_dir).await;
        let controller = Controller::open(settings, node.clone(), store, bound).await.unwrap();
        (controller, node)
    }

    async fn store(state_dir: &Path) -> SqliteStore {
        SqliteStore::open(&state_dir.join(DATABASE)).await.unwrap()
    }

    #[tokio::test]
    async fn a_user_whose_session_left_something_is_nobody_else_s_after_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let user = |id: u32| SessionUser::try_from(id).unwrap();
        let (holds, gone) = (user(1_900_000_001), user(1_900_000_002));
        let left = vec![Leftover { kind: "file".to_owned(), what: "/x".to_owned() }];
        let (leaves, clean) = (over(holds, left.clone()), over(gone, Vec::new()));
        let id = leaves.id();
        for record in [&leaves, &clean] {
            store(folder.path()).await.save(record, &[]).await.unwrap();
        }
        let (controller, node) = started(folder.path(), left).await;
        assert!(node.has_leased(holds) && !node.has_leased(gone));
        // The new controller checks again, finds it again, and does not forget it however old it is.
        if let Some(task) = controller.handle(id) {
            task.over().await;
        }
        assert!(node.has_leased(holds));
        let forgotten = controller.store.forget(now().0, now().0).await.unwrap();
        assert_eq!(forgotten, 1, "the clean one");
        let (controller, node) = started(folder.path(), Vec::new()).await;
        assert_eq!(node.calls().first(), Some(&Call::Hold(Some(holds))));
        if let Some(task) = controller.handle(id) {
            task.over().await;
        }
        assert!(!node.has_leased(holds));
        let record = controller.store.load(id).await.unwrap().unwrap();
        assert!(record.is_gone() && record.timeline.len() == 2, "{:?}", record.timeline);
    }

    #[tokio::test]
    async fn the_user_of_a_session_that_cannot_be_read_stays_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let user = SessionUser::try_from(1_900_000_003).unwrap();
        let left = vec![Leftover { kind: "file".to_owned(), what: "/x".to_owned() }];
        store(folder.path()).await.save(&over(user, left), &[]).await.unwrap();
        let spoil = "UPDATE sessions SET record = json_remove(record, '$.session')";
        store(folder.path()).await.run_for_tests(spoil).await;
        let (_controller, node) = started(folder.path(), Vec::new()).await;
        assert!(node.has_leased(user));
    }
}
