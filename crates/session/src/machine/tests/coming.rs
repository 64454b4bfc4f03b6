//! A CLI that is started when the end user comes.

use super::*;

/// A session whose CLI is started when the end user comes, after these events at 2 s.
fn waiting(events: impl IntoIterator<Item = Event>) -> (Session, Vec<Effect>) {
    let params = SessionParams { start: Start::WhenTheEndUserComes, ..params() };
    let (mut session, mut effects) = Session::request(params);
    for event in events {
        let (next, more) = session.handle(event, Timestamp(2_000));
        session = next;
        effects.extend(more);
    }
    (session, effects)
}

#[test]
fn a_tool_that_waits_for_the_end_user_is_started_once_however_often_they_come() {
    let (session, effects) = waiting(to_a_ready_sandbox());
    assert_eq!(session.state.name(), StateName::Ready);
    assert_eq!(effects, [Effect::StartRunner]);
    let second = AccessGrant::Link { generation: HolderGeneration::from_number(2).unwrap() };
    let coming = [link_opened(), link_opened(), viewer_joined(), opened(second), sandbox_ready()];
    let (session, effects) = waiting(to_a_ready_sandbox().into_iter().chain(coming));
    assert_eq!(session.state.name(), StateName::Preparing);
    assert_eq!(effects, [Effect::StartRunner, Effect::StartTool]);
    let (session, _) = session.handle(sign_in_url(), Timestamp(3_000));
    assert_eq!(session.state.name(), StateName::AwaitingUser);
}

#[test]
fn who_comes_before_the_sandbox_is_there_is_not_waited_for() {
    for before in 0..=2 {
        let mut events = to_a_ready_sandbox().to_vec();
        events.insert(before, link_opened());
        let (session, effects) = waiting(events);
        assert_eq!(session.state.name(), StateName::Preparing, "came after {before}");
        assert_eq!(effects, [Effect::StartRunner, Effect::StartTool], "came after {before}");
    }
}

#[test]
fn a_caller_who_looks_is_not_the_end_user_but_can_say_that_they_are_there() {
    let looks = [
        opened(AccessGrant::ApiKey { key: "ci".parse().unwrap() }),
        Event::Heartbeat,
        Event::LinksRevoked { by: ci() },
    ];
    let (session, effects) = waiting(to_a_ready_sandbox().into_iter().chain(looks));
    assert_eq!(session.state.name(), StateName::Ready);
    assert_eq!(effects, [Effect::StartRunner]);
    let (session, effects) =
        session.handle(Event::ToolStartRequested { by: ci() }, Timestamp(3_000));
    assert_eq!(session.state.name(), StateName::Preparing);
    assert_eq!(effects, [Effect::StartTool]);
}

#[test]
fn a_sandbox_that_nobody_comes_to_has_the_session_s_time_and_ends_with_that_reason() {
    let (session, _) = waiting(to_a_ready_sandbox());
    assert_eq!(session.turn_deadline(Timestamp(2_000)), session.deadline);
    let joined = Event::Observed(Observation::ViewerJoined {
        viewer: AccessGrant::ApiKey { key: "ci".parse().unwrap() },
    });
    let (session, _) = session.handle(joined, Timestamp(3_000));
    assert_eq!(
        session.next_tick(Timestamp(3_000)),
        Some(Timestamp(601_000)),
        "nobody is idle who did not come"
    );
    let (session, _) = session.handle(Event::Tick, Timestamp(601_000));
    let State::Ended { reason, .. } = session.state else { panic!("{:?}", session.state) };
    assert_eq!(reason, EndReason::NobodyCame { waited_seconds: 600 });
    let sentence = reason.sentence(DriverKind::Qemu);
    assert!(sentence.contains("nobody opened the link within 600 s"), "{sentence}");
    // Prolonged to the longest that a session may live it is the same.
    let (mut session, _) = waiting(to_a_ready_sandbox());
    for at in [500_000, 1_000_000, 1_500_000, 2_000_000, 2_500_000, 3_000_000, 3_500_000] {
        session = session.handle(Event::Heartbeat, Timestamp(at)).0;
    }
    let (session, _) = session.handle(Event::Tick, Timestamp(3_601_000));
    let State::Ended { reason, .. } = session.state else { panic!("{:?}", session.state) };
    assert_eq!(reason, EndReason::NobodyCame { waited_seconds: 3600 });
}

#[test]
fn the_tool_s_own_deadline_runs_from_its_address_and_not_while_it_waits_for_the_end_user() {
    let params = SessionParams {
        start: Start::WhenTheEndUserComes,
        tool_waits_seconds: Some(120),
        ..params()
    };
    let (mut session, _) = Session::request(params);
    for event in to_a_ready_sandbox() {
        session = session.handle(event, Timestamp(2_000)).0;
    }
    let (session, _) = session.handle(link_opened(), Timestamp(400_000));
    assert_eq!(session.turn_deadline(Timestamp(400_000)), session.deadline);
    let (session, _) = session.handle(sign_in_url(), Timestamp(410_000));
    assert_eq!(session.turn_deadline(Timestamp(410_000)), Timestamp(530_000));
}
