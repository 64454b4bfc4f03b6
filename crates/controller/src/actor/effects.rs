//! What is done because of a session's state, once that is stored.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anteroom_clock::now;
use anteroom_node_protocol::{Node, NodeError, Notice, SandboxRecord};
use anteroom_session::{
    Effect, EndReason, Event, Leftover, Observation, SealedCredential, TimelineEntry,
};
use tokio_util::task::AbortOnDropHandle;

use super::{Actor, StartPlan, following};
use crate::error::ControllerError;
use crate::shortage::Shortage;
use crate::store::Store;

/// How long to wait, once a sandbox is torn down, for what its node still has to report.
const LAST_REPORTS: Duration = Duration::from_secs(2);

/// The session's capacity, as far as [`Admission`](crate::admission::Admission) goes.
pub enum CapacityClaim {
    /// Not asked for yet, not any more, or had.
    None,
    /// All capacity is taken.
    Waiting(Pin<Box<dyn Future<Output = Result<(), Shortage>> + Send + Sync>>),
}

impl CapacityClaim {
    /// Who ends while they wait has nothing that could be torn down: nothing is granted to them any more, not
    /// even while their end is stored.
    pub fn leave_queue(&mut self, plan: &mut Option<StartPlan>) {
        if let Self::Waiting(_) = self {
            *self = Self::None;
            *plan = None;
        }
    }

    /// Comes with the capacity that was waited for, or when there will never be enough; never comes where none
    /// is waited for.
    pub async fn taken(&mut self) -> Result<(), Shortage> {
        match self {
            Self::Waiting(capacity) => capacity.await,
            Self::None => std::future::pending().await,
        }
    }
}

impl<N: Node, S: Store> Actor<N, S> {
    pub(super) async fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::StartRunner => self.claim_capacity().await,
                Effect::StoreCredential { sealed } => {
                    let stored = self.store_credential(&sealed).await;
                    let event = match stored {
                        Ok(()) => Event::CredentialStored,
                        Err(error) => Event::CredentialNotStored { cause: error.cause() },
                    };
                    Box::pin(self.apply(event)).await;
                }
                Effect::StartTool => self.notify(Notice::StartTool {}).await,
                Effect::AcknowledgeCredential => {
                    self.notify(Notice::AcknowledgeCredential {}).await
                }
                Effect::TearDown => {
                    let (sandbox, reports) = (self.record.sandbox(), self.reports.take());
                    let (node, events) = (Arc::clone(&self.context.node), self.events.clone());
                    tokio::spawn(async move {
                        let leftovers = tear_down(&*node, sandbox).await;
                        // What the session reported before it ended comes before that.
                        if let Some(reports) = reports {
                            let _ = tokio::time::timeout(LAST_REPORTS, reports).await;
                        }
                        let _ = events.send(Event::TornDown { leftovers }).await;
                    });
                }
            }
        }
    }

    /// A session that is not there any more is reported as ended anyway.
    async fn notify(&self, notice: Notice) {
        let _ = self.context.node.notify(self.record.id(), notice).await;
    }

    async fn claim_capacity(&mut self) {
        let Some(StartPlan { admitted, .. }) = &self.plan else { return };
        if admitted.has_capacity() {
            self.start_runner().await;
            return;
        }
        self.claim = CapacityClaim::Waiting(Box::pin(admitted.capacity()));
        let why = admitted.lacks().map(|shortage| format!("{shortage}; ")).unwrap_or_default();
        let message = format!("{why}the sign-in starts when there is enough for it");
        self.add_entry(TimelineEntry::new(now(), "waiting_for_capacity", message));
        // Stored with the next event; the queue is in memory and does not outlive the controller.
        self.show();
    }

    /// What was waited for is there, or will never be.
    pub(super) async fn waited(&mut self, capacity: Result<(), Shortage>) {
        self.claim = CapacityClaim::None;
        match capacity {
            Ok(()) => self.start_runner().await,
            Err(_) => self.admit_again().await,
        }
    }

    /// What a session would take was asked for when it came; since then a template may have been loaded, of which
    /// it takes less.
    async fn admit_again(&mut self) {
        let Some(StartPlan { sandbox, admitted, .. }) = &mut self.plan else { return };
        let capacity = self.context.node.capacity(sandbox.clone()).await;
        match admitted.again(capacity) {
            Ok(again) => {
                again.serves(self.record.id());
                *admitted = again;
                self.claim_capacity().await;
            }
            Err(shortage) => {
                let reason = EndReason::NoCapacity { cause: shortage.to_string() };
                self.apply(Event::Observed(Observation::Failed(reason))).await;
            }
        }
    }

    pub(super) async fn start_runner(&mut self) {
        let Some(StartPlan { start, .. }) = &self.plan else { return };
        let node = &self.context.node;
        match node.start(start.clone()).await {
            Ok(reports) => {
                let (events, metrics) = (self.events.clone(), Arc::clone(&self.context.metrics));
                self.reports = Some(tokio::spawn(following::reports(reports, events, metrics)));
                let (id, oldest) = (self.record.id(), self.oldest.clone());
                let revocations = following::revocations(Arc::clone(node), id, oldest);
                self._revocations = Some(AbortOnDropHandle::new(tokio::spawn(revocations)));
                self.runs.send_replace(true);
                Box::pin(self.apply(Event::RunnerStarted)).await;
            }
            Err(reason) => {
                Box::pin(self.apply(Event::Observed(Observation::Failed(reason)))).await;
            }
        }
    }

    async fn store_credential(&self, sealed: &SealedCredential) -> Result<(), ControllerError> {
        anteroom_vault::check_sealed(sealed.bytes())?;
        let (store, id) = (&self.context.store, self.record.id());
        let stored =
            store.put_credential(id, sealed.bytes(), &self.record.recipient, now().0).await;
        match stored {
            // Whatever went wrong after that: a durable credential must not be reported as lost.
            Err(_) if store.credential(id).await?.is_some() => Ok(()),
            stored => Ok(stored?),
        }
    }
}

/// What is left of a sandbox. A look that failed does not count as nothing left.
async fn tear_down(node: &impl Node, sandbox: SandboxRecord) -> Vec<Leftover> {
    let torn_down = node.tear_down(sandbox).await;
    torn_down.unwrap_or_else(|NodeError { cause }| {
        let what = format!("the node could not tear the sandbox down: {cause}");
        vec![Leftover { kind: "unseen".to_owned(), what }]
    })
}
