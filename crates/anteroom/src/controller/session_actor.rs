//! One task a session: events in, state stored, effects carried out.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anteroom_api::{EgressEntry, SessionView};
use anteroom_session::{Effect, Event, Observation, SessionId, State, TimelineEntry, Timestamp};
use anyhow::{Context, Result};
use base64::Engine;
use tokio::sync::{mpsc, watch};

use super::front_door::FrontDoor;
use super::record::Record;
use super::runner_process::{self, Runner};
use super::store::{Store, count_connection};
use super::words;
use crate::runner_protocol::{DriverConfig, RunnerCommand, RunnerConfig};

/// Timeline entries of a session; a guest that restarts its browser for ever must not fill the disk.
const MAX_TIMELINE: usize = 1000;

/// What a session needs from the controller.
pub struct Surroundings {
    /// Where state goes.
    pub store: Store,
    /// Where media comes in.
    pub door: FrontDoor,
    /// Folders that a session's files may be in, to look for leftovers.
    pub folders: Vec<PathBuf>,
    /// Folder of the sessions' logs, which stay.
    pub logs: PathBuf,
}

/// What is needed to start the runner; a session found by reconciliation has none.
pub struct StartPlan {
    /// Everything the runner is told.
    pub config: RunnerConfig,
}

/// How the rest of the controller reaches a session. Cheap to clone.
#[derive(Clone)]
pub struct SessionHandle {
    events: mpsc::Sender<Event>,
    /// The session as callers see it.
    pub view: watch::Receiver<SessionView>,
    runner: watch::Receiver<Option<Runner>>,
}

impl SessionHandle {
    /// Tells the session.
    pub async fn tell(&self, event: Event) {
        // A session whose task is gone has ended and been demolished.
        let _ = self.events.send(event).await;
    }

    /// The runner, while there is one.
    pub fn runner(&self) -> Option<Runner> {
        self.runner.borrow().clone()
    }

    /// Waits until everything of the session is gone.
    pub async fn demolished(&self) {
        let mut view = self.view.clone();
        let _ = view.wait_for(|view| view.room.as_deref() == Some("demolished")).await;
    }
}

struct Actor {
    record: Record,
    plan: Option<StartPlan>,
    runner: watch::Sender<Option<Runner>>,
    view: watch::Sender<SessionView>,
    events: mpsc::Sender<Event>,
    around: Arc<Surroundings>,
}

/// Starts a session's task and carries out `effects` first.
pub fn start(
    record: Record,
    effects: Vec<Effect>,
    plan: Option<StartPlan>,
    around: Arc<Surroundings>,
) -> SessionHandle {
    let (events, queue) = mpsc::channel(256);
    let (view, watch_view) = watch::channel(record.view());
    let (runner, watch_runner) = watch::channel(None);
    let actor = Actor { record, plan, runner, view, events: events.clone(), around };
    tokio::spawn(actor.run(effects, queue));
    SessionHandle { events, view: watch_view, runner: watch_runner }
}

impl Actor {
    async fn run(mut self, effects: Vec<Effect>, mut queue: mpsc::Receiver<Event>) {
        self.carry_out(effects).await;
        while !self.record.is_finished() {
            let event = tokio::select! {
                event = queue.recv() => event,
                () = tokio::time::sleep(self.until_deadline()) => Some(Event::Tick),
            };
            let Some(event) = event else { return };
            self.apply(event).await;
        }
        self.around.door.remove_session(self.record.id());
        self.runner.send_replace(None);
    }

    fn until_deadline(&self) -> Duration {
        match self.record.session.state {
            State::Ended { .. } => Duration::from_secs(3600),
            _ => Duration::from_millis(self.record.session.terms.deadline().millis_since(now())),
        }
    }

    async fn apply(&mut self, event: Event) {
        let at = now();
        self.note(&event);
        let had_ended = matches!(self.record.session.state, State::Ended { .. });
        let entry = words::of_event(&event);
        let stored = matches!(event, Event::CredentialStored);
        let (session, effects) = self.record.session.clone().handle(event, at);
        self.record.session = session;
        if stored {
            self.record.credential_stored_at = Some(at);
        }
        if let Some((kind, message)) = entry {
            self.add_entry(at, kind, message).await;
        }
        if let State::Ended { reason, .. } = &self.record.session.state
            && !had_ended
        {
            let message = reason.to_string();
            tracing::info!(session = %self.record.id(), reason = reason.code(), "session ended: {message}");
            self.add_entry(at, "ended", message).await;
        }
        self.publish().await;
        self.carry_out(effects).await;
    }

