//! What holds whatever comes, in whatever order, at whatever time.

use anteroom_guest_protocol::Transport;
use proptest::prelude::*;

use super::*;

/// One step of a sign-in: time that passes, and then what comes.
type Step = (Duration, Input);

fn event() -> impl Strategy<Value = ServiceEvent> {
    prop_oneof![
        Just(ServiceEvent::Started { pid: 7 }),
        Just(ServiceEvent::Ready {}),
        (0..3).prop_map(exited),
    ]
}

fn message() -> impl Strategy<Value = GuestMessage> {
    let service = (prop_oneof!["x", "window-manager", "browser", "cli", "helper"], event());
    let text = "[ -~]{0,12}|\\PC{0,12}";
    prop_oneof![
        4 => service.prop_map(|(name, event)| GuestMessage::Service { name, event }),
        2 => Just(GuestMessage::SignInUrl { url: URL.into() }),
        1 => text.prop_map(|url| GuestMessage::SignInUrl { url }),
        1 => Just(GuestMessage::SignInPageOpened {}),
        2 => (0u64..200).prop_map(found),
        1 => any::<u64>().prop_map(found),
        1 => Just(GuestMessage::CredentialLeft {}),
        2 => Just(sealed()),
        1 => text.prop_map(|said| GuestMessage::CredentialVerified { said }),
        1 => text.prop_map(|title| GuestMessage::PageTitle { title }),
        1 => Just(GuestMessage::PageTitle { title: "Just a moment... - Chromium".into() }),
        1 => text.prop_map(|page| GuestMessage::PageCallRefused { page, address: "a:1".into() }),
        1 => text.prop_map(|host| {
            GuestMessage::ConnectionBlocked { host, port: 1, transport: Transport::Udp }
        }),
        1 => text.prop_map(|line| {
            GuestMessage::Log { service: "x".into(), stream: LogStream::Stdout, line }
        }),
        1 => Just(GuestMessage::Heartbeat { sent_ms: 1 }),
        1 => Just(GuestMessage::SandboxConfigured {}),
        1 => Just(GuestMessage::SignInBegun {}),
        1 => Just(GuestMessage::Frozen {}),
    ]
}

fn shown() -> impl Strategy<Value = Vec<u8>> {
    let known = prop_oneof![
        Just(format!("Open {URL} with code ABCD\r\n")),
        Just("Code: ".to_owned()),
        Just("Shall I? ".to_owned()),
        Just("y\r\n".to_owned()),
        Just("\x1b[2J\x1b[H".to_owned()),
        Just("\x1b[6n".to_owned()),
        Just("Overwrite? [y/N] ".to_owned()),
        "[ -~]{0,20}",
    ];
    prop_oneof![
        8 => known.prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..100),
        1 => Just(b"no such account".to_vec()),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    prop_oneof![
        4 => Just(Command::StartTool),
        1 => Just(Command::OpenSignInPage),
        4 => "4/[a-z]{1,4}|\\PC{0,5}".prop_map(|code| Command::EnterCode { request: 1, code }),
        2 => "[a-c]\\.test|\\PC{0,5}".prop_map(|host| Command::AllowHost { request: 1, host }),
        1 => Just(Command::AcknowledgeCredential),
    ]
}

fn input() -> impl Strategy<Value = Input> {
    let verdict = prop_oneof![
        Just(EgressVerdict::Allowed),
        Just(EgressVerdict::Failed),
        Just(EgressVerdict::RefusedByPolicy),
        Just(EgressVerdict::RefusedAddress),
    ];
    prop_oneof![
        8 => message().prop_map(Input::Guest),
        6 => shown().prop_map(Input::Terminal),
        1 => Just(Input::TerminalClosed),
        2 => "\\PC{0,8}".prop_map(Input::Typed),
        3 => command().prop_map(Input::Command),
        2 => ("[a-c]\\.test|", verdict).prop_map(|(host, verdict)| {
            Input::Contact(contact(&host, verdict))
        }),
        4 => Just(Input::Time),
    ]
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let waits = prop_oneof![
        4 => Just(0),
        4 => 1u64..1000,
        2 => 1000u64..10_000,
        1 => 10_000u64..400_000,
    ];
    prop::collection::vec((waits.prop_map(Duration::from_millis), input()), 0..80)
}

fn method() -> impl Strategy<Value = Method> {
    prop_oneof![Just(Method::Browser), Just(Method::PasteCode), Just(Method::DeviceCode)]
}

/// Takes the outputs of one call, of which only the last may be an end.
fn check(outputs: &[Output], is_over: &mut bool) -> Result<(), TestCaseError> {
    prop_assert!(!*is_over || outputs.is_empty(), "after its end: {outputs:?}");
    let ends = outputs.iter().filter(|output| matches!(output, Output::End(_))).count();
    let is_last = matches!(outputs.last(), Some(Output::End(_)));
    prop_assert_eq!(ends, usize::from(is_last), "{:?}", outputs);
    *is_over |= is_last;
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Nothing panics; after an end nothing comes; what is due is done, so that a caller who sleeps
    /// until the next deadline never spins; until it ends, a credential is found before it is sealed.
    #[test]
    fn whatever_comes_the_machine_goes_on_or_ends(
        method in method(),
        at_once: bool,
        steps in steps(),
    ) {
        let start = if at_once { "at_once" } else { "when_the_end_user_comes" };
        let mut stage = Stage::of(method, start);
        let (mut is_over, mut seen) = (false, Vec::new());
        for (time, input) in steps {
            let until = stage.now + time;
            let mut at_once = 0;
            while let Some(due) = stage.sign_in.next_deadline().filter(|due| *due <= until) {
                at_once = if due > stage.now { 0 } else { at_once + 1 };
                prop_assert!(at_once < MOST_AT_ONCE, "it is due for ever");
                stage.now = stage.now.max(due);
                let outputs = stage.take(Input::Time);
                check(&outputs, &mut is_over)?;
                seen.extend(outputs);
            }
            stage.now = until;
            let outputs = stage.take(input);
            check(&outputs, &mut is_over)?;
            seen.extend(outputs);
            prop_assert!(!is_over || stage.sign_in.next_deadline().is_none());
        }
        let at = |name| seen.iter().position(|output| reports(std::slice::from_ref(output), name));
        if let Some(sealed) = at("credential_sealed") {
            prop_assert!(at("credential_found").is_some_and(|found| found < sealed), "{seen:?}");
            let closed = seen.iter().position(|output| *output == Output::CloseEgress);
            prop_assert!(closed < at("credential_found"), "{seen:?}");
        }
    }

    /// A call that comes before its time changes nothing.
    #[test]
    fn time_that_has_not_passed_does_nothing(method in method(), steps in steps()) {
        let mut stage = Stage::of(method, "at_once");
        for (time, input) in steps {
            stage.passes(time);
            stage.take(input);
            if stage.sign_in.next_deadline().is_none_or(|due| due > stage.now) {
                let before = stage.sign_in.next_deadline();
                prop_assert_eq!(stage.take(Input::Time), []);
                prop_assert_eq!(stage.sign_in.next_deadline(), before);
            }
        }
    }
}
