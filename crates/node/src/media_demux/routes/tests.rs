use proptest::prelude::*;

use super::*;

const MEDIA: &[u8] = b"\x80media";

fn address(n: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], 1000 + n))
}

/// Sessions `a` and `b`, each with its name for fragment and runner.
fn two() -> (Routes<char>, [SessionId; 2], Instant) {
    let mut routes = Routes::default();
    let sessions = [SessionId::generate(), SessionId::generate()];
    for (session, name) in sessions.into_iter().zip(['a', 'b']) {
        routes.add_session(session, name);
        assert!(routes.set_fragment(&name.to_string(), session));
    }
    (routes, sessions, Instant::now())
}

#[test]
fn an_address_leads_nowhere_before_its_request_is_authenticated() {
    let (mut routes, [a, b], now) = two();
    assert_eq!(routes.route(MEDIA, address(1), now), None);
    assert_eq!(routes.route(&binding_request("x:y"), address(1), now), None);
    assert_eq!(routes.route(&binding_request("a:y"), address(1), now), Some(&'a'));
    assert_eq!(routes.route(MEDIA, address(1), now), None);
    // Nobody else can claim it, nor what it was never asked from.
    routes.authenticated(b, address(1), now);
    routes.authenticated(a, address(2), now);
    assert_eq!(routes.route(MEDIA, address(1), now), None);
    assert_eq!(routes.route(MEDIA, address(2), now), None);
    routes.authenticated(a, address(1), now);
    assert_eq!(routes.route(MEDIA, address(1), now), Some(&'a'));
    // Another viewer of the session has another fragment, and addresses of its own.
    assert!(routes.set_fragment("a2", a));
    assert_eq!(routes.route(MEDIA, address(1), now), None);
    assert_eq!(routes.route(&binding_request("a:y"), address(1), now), None);
    routes.remove_session(a);
    assert_eq!(routes.route(&binding_request("a2:y"), address(1), now), None);
}

#[test]
fn a_runner_takes_no_other_session_s_fragment() {
    let (mut routes, [a, b], now) = two();
    assert!(!routes.set_fragment("a", b));
    assert!(!routes.set_fragment(&"x".repeat(257), b));
    assert_eq!(routes.route(&binding_request("a:y"), address(1), now), Some(&'a'));
    // What it has stays, and goes without the other's.
    assert_eq!(routes.route(&binding_request("b:y"), address(2), now), Some(&'b'));
    routes.remove_session(b);
    assert_eq!(routes.route(&binding_request("a:y"), address(1), now), Some(&'a'));
    routes.remove_session(a);
}

#[test]
fn a_viewer_with_thousands_of_ports_forgets_only_its_own() {
    let (mut routes, [a, b], now) = two();
    routes.route(&binding_request("a:y"), address(0), now);
    routes.authenticated(a, address(0), now);
    for n in 1..=4200 {
        // As slowly as its runner is asked.
        let now = now + Duration::from_millis(20) * u32::from(n);
        assert_eq!(routes.route(&binding_request("b:y"), address(n), now), Some(&'b'));
        routes.authenticated(b, address(n), now);
    }
    assert_eq!(routes.route(MEDIA, address(0), now), Some(&'a'));
    assert_eq!(routes.route(MEDIA, address(1), now), None);
    assert_eq!(routes.route(MEDIA, address(4200), now), Some(&'b'));
    assert_eq!(routes.addresses.len(), 1 + MAX_ADDRESSES);
}

#[test]
fn a_runner_is_asked_only_so_often_by_whom_it_does_not_know() {
    let (mut routes, [a, _], now) = two();
    routes.route(&binding_request("a:y"), address(0), now);
    routes.authenticated(a, address(0), now);
    let passed = (1..1000)
        .filter(|n| routes.route(&binding_request("a:y"), address(*n), now).is_some())
        .count();
    assert_eq!(passed, MAX_UNKNOWN as usize - 1);
    // Whom it knows, and the other session, feel nothing of it; and it is over soon.
    assert!(routes.route(&binding_request("a:y"), address(0), now).is_some());
    assert!(routes.route(&binding_request("b:y"), address(1), now).is_some());
    let later = now + Duration::from_secs(1);
    assert!(routes.route(&binding_request("a:y"), address(1), later).is_some());
}

