use proptest::prelude::*;

use super::*;
use crate::{
    Accelerator, AccessGrant, Actor, DriverKind, HolderGeneration, HostPort, Leftover, ProcessExit,
    Prompt, SealedCredential, StateName, View,
};

mod coming;

fn params() -> SessionParams {
    SessionParams {
        started_by: Some(ci()),
        id: SessionId::generate(),
        provider: "demo".parse().unwrap(),
        user: None,
        method: Method::Browser,
        method_chosen: Chosen::First,
        start: Start::AtOnce,
        created_at: Timestamp(1_000),
        ttl_seconds: 600,
        max_seconds: 3600,
        idle_seconds: 120,
        tool_waits_seconds: None,
    }
}

fn run(events: impl IntoIterator<Item = Event>) -> (Session, Vec<Effect>) {
    let (mut session, mut effects) = Session::request(params());
    for event in events {
        let (next, more) = session.handle(event, Timestamp(2_000));
        session = next;
        effects.extend(more);
    }
    (session, effects)
}

fn sign_in_url() -> Event {
    Event::Observed(Observation::SignInAwaited {
        prompt: Prompt::Page { url: "https://x.test/a".into(), code: None },
    })
}

fn agent_connected() -> Event {
    Event::Observed(Observation::AgentConnected {
        agent_version: "0.1.0".into(),
        kernel: "6.1".into(),
        waited: None,
    })
}

fn viewer_joined() -> Event {
    let viewer = AccessGrant::Link { generation: HolderGeneration::FIRST };
    Event::Observed(Observation::ViewerJoined { viewer })
}

fn sealed() -> Event {
    Event::Observed(Observation::CredentialSealed { sealed: age() })
}

fn happy_path() -> Vec<Event> {
    vec![
        Event::RunnerStarted,
        Event::Observed(Observation::SandboxStarted {
            driver: DriverKind::Qemu,
            accelerator: Accelerator::Tcg,
            pid: 8,
            cloned: None,
        }),
        agent_connected(),
        sign_in_url(),
        Event::Observed(Observation::CredentialFound),
        sealed(),
        Event::CredentialStored,
        Event::Observed(Observation::GuestPoweredOff),
        Event::TornDown { leftovers: vec![] },
    ]
}

#[test]
fn a_sign_in_passes_every_state_and_does_each_thing_once() {
    let mut names = vec![StateName::Requested];
    let (mut session, mut effects) = Session::request(params());
    for event in happy_path() {
        let (next, more) = session.handle(event, Timestamp(2_000));
        session = next;
        effects.extend(more);
        if names.last() != Some(&session.state.name()) {
            names.push(session.state.name());
        }
    }
    use StateName::*;
    assert_eq!(names, [Requested, Booting, Preparing, AwaitingUser, Capturing, Sealed, Ended]);
    assert_eq!(
        effects,
        [
            Effect::StartRunner,
            Effect::StoreCredential { sealed: age() },
            Effect::AcknowledgeCredential,
            Effect::TearDown,
        ]
    );
    assert!(matches!(
        session.state,
        State::Ended { reason: EndReason::Completed, teardown: Teardown::TornDown { .. }, .. }
    ));
}

#[test]
fn a_sign_in_whose_guest_does_not_power_off_is_complete() {
    let exit = Some(ProcessExit::Signalled { signal: 9 });
    let mut events = happy_path();
    events[7] = Event::Observed(Observation::GuestNotPoweredOff { exit });
    let (session, _) = Session::request(params());
    let session = events
        .into_iter()
        .fold(session, |session, event| session.handle(event, Timestamp(2_000)).0);
    assert!(matches!(session.state, State::Ended { reason: EndReason::Completed, .. }));
}

#[test]
fn what_is_left_is_torn_down_again_by_the_next_controller_until_nothing_is() {
    let ended = |leftovers| {
        let mut events = happy_path();
        *events.last_mut().unwrap() = Event::TornDown { leftovers };
        run(events).0
    };
    let left = vec![Leftover { kind: "file".into(), what: "/x".into() }];
    let (found, effects) = ended(left).handle(Event::FoundByReconciliation, Timestamp(3_000));
    assert_eq!(effects, [Effect::TearDown]);
    let (gone, _) = found.handle(Event::TornDown { leftovers: vec![] }, Timestamp(4_000));
    let is_gone = matches!(&gone.state, State::Ended { reason: EndReason::Completed, teardown, .. } if teardown.is_gone());
    assert!(is_gone, "{:?}", gone.state);
    let (same, effects) = gone.clone().handle(Event::FoundByReconciliation, Timestamp(5_000));
    assert_eq!((same, effects), (gone, vec![]));
}

