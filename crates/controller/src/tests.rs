//! The controller on a fake node: what it decides and stores, without a process.

mod capacity;
mod world;

use anteroom_api::{Backend, ProblemCode, SessionView};
use anteroom_confine::SessionUser;
use anteroom_node_protocol::{NotPrepared, Notice, Report};
use anteroom_session::{
    AccessGrant, EndReason, Event, HolderGeneration, Leftover, Observation, ProcessExit, SetupStep,
    State, StateName, View,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::fake_node::{Call, Durable, USER};
use super::record::Record;
use super::store::{CredentialStore, SessionStore};
use world::{WAITED, World, caller};

pub use world::settings;

fn reason(record: &Record) -> String {
    record.view().reason.unwrap().code
}

fn sealed() -> Observation {
    let key = age::x25519::Identity::generate().to_public();
    let file = age::encrypt(&key, b"secret").unwrap();
    Observation::CredentialSealed { sealed: STANDARD.encode(file).try_into().unwrap() }
}

fn durable(state: StateName, credential: bool) -> Durable {
    Durable { state: Some(state), credential }
}

fn is_acknowledgement(call: &Call) -> bool {
    matches!(call, Call::Notify(Notice::AcknowledgeCredential {}, _))
}

fn left() -> Vec<Leftover> {
    vec![Leftover { kind: "file".to_owned(), what: "/tmp/x".to_owned() }]
}

#[tokio::test]
async fn a_sign_in_goes_from_its_start_to_teardown_each_state_stored_before_its_effects() {
    let world = World::new().await;
    let id = world.captures().await;
    world.node.observe(id, [sealed()]).await;
    world.node.asked(is_acknowledgement).await;
    world.node.observe(id, [Observation::GuestPoweredOff]).await;
    world.node.asked(|call| matches!(call, Call::TearDown(..))).await;
    let record = world.over(id).await;
    assert_eq!(reason(&record), "completed");
    assert!(record.is_gone() && record.credential_stored_at.is_some());
    let sandbox = record.sandbox();
    assert_eq!(sandbox.user.map(SessionUser::id), Some(USER));
    let calls = world.node.calls();
    let but_revocations: Vec<_> = calls
        .into_iter()
        .filter(|call| !matches!(call, Call::Notify(Notice::RevokeBefore { .. }, _)))
        .collect();
    assert_eq!(
        but_revocations,
        [
            Call::Prepare,
            Call::Start(durable(StateName::Requested, false)),
            Call::Notify(Notice::AcknowledgeCredential {}, durable(StateName::Sealed, true)),
            Call::TearDown(sandbox, durable(StateName::Ended, true)),
            Call::Release,
            Call::Close,
        ]
    );
    let waited: Vec<_> = record.timeline.iter().filter_map(|entry| entry.waited).collect();
    assert_eq!(waited, [WAITED]);
    let kinds: Vec<_> = record.timeline.iter().map(|entry| entry.kind.as_str()).collect();
    assert_eq!(
        kinds,
        [
            "runner_started",
            "sandbox_started",
            "agent_connected",
            "sign_in_url",
            "credential_found",
            "credential_sealed",
            "credential_stored",
            "guest_powered_off",
            "ended",
            "torn_down"
        ]
    );
}

#[tokio::test]
async fn a_runner_that_dies_ends_its_session() {
    let world = World::new().await;
    let id = world.captures().await;
    let exit = ProcessExit::Signalled { signal: 9 };
    world.node.report(id, Report::RunnerExited { exit }).await;
    let record = world.over(id).await;
    assert_eq!(reason(&record), "runner_died");
    assert!(record.is_gone());
    assert_eq!(record.timeline.iter().filter(|entry| entry.kind == "ended").count(), 1);
    assert!(!world.node.calls().iter().any(is_acknowledgement));
}

#[tokio::test]
async fn a_lost_node_ends_its_sessions_and_their_users_stay_theirs() {
    let world = World::new().await;
    let id = world.captures().await;
    world.node.is_lost();
    let record = world.over(id).await;
    assert_eq!(reason(&record), "node_lost");
    assert!(record.is_finished() && !record.is_gone());
    let leftovers = record.view().leftovers;
    assert_eq!(leftovers.len(), 1);
    assert!(leftovers[0].kind == "unseen" && leftovers[0].what.contains("cannot be reached"));
    assert!(!world.node.calls().contains(&Call::Release));
    // When it is there again, the next controller tears down what is left.
    let world = world.restarted().await;
    let record = world.over(id).await;
    assert_eq!(reason(&record), "node_lost");
    assert!(record.is_gone());
    let calls = world.node.calls();
    assert_eq!(calls[0], Call::Hold(record.user));
    assert!(calls.contains(&Call::Release));
}

#[tokio::test]
async fn what_teardown_leaves_is_looked_at_again_until_nothing_is_left() {
    let world = World::new().await;
    let id = world.captures().await;
    world.node.answer(|answers| answers.tear_down = Ok(left()));
    world.controller.end(id, &caller()).await.unwrap();
    let record = world.over(id).await;
    assert_eq!(record.view().leftovers, left());
    assert!(!world.node.calls().contains(&Call::Release));
    // The operator has it looked at again.
    world.node.answer(|answers| answers.tear_down = Ok(Vec::new()));
    world.controller.end(id, &caller()).await.unwrap();
    world.node.asked(|call| *call == Call::Release).await;
    assert_eq!(world.torn_downs(), 2);
    assert_eq!(reason(&world.over(id).await), "cancelled");
}

#[tokio::test]
async fn a_host_that_is_allowed_is_in_the_timeline_with_who_allowed_it() {
    let world = World::new().await;
    let id = world.captures().await;
    let by = caller();
    let allow = |host: &str| world.controller.allow_host(id, host.to_owned(), &by);
    assert_eq!(allow("not a host").await.unwrap_err().code, ProblemCode::WrongState);
    allow("ACME.okta.example:443").await.unwrap();
    let allowed = |view: &SessionView| view.timeline.iter().any(|e| e.kind == "host_allowed");
    let view = world.until(id, allowed).await;
    let mut entries = view.timeline.iter().filter(|entry| entry.kind == "host_allowed");
    let (entry, no_other) = (entries.next().unwrap(), entries.next());
    assert_eq!((&entry.by, no_other), (&Some(by.actor()), None));
    assert_eq!(entry.message, "the API key ci allowed acme.okta.example for this session");
}

#[tokio::test]
async fn an_end_is_stored_before_whoever_asked_for_it_has_an_answer() {
    let world = World::new().await;
    let id = world.captures().await;
    world.controller.end(id, &caller()).await.unwrap();
    // What a controller finds that is started now.
    let record = world.controller.record(id).await.unwrap();
    assert_eq!(reason(&record), "cancelled");
    // One that nobody tends too.
    let world = World::new().await;
    let id = world.captures().await;
    let world = world.restarted().await;
    let mut abandoned = world.over(id).await;
    abandoned.session.state = State::Booting;
    world.controller.store.save(&abandoned, &[]).await.unwrap();
    world.controller.end(id, &caller()).await.unwrap();
    assert_eq!(reason(&world.controller.record(id).await.unwrap()), "cancelled");
}

#[tokio::test]
async fn revoked_links_fill_no_timeline_and_close_only_what_was_opened() {
    let world = World::new().await;
    let id = world.captures().await;
    let said = |view: &SessionView| {
        let entries = view.timeline.iter().filter(|entry| entry.kind == "links_revoked");
        entries.map(|entry| entry.message.clone()).collect::<Vec<_>>()
    };
    let revoke = async || world.controller.revoke_viewers(id, &caller()).await.unwrap();
    let opens = async |view| {
        let viewer = AccessGrant::Link { generation: HolderGeneration::FIRST };
        let handle = world.controller.handle(id).unwrap();
        assert!(handle.report(Event::Opened { view, viewer }).await);
    };
    opens(View::Link).await;
    revoke().await;
    opens(View::Terminal).await;
    // Times are in milliseconds.
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    revoke().await;
    tokio::time::sleep(std::time::Duration::from_millis(2)).await;
    revoke().await;
    let three = world.until(id, |view| said(view).len() == 3).await;
    let (plain, closed) =
        ("the API key ci revoked all links", ", and the views that they had opened are closed");
    assert_eq!(said(&three), [plain, &format!("{plain}{closed}"), plain]);
    for _ in 0..200 {
        revoke().await;
    }
    opens(View::Vnc).await;
    let view = world.until(id, |view| view.timeline.iter().any(|e| e.kind == "vnc_opened")).await;
    assert_eq!(said(&view).len(), 100);
}

#[tokio::test]
async fn an_end_is_given_once_whatever_comes_after_it() {
    let world = World::new().await;
    let id = world.captures().await;
    world.controller.end(id, &caller()).await.unwrap();
    let record = world.over(id).await;
    // Its runner has ended since, and said so.
    assert_eq!(reason(&record), "cancelled");
    assert_eq!(record.timeline.iter().filter(|entry| entry.kind == "ended").count(), 1);
}

#[tokio::test]
async fn a_restart_ends_what_ran_and_completes_what_had_its_credential_stored() {
    let world = World::new().await;
    let id = world.captures().await;
    let bytes = age::encrypt(&age::x25519::Identity::generate().to_public(), b"secret").unwrap();
    world.controller.store.put_credential(id, &bytes, "age1", 1).await.unwrap();
    let world = world.restarted().await;
    let record = world.over(id).await;
    assert_eq!(reason(&record), "completed");
    assert!(record.is_gone());

    let id = world.captures().await;
    let world = world.restarted().await;
    let record = world.over(id).await;
    assert_eq!(reason(&record), "controller_stopped");
    // What ran before is held before anything else is asked, and released in the end.
    let calls = world.node.calls();
    let ended = durable(StateName::Ended, false);
    let expected = [
        Call::Hold(record.user),
        Call::TearDown(record.sandbox(), ended),
        Call::Release,
        Call::Close,
    ];
    assert_eq!(calls, expected);
}

#[tokio::test]
async fn a_start_that_the_node_refuses_leaves_nothing() {
    let world = World::new().await;
    let no = "there is no image of this name".to_owned();
    world.node.answer(|answers| answers.prepare = Err(NotPrepared::NoImage(no.clone())));
    assert_eq!(world.start().await.unwrap_err().detail, no);
    assert_eq!(world.node.calls(), [Call::Prepare]);
    world.node.answer(|answers| {
        answers.prepare = Ok(());
        let (step, cause) = (SetupStep::StartRunner, "no more processes".to_owned());
        answers.start = Err(EndReason::SessionSetupFailed { step, cause });
    });
    let id = world.start().await.unwrap();
    let record = world.over(id).await;
    assert_eq!(reason(&record), "session_setup_failed");
    let why = record.view().reason.unwrap();
    assert_eq!(why.detail["step"], "start_runner");
    assert!(why.message.ends_with("starting its runner failed: no more processes"), "{why:?}");
    assert!(record.is_gone() && world.node.calls().contains(&Call::Release));
}

#[tokio::test]
async fn what_cannot_be_recorded_is_given_back_and_no_user_before_that_is_durable() {
    let world = World::new().await;
    let id = world.captures().await;
    // The store is away: SQLite would go on with a file that nobody finds again.
    let (database, away) = (world.database(), world.folder.path().join("away"));
    std::fs::rename(&database, &away).unwrap();
    let refused = world.controller.end(id, &caller()).await.unwrap_err();
    assert_eq!(refused.code, ProblemCode::StorageUnavailable);
    assert!(refused.detail.contains("was removed or replaced"), "{}", refused.detail);
    let view = world.until(id, |view| view.state == StateName::Ended).await;
    assert!(view.end_not_stored.is_some_and(|why| refused.detail.ends_with(&why)));
    world.until(id, |view| view.teardown == Some(anteroom_api::TeardownState::TornDown)).await;
    assert!(!world.node.calls().contains(&Call::Release));
    std::fs::rename(&away, &database).unwrap();
    let record = world.over(id).await;
    assert!(record.is_gone() && world.node.calls().contains(&Call::Release));

    std::fs::rename(&database, &away).unwrap();
    let before = world.node.calls().len();
    world.start().await.unwrap_err();
    assert_eq!(world.node.calls()[before..], [Call::Prepare, Call::Close, Call::Release]);
}