#[test]
fn an_address_is_taken_over_only_when_its_holder_is_silent() {
    let (mut routes, [a, b], now) = two();
    routes.route(&binding_request("a:y"), address(1), now);
    routes.authenticated(a, address(1), now);
    let claim = |routes: &mut Routes<char>, now| {
        routes.route(&binding_request("b:y"), address(1), now);
        routes.authenticated(b, address(1), now);
        routes.route(MEDIA, address(1), now).copied()
    };
    assert_eq!(claim(&mut routes, now + Duration::from_secs(1)), Some('a'));
    assert_eq!(claim(&mut routes, now + HELD), Some('b'));
}

#[test]
fn broken_packets_lead_nowhere() {
    let whole = binding_request("local:x");
    assert_eq!(stun_fragment(&whole), Some("local"));
    for length in 0..whole.len() {
        assert_eq!(stun_fragment(&whole[..length]), None);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Request(usize, u16),
    Media(u16),
    Authenticated(usize, u16),
    Viewer(usize),
    Remove(usize),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (session, port) = (|| 0..2usize, || 0..40u16);
    let step = prop_oneof![
        8 => (session(), port()).prop_map(|(s, p)| Step::Request(s, p)),
        4 => port().prop_map(Step::Media),
        8 => (session(), port()).prop_map(|(s, p)| Step::Authenticated(s, p)),
        1 => session().prop_map(Step::Viewer),
        1 => session().prop_map(Step::Remove),
        2 => (0..40u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn no_session_takes_another_s_addresses(steps in steps()) {
        let (mut routes, sessions, mut now) = two();
        let mut asked = [const { Vec::new() }; 2];
        for (n, step) in steps.into_iter().enumerate() {
            let held: Vec<_> = routes
                .sessions
                .iter()
                .flat_map(|(id, s)| s.known.0.iter().map(move |(a, at)| (*id, *a, *at)))
                .collect();
            let actor = match step {
                Step::Request(s, port) => {
                    let name = routes.sessions.get(&sessions[s]).and_then(|s| s.fragment.clone());
                    let packet = binding_request(&format!("{}:x", name.unwrap_or_default()));
                    let to = routes.route(&packet, address(port), now);
                    prop_assert!(to.is_none_or(|to| *to == ['a', 'b'][s]));
                    asked[s].push(address(port));
                    Some(s)
                }
                Step::Media(port) => {
                    let to = routes.route(MEDIA, address(port), now).copied();
                    for (s, name) in ['a', 'b'].into_iter().enumerate() {
                        prop_assert!(to != Some(name) || asked[s].contains(&address(port)));
                    }
                    None
                }
                Step::Authenticated(s, port) => {
                    routes.authenticated(sessions[s], address(port), now);
                    Some(s)
                }
                Step::Viewer(s) => {
                    let _ = routes.set_fragment(&format!("f{}", n % 3), sessions[s]);
                    Some(s)
                }
                Step::Remove(s) => {
                    routes.remove_session(sessions[s]);
                    Some(s)
                }
                Step::Wait(seconds) => {
                    now += Duration::from_secs(seconds);
                    None
                }
            };
            for (session, address, at) in held {
                let others = actor.is_none_or(|actor| sessions[actor] != session);
                if others && now.saturating_duration_since(at) < HELD {
                    prop_assert_eq!(routes.addresses.get(&address), Some(&session));
                }
            }
            for session in routes.sessions.values() {
                prop_assert!(session.known.0.len() <= MAX_ADDRESSES);
                prop_assert!(session.asked.0.len() <= MAX_ADDRESSES);
            }
            let known: usize = routes.sessions.values().map(|s| s.known.0.len()).sum();
            prop_assert_eq!(known, routes.addresses.len());
            prop_assert!(routes.fragments.len() <= routes.sessions.len());
        }
    }
}