#[test]
fn a_credential_out_of_order_is_not_stored() {
    let (session, effects) = run([Event::RunnerStarted, agent_connected(), sealed()]);
    assert_eq!(session.state.name(), StateName::Preparing);
    assert_eq!(effects, [Effect::StartRunner]);
}

#[test]
fn the_runner_dying_before_the_credential_is_stored_is_reported() {
    let exit = ProcessExit::Signalled { signal: 9 };
    let (session, effects) =
        run([Event::RunnerStarted, agent_connected(), Event::RunnerExited(exit)]);
    assert!(matches!(
        session.state,
        State::Ended { reason: EndReason::RunnerDied { exit: e }, .. } if e == exit
    ));
    assert_eq!(effects.last(), Some(&Effect::TearDown));
}

#[test]
fn a_lost_node_is_not_reported_as_a_runner_that_died() {
    let (session, effects) = run([Event::RunnerStarted, agent_connected(), Event::NodeLost]);
    let State::Ended { reason, .. } = session.state else { panic!("{:?}", session.state) };
    assert_eq!((reason.code(), effects.last()), ("node_lost", Some(&Effect::TearDown)));
    let sentence = reason.sentence(DriverKind::Qemu);
    assert!(sentence.contains("did not report how"), "{sentence}");
}

#[test]
fn whatever_comes_after_sealed_the_session_is_completed() {
    let stored = 7;
    let last_events = [
        Event::RunnerExited(ProcessExit::Signalled { signal: 9 }),
        Event::RunnerSilent { silent_ms: 30_000 },
        Event::NodeLost,
        Event::StateNotStored { cause: "disk full".into() },
        Event::EndRequested(ci()),
        Event::FoundByReconciliation,
        Event::Observed(Observation::Failed(EndReason::ControllerStopped)),
    ];
    for event in last_events {
        let (session, _) = run(happy_path().into_iter().take(stored).chain([event]));
        assert!(matches!(session.state, State::Ended { reason: EndReason::Completed, .. }));
    }
}

#[test]
fn the_deadline_ends_with_the_state_it_struck_in() {
    let (session, _) = run([Event::RunnerStarted]);
    let before = session.clone().handle(Event::Tick, Timestamp(600_999)).0;
    assert_eq!(before.state.name(), StateName::Booting);
    let (after, _) = session.handle(Event::Tick, Timestamp(601_000));
    assert!(matches!(
        after.state,
        State::Ended {
            reason: EndReason::TimedOut { during: StateName::Booting, ttl_seconds: 600 },
            ..
        }
    ));
}

#[test]
fn a_heartbeat_prolongs_a_session_but_not_for_ever() {
    let (session, _) = run([Event::RunnerStarted]);
    assert_eq!(session.deadline, Timestamp(601_000));
    let (session, _) = session.handle(Event::Heartbeat, Timestamp(500_000));
    assert_eq!(session.next_tick(Timestamp(2_000)), Some(Timestamp(1_100_000)));
    let (session, _) = session.handle(Event::Tick, Timestamp(700_000));
    assert_eq!(session.state.name(), StateName::Booting);
    let (session, _) = session.handle(Event::Heartbeat, Timestamp(3_500_000));
    assert_eq!(session.deadline, Timestamp(3_601_000));
    let (session, _) = session.handle(Event::Tick, Timestamp(3_601_000));
    assert!(matches!(
        session.state,
        State::Ended { reason: EndReason::TooLong { max_seconds: 3600, .. }, .. }
    ));
}

#[test]
fn an_end_user_who_does_nothing_is_waited_for_only_so_long() {
    let to_their_turn = [Event::RunnerStarted, agent_connected(), viewer_joined(), sign_in_url()];
    let (session, _) = run(to_their_turn);
    assert_eq!(session.idle_deadline(), Some(Timestamp(122_000)));
    let active = Event::Observed(Observation::EndUserActive);
    let (session, _) = session.handle(active, Timestamp(100_000));
    let (session, _) = session.handle(Event::Tick, Timestamp(219_999));
    assert_eq!(session.state.name(), StateName::AwaitingUser);
    let (session, _) = session.handle(Event::Tick, Timestamp(220_000));
    assert!(matches!(
        session.state,
        State::Ended { reason: EndReason::Idle { idle_seconds: 120 }, .. }
    ));
    // Before anybody came, the time to live alone counts.
    let (session, _) = run([Event::RunnerStarted, agent_connected(), sign_in_url()]);
    assert_eq!(session.idle_deadline(), None);
}