    /// What the record keeps beside the state.
    fn note(&mut self, event: &Event) {
        let Event::Observed(observation) = event else { return };
        match observation {
            Observation::VmStarted { accelerator, .. } => {
                self.record.accelerator = Some(*accelerator)
            }
            Observation::SignInUrl { url } => self.record.sign_in_url = Some(url.clone()),
            Observation::HostContacted { host, port, verdict, bytes_up, bytes_down } => {
                let verdict = serde_json::to_value(verdict).unwrap_or_default();
                let connection = EgressEntry {
                    host: host.clone(),
                    port: *port,
                    verdict: verdict.as_str().unwrap_or_default().to_owned(),
                    connections: 1,
                    bytes_up: *bytes_up,
                    bytes_down: *bytes_down,
                };
                count_connection(&mut self.record.egress, connection);
            }
            _ => {}
        }
    }

    async fn add_entry(&mut self, at: Timestamp, kind: &str, message: String) {
        if self.record.timeline.len() >= MAX_TIMELINE && kind != "ended" && kind != "demolished" {
            return;
        }
        let entry = TimelineEntry { at, kind: kind.to_owned(), message };
        if let Err(error) = self.around.store.append(self.record.id(), &entry).await {
            tracing::error!(session = %self.record.id(), "{error:#}");
        }
        self.record.timeline.push(entry);
    }

    /// Stores the state before anything is done because of it, then shows it.
    async fn publish(&mut self) {
        if let Err(error) = self.around.store.save(&self.record).await {
            tracing::error!(session = %self.record.id(), "{error:#}");
        }
        self.view.send_replace(self.record.view());
    }

    async fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::StartRunner => self.start_runner().await,
                Effect::StoreCredential { ciphertext_base64 } => {
                    let stored = self.store_credential(&ciphertext_base64).await;
                    let event = match stored {
                        Ok(()) => Event::CredentialStored,
                        Err(error) => Event::CredentialNotStored { cause: format!("{error:#}") },
                    };
                    Box::pin(self.apply(event)).await;
                }
                Effect::AcknowledgeCredential => {
                    if let Some(runner) = self.current_runner() {
                        runner.tell(RunnerCommand::CredentialStored {}).await;
                    }
                }
                Effect::Demolish => {
                    let demolition = demolish(
                        self.record.id(),
                        self.current_runner(),
                        self.plan.as_ref().map(|plan| plan.config.driver.clone()),
                        self.around.clone(),
                    );
                    let events = self.events.clone();
                    tokio::spawn(async move {
                        let leftovers = demolition.await;
                        let _ = events.send(Event::Demolished { leftovers }).await;
                    });
                }
            }
        }
    }

    fn current_runner(&self) -> Option<Runner> {
        self.runner.borrow().clone()
    }

    async fn start_runner(&mut self) {
        let Some(plan) = &self.plan else { return };
        match runner_process::start(plan.config.clone(), &self.around.door, self.events.clone()) {
            Ok(runner) => {
                let pid = runner.pid;
                self.runner.send_replace(Some(runner));
                Box::pin(self.apply(Event::RunnerStarted { pid })).await;
            }
            Err(error) => {
                let reason =
                    anteroom_session::EndReason::VmNotStarted { cause: format!("{error:#}") };
                Box::pin(self.apply(Event::Observed(Observation::Failed(reason)))).await;
            }
        }
    }

    async fn store_credential(&self, ciphertext_base64: &str) -> Result<()> {
        let sealed = base64::engine::general_purpose::STANDARD
            .decode(ciphertext_base64)
            .context("what the guest sealed is no base64")?;
        anteroom_vault::check_sealed(&sealed)?;
        self.around
            .store
            .put_credential(self.record.id(), &sealed, &self.record.recipient, now().0)
            .await
    }
}

/// Ends the runner, kills what still runs, removes what still lies, and looks.
async fn demolish(
    session: SessionId,
    runner: Option<Runner>,
    driver: Option<DriverConfig>,
    around: Arc<Surroundings>,
) -> Vec<anteroom_session::Leftover> {
    if let Some(runner) = runner {
        runner.end().await;
    }
    let looked = tokio::task::spawn_blocking(move || {
        anteroom_vm::reap(session);
        if let Some(DriverConfig::Host { runtime_dir, .. }) = driver {
            let _ = std::fs::remove_dir_all(runtime_dir);
        }
        anteroom_vm::leftovers(session, &around.folders, &around.logs.join(session.to_string()))
    });
    looked.await.unwrap_or_default()
}

/// The host's clock.
pub fn now() -> Timestamp {
    let since_epoch =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX))
}