#[test]
fn who_signs_in_elsewhere_is_not_idle_here() {
    let params = SessionParams { method: Method::PasteCode, ..params() };
    let (mut session, _) = Session::request(params);
    let joined = viewer_joined();
    for event in [Event::RunnerStarted, agent_connected(), sign_in_url(), joined] {
        session = session.handle(event, Timestamp(2_000)).0;
    }
    assert_eq!(session.idle_deadline(), None);
}

fn age() -> SealedCredential {
    "YWdl".to_owned().try_into().unwrap()
}

fn ci() -> Actor {
    Actor::Caller { key: "ci".parse().unwrap() }
}

fn opened(viewer: AccessGrant) -> Event {
    Event::Opened { view: View::Link, viewer }
}

fn link_opened() -> Event {
    opened(AccessGrant::Link { generation: HolderGeneration::FIRST })
}

fn sandbox_ready() -> Event {
    Event::Observed(Observation::SandboxReady)
}

fn to_a_ready_sandbox() -> [Event; 3] {
    [Event::RunnerStarted, agent_connected(), sandbox_ready()]
}

fn any_event() -> impl Strategy<Value = Event> {
    let exit = prop_oneof![
        Just(ProcessExit::Exited { code: 1 }),
        Just(ProcessExit::Signalled { signal: 11 }),
        Just(ProcessExit::Unknown),
    ];
    prop_oneof![
        4 => prop::sample::select(happy_path()),
        1 => exit.prop_map(Event::RunnerExited),
        1 => Just(Event::RunnerSilent { silent_ms: 30_000 }),
        1 => Just(Event::NodeLost),
        1 => Just(Event::StateNotStored { cause: "disk full".into() }),
        1 => Just(Event::EndRequested(ci())),
        1 => Just(Event::CredentialNotStored { cause: "disk full".into() }),
        1 => Just(Event::Tick),
        1 => Just(Event::Heartbeat),
        1 => Just(Event::HostAllowed { host: HostPort::new("a.example", 443), by: ci() }),
        1 => Just(Event::LinksRevoked { by: ci() }),
        1 => Just(Event::LinkMade { generation: HolderGeneration::FIRST, by: ci() }),
        1 => Just(Event::Observed(Observation::EndUserActive)),
        2 => Just(sandbox_ready()),
        1 => Just(link_opened()),
        1 => Just(opened(AccessGrant::ApiKey { key: "ci".parse().unwrap() })),
        1 => Just(viewer_joined()),
        1 => Just(Event::ToolStartRequested { by: ci() }),
        1 => Just(Event::FoundByReconciliation),
        1 => Just(Event::TornDown { leftovers: vec![Leftover { kind: "file".into(), what: "/x".into() }] }),
        1 => Just(Event::Observed(Observation::Failed(EndReason::GuestLinkFailed { cause: "x".into() }))),
        1 => Just(Event::Observed(Observation::GuestNotPoweredOff { exit: None })),
        2 => Just(sealed()),
        2 => Just(Event::CredentialStored),
    ]
}

proptest! {
    /// In whatever order a hostile or broken world speaks: one runner, one teardown and another for
    /// each controller that finds it not done, an acknowledgement only after the store said durable,
    /// and an end that is never rewritten. A CLI that waits for the end user is started once, with them
    /// and not before; another never.
    #[test]
    fn any_order_of_events_keeps_the_promises(
        events in prop::collection::vec((any_event(), 0u64..1_000_000), 0..60),
        start in prop_oneof![Just(Start::AtOnce), Just(Start::WhenTheEndUserComes)],
        first in 0..=3usize,
    ) {
        // Few orders lead into a sandbox by themselves.
        let on_the_way = to_a_ready_sandbox().into_iter().take(first).map(|event| (event, 0));

        let waits = start == Start::WhenTheEndUserComes;
        let (mut session, mut effects) = Session::request(SessionParams { start, ..params() });
        let mut came = false;
        let mut reason_given: Option<EndReason> = None;
        let mut found_undone = 0;
        for (event, at) in on_the_way.chain(events) {
            if let State::Ended { teardown, .. } = &session.state
                && event == Event::FoundByReconciliation
            {
                found_undone += usize::from(!teardown.is_gone());
            }
            let stored = event == Event::CredentialStored;
            came |= [link_opened(), viewer_joined(), Event::ToolStartRequested { by: ci() }].contains(&event);
            let (next, more) = session.handle(event, Timestamp(at));
            if more.contains(&Effect::AcknowledgeCredential) {
                prop_assert!(stored);
            }
            if more.contains(&Effect::StartTool) {
                prop_assert!(waits && came);
            }
            session = next;
            effects.extend(more);
            prop_assert!(session.state.name() != StateName::Ready || (waits && !came));
            if waits && came && session.state.name() == StateName::Preparing {
                prop_assert!(effects.contains(&Effect::StartTool));
            }
            if let State::Ended { reason, .. } = &session.state {
                match &reason_given {
                    Some(first) => prop_assert_eq!(first, reason),
                    None => reason_given = Some(reason.clone()),
                }
            }
        }
        let count = |wanted: &Effect| effects.iter().filter(|e| *e == wanted).count();
        prop_assert_eq!(count(&Effect::StartRunner), 1);
        let demolitions = usize::from(reason_given.is_some()) + found_undone;
        prop_assert_eq!(count(&Effect::TearDown), demolitions);
        prop_assert!(count(&Effect::AcknowledgeCredential) <= 1);
        prop_assert!(count(&Effect::StartTool) <= 1);
    }
}

#[test]
fn the_tool_s_own_deadline_is_the_turn_s_where_it_comes_first() {
    let params = SessionParams { tool_waits_seconds: Some(120), ..params() };
    let created = params.created_at;
    let (session, _) = Session::request(params);
    let page = |url: &str| {
        let prompt = Prompt::Page { url: url.into(), code: None };
        Event::Observed(Observation::SignInAwaited { prompt })
    };
    let asks = || {
        let prompt = Prompt::Terminal { screen: vec![], reason: crate::PromptReason::Unknown };
        Event::Observed(Observation::SignInAwaited { prompt })
    };
    let connected =
        Observation::AgentConnected { agent_version: "1".into(), kernel: "6".into(), waited: None };
    let at = |seconds| created.plus_seconds(seconds);
    let mut session = session;
    let mut turn = |event: Event, seconds: u64| {
        session = session.clone().handle(event, at(seconds)).0;
        session.turn_deadline(at(seconds)).millis_since(created) / 1000
    };
    let whole = turn(Event::RunnerStarted, 1);
    assert_eq!(turn(Event::Observed(connected), 2), whole);
    assert_eq!(turn(page("https://a.test/1"), 10), 130);
    assert_eq!(turn(asks(), 20), 130, "a question does not stop its clock");
    assert_eq!(turn(page("https://a.test/1"), 30), 130);
    assert_eq!(turn(Event::Heartbeat, 31), 130, "nor does its caller");
    assert_eq!(turn(page("https://a.test/2"), 40), 160, "a new address is a new time");
    let code = |code: &str| {
        let prompt = Prompt::Page { url: "https://a.test/2".into(), code: Some(code.into()) };
        Event::Observed(Observation::SignInAwaited { prompt })
    };
    assert_eq!(turn(code("AB12"), 50), 170, "and so is a new code");
    assert_eq!(turn(code("AB12"), 60), 170);
    assert_eq!(turn(Event::Tick, 169), 170);
    assert_eq!(turn(Event::Tick, 170), 631, "a time that has passed is not the turn's");
    assert_eq!(turn(code("CD34"), 180), 300);
    // What is shown is looked at again when the tool's time is over, and once.
    let created = session.params.created_at;
    let ticks = [180, 300].map(|seconds| session.next_tick(created.plus_seconds(seconds)));
    assert_eq!(ticks, [Some(created.plus_seconds(300)), Some(session.deadline)]);
}

/// Earlier versions kept the runner's process id in the state.
#[test]
fn a_state_that_an_earlier_version_stored_is_read() {
    let stored = r#"{"name":"capturing","runner_pid":7}"#;
    assert_eq!(serde_json::from_str::<State>(stored).unwrap(), State::Capturing);
    let prompt = r#"{"kind":"page","url":"https://a.example/","code":null}"#;
    let stored = format!(r#"{{"name":"awaiting_user","runner_pid":7,"prompt":{prompt}}}"#);
    let read = serde_json::from_str::<State>(&stored);
    assert!(matches!(read, Ok(State::AwaitingUser { .. })), "{read:?}");
}
