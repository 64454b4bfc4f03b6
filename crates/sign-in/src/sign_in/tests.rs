//! Whole sign-ins without a process, a socket or a runtime: what comes, and what is to be done then.

mod properties;

use anteroom_guest_protocol::{
    Evidence, GuestCpu, GuestMessage, HostMessage, LogStream, ProcessExit, ServiceEvent,
    ServiceSpec, Then,
};
use anteroom_provider::Provider;
use anteroom_session::{CodeTaken, EgressVerdict, EndReason, Method, Observation, Prompt};

use super::*;
use crate::CodeRefused;

/// How often a machine may be called at one moment until it waits for a later one.
const MOST_AT_ONCE: usize = 16;

const URL: &str = "https://a.test/sign-in";

/// A sign-in and a clock that moves when the test moves it.
struct Stage {
    sign_in: SignIn,
    now: Instant,
    first: Vec<Output>,
}

/// A CLI that shows its address and takes a code, or opens its address on the desktop.
fn provider(method: Method, start: &str) -> Provider {
    let (name, more) = match method {
        Method::Browser => ("browser", ""),
        Method::PasteCode => ("paste_code", "code_prompt = 'Code: ', quiet_ms = 400,"),
        Method::DeviceCode => ("device_code", r"code_pattern = 'code (\w+)',"),
    };
    let text = format!(
        "id = 'tool'\nname = 'Tool'\nimage = 'x'\n\
         login = [{{ method = '{name}', command = ['x'], instructions = 'x', start = '{start}', {more} \
         answers = [{{ screen = 'Shall I', type = \"y\\r\" }}] }}]\n\
         egress = {{ allow = [], sso = 'ask' }}\n\
         [[screens]]\nscreen = 'no such account'\nsays = 'No such account.'\nends = true\n\
         [credential]\nfiles = [{{ path = '~/x', required = ['/x'] }}]"
    );
    Provider::parse("tool", &text).unwrap()
}

fn optional_service() -> ServiceSpec {
    serde_json::from_str(r#"{ "name": "helper", "command": ["x"], "needed": false }"#).unwrap()
}

impl Stage {
    fn of(method: Method, start: &str) -> Self {
        let (provider, now) = (provider(method, start), Instant::now());
        let context = Context {
            provider: &provider,
            login: provider.login_by(method).unwrap(),
            services: &[optional_service()],
            operator_name: "Ada",
            explainer: Explainer::new("this VM's CPU", &GuestCpu::default()),
        };
        let (sign_in, first) = SignIn::begin(context, now).unwrap();
        Self { sign_in, now, first }
    }

    /// Of a CLI that has started.
    fn started(method: Method) -> Self {
        let mut stage = Self::of(method, "at_once");
        assert_eq!(stage.service("cli", ServiceEvent::Started { pid: 7 }), []);
        stage
    }

    /// Whose end user has the address.
    fn awaited(method: Method) -> Self {
        let mut stage = Self::started(method);
        let outputs = match method {
            Method::Browser => stage.guest(GuestMessage::SignInUrl { url: URL.into() }),
            Method::PasteCode | Method::DeviceCode => {
                stage.writes(&format!("Open {URL} with code ABCD\n"))
            }
        };
        assert!(reports(&outputs, "sign_in_awaited"), "{outputs:?}");
        stage
    }

    fn take(&mut self, input: Input) -> Vec<Output> {
        self.sign_in.handle(input, self.now)
    }

    fn guest(&mut self, message: GuestMessage) -> Vec<Output> {
        self.take(Input::Guest(message))
    }

    fn service(&mut self, name: &str, event: ServiceEvent) -> Vec<Output> {
        self.guest(GuestMessage::Service { name: name.into(), event })
    }

    fn writes(&mut self, text: &str) -> Vec<Output> {
        self.take(Input::Terminal(text.replace('\n', "\r\n").into_bytes()))
    }

    fn command(&mut self, command: Command) -> Vec<Output> {
        self.take(Input::Command(command))
    }

    /// Time passes, and the machine is called at each of its deadlines.
    fn passes(&mut self, time: Duration) -> Vec<Output> {
        let until = self.now + time;
        let (mut outputs, mut at_once) = (Vec::new(), 0);
        while let Some(due) = self.sign_in.next_deadline().filter(|due| *due <= until) {
            at_once = if due > self.now { 0 } else { at_once + 1 };
            assert!(at_once < MOST_AT_ONCE, "it is due for ever");
            self.now = self.now.max(due);
            outputs.extend(self.take(Input::Time));
        }
        self.now = until;
        outputs
    }
}

fn found(terminal_bytes: u64) -> GuestMessage {
    GuestMessage::CredentialFound { terminal_bytes }
}

fn sealed() -> GuestMessage {
    GuestMessage::CredentialSealed { ciphertext_base64: "YWdl".into() }
}

fn exited(code: i32) -> ServiceEvent {
    ServiceEvent::Exited {
        exit: ProcessExit::Exited { code },
        lived_ms: 10,
        last_lines: vec!["an error".into()],
        evidence: Box::new(Evidence::default()),
        deaths: 1,
        then: Then::Nothing {},
    }
}

fn contact(host: &str, verdict: EgressVerdict) -> Contact {
    Contact {
        host: host.into(),
        port: 443,
        verdict,
        connections: 1,
        bytes_up: 0,
        bytes_down: 0,
        detail: None,
    }
}

fn reports(outputs: &[Output], name: &str) -> bool {
    outputs.iter().any(
        |output| matches!(output, Output::Report(observation) if <&str>::from(observation) == name),
    )
}

/// The code of the reason that it failed for.
fn failed(outputs: &[Output]) -> Option<&'static str> {
    match outputs.last() {
        Some(Output::End(End::Failed(reason))) => Some(reason.code()),
        _ => None,
    }
}

#[test]
fn a_sign_in_on_the_desktop_from_its_start_to_its_end() {
    let mut stage = Stage::of(Method::Browser, "at_once");
    assert_eq!(stage.first, [Output::Say(HostMessage::StartTool {})]);
    stage.service("cli", ServiceEvent::Started { pid: 7 });
    let prompt = Prompt::Page { url: URL.into(), code: None };
    let open = Output::Say(HostMessage::OpenSignInPage { url: URL.into() });
    assert_eq!(
        stage.guest(GuestMessage::SignInUrl { url: URL.into() }),
        [
            open.clone(),
            Output::Say(HostMessage::TurnBegins {}),
            Output::Report(Observation::SignInAwaited { prompt }),
        ]
    );
    assert_eq!(
        stage.guest(GuestMessage::SignInPageOpened {}),
        [Output::Report(Observation::SignInPageOpened)]
    );
    assert_eq!(stage.command(Command::OpenSignInPage), [open]);
    assert_eq!(stage.command(Command::StartTool), [], "asked twice it starts once");
    let observed = Output::Report(Observation::CredentialFound);
    assert_eq!(stage.guest(found(0)), [Output::CloseEgress, observed]);
    let sealed_credential = "YWdl".to_owned().try_into().unwrap();
    assert_eq!(
        stage.guest(sealed()),
        [Output::Report(Observation::CredentialSealed { sealed: sealed_credential })]
    );
    assert_eq!(stage.sign_in.guard.next_deadline(), None, "it is the controller's turn");
    assert_eq!(
        stage.command(Command::AcknowledgeCredential),
        [Output::Say(HostMessage::AcknowledgeCredential {}), Output::End(End::Done)]
    );
    assert_eq!(stage.guest(sealed()), [], "after an end nothing comes");
    assert_eq!(stage.sign_in.next_deadline(), None);
}

#[test]
fn a_tool_that_waits_for_the_end_user_starts_when_they_come() {
    let mut stage = Stage::of(Method::PasteCode, "when_the_end_user_comes");
    assert_eq!(stage.first, []);
    for name in ["x", "window-manager"] {
        let outputs = stage.service(name, ServiceEvent::Ready {});
        assert!(reports(&outputs, "service_ready"));
        assert_eq!(reports(&outputs, "sandbox_ready"), name == "window-manager");
    }
    assert_eq!(stage.sign_in.next_deadline(), None, "it waits");
    assert_eq!(stage.passes(Duration::from_secs(86_400)), []);
    let started = stage.command(Command::StartTool);
    assert_eq!(started, [Output::Say(HostMessage::StartTool {})]);
    assert_eq!(stage.sign_in.next_deadline(), Some(stage.now + Duration::from_secs(210)));
}

#[test]
fn what_the_terminal_shows_comes_before_the_credential() {
    let mut stage = Stage::awaited(Method::DeviceCode);
    let written = stage.sign_in.taken;
    assert_eq!(stage.guest(found(written + 4)), [Output::CloseEgress]);
    assert!(stage.sign_in.waits_for_terminal());
    assert_eq!(stage.writes("ok"), []);
    let observed = [Output::Report(Observation::CredentialFound)];
    assert_eq!(stage.writes("\n"), observed);
    assert!(!stage.sign_in.waits_for_terminal());
    // What does not come is not waited for.
    let mut stage = Stage::awaited(Method::DeviceCode);
    stage.guest(found(1000));
    assert_eq!(stage.passes(Duration::from_millis(9_999)), []);
    assert_eq!(stage.passes(Duration::from_millis(1)), observed);
    let mut stage = Stage::awaited(Method::DeviceCode);
    stage.guest(found(1000));
    assert_eq!(stage.take(Input::TerminalClosed), observed);
    // A message that is handed in all the same ends the wait.
    let mut stage = Stage::awaited(Method::DeviceCode);
    stage.guest(found(1000));
    let outputs = stage.guest(sealed());
    assert!(reports(&outputs[..1], "credential_found"), "{outputs:?}");
    assert!(reports(&outputs[1..], "credential_sealed"), "{outputs:?}");
}

#[test]
fn a_tool_that_shows_that_it_failed_has_failed_whatever_it_left() {
    let mut stage = Stage::awaited(Method::DeviceCode);
    let written = stage.sign_in.taken;
    stage.guest(found(written + 16));
    let outputs = stage.writes("no such account!");
    assert_eq!(failed(&outputs), Some("sign_in_refused"), "{outputs:?}");
    assert!(!reports(&outputs, "credential_found"), "{outputs:?}");
}

#[test]
fn a_tool_s_last_output_comes_before_its_exit_status() {
    let mut stage = Stage::awaited(Method::DeviceCode);
    assert_eq!(stage.service("cli", exited(1)), []);
    assert_eq!(stage.passes(Duration::from_millis(299)), []);
    assert_eq!(stage.writes("no such account"), [], "more may come");
    assert_eq!(stage.passes(Duration::from_millis(299)), []);
    let outputs = stage.passes(Duration::from_millis(1));
    assert_eq!(failed(&outputs), Some("sign_in_refused"), "{outputs:?}");
    // One that says nothing ends by its status.
    let mut stage = Stage::awaited(Method::DeviceCode);
    stage.guest(GuestMessage::CredentialLeft {});
    stage.service("cli", exited(1));
    let outputs = stage.take(Input::TerminalClosed);
    let [Output::End(End::Failed(EndReason::CliExited { left_credential, .. }))] = &outputs[..]
    else {
        panic!("{outputs:?}")
    };
    assert!(left_credential);
    // One that writes for ever is not listened to for ever.
    let mut stage = Stage::awaited(Method::DeviceCode);
    stage.service("cli", exited(1));
    let mut outputs = Vec::new();
    for _ in 0..100 {
        outputs.extend(stage.writes("."));
        outputs.extend(stage.passes(Duration::from_millis(100)));
    }
    assert_eq!(failed(&outputs), Some("cli_exited"), "{outputs:?}");
}

#[test]
fn a_tool_without_an_address_ends_or_shows_its_screen() {
    let mut stage = Stage::started(Method::Browser);
    let outputs = stage.passes(Duration::from_secs(120));
    assert_eq!(failed(&outputs), Some("no_sign_in_url"), "{outputs:?}");
    let mut stage = Stage::started(Method::Browser);
    stage.writes("Choose a theme:\n");
    let outputs = stage.passes(Duration::from_secs(120));
    assert!(reports(&outputs, "sign_in_awaited"), "{outputs:?}");
    // A guest that does not even say that its CLI has started is late.
    let mut stage = Stage::of(Method::Browser, "at_once");
    let outputs = stage.passes(Duration::from_secs(210));
    assert_eq!(failed(&outputs), Some("guest_stalled"), "{outputs:?}");
}

#[test]
fn a_code_is_a_secret_before_it_is_typed() {
    let mut stage = Stage::awaited(Method::PasteCode);
    let enter = |code: &str| Command::EnterCode { request: 3, code: code.into() };
    let refused = Output::CodeAnswered { request: 3, result: Err(CodeRefused::Malformed) };
    assert_eq!(stage.command(enter("a\u{1b}b")), [refused]);
    let secret = Output::Say(HostMessage::Secret { text: "4/0Ab".into() });
    let taken = |typed, replaced| Output::CodeAnswered {
        request: 3,
        result: Ok(CodeTaken { typed, replaced }),
    };
    assert_eq!(stage.command(enter("4/0Ab")), [secret.clone(), taken(false, false)]);
    stage.writes("Code: ");
    let typed = [
        Output::Type(Keys::Paced("4/0Ab".into())),
        Output::Type(Keys::Paced("\r".into())),
        Output::Report(Observation::CodeEntered),
    ];
    assert_eq!(stage.passes(Duration::from_millis(400)), typed);
}

#[test]
fn what_a_viewer_pastes_is_a_secret_and_what_they_type_is_not() {
    let mut stage = Stage::started(Method::PasteCode);
    let typed = |text: &str| Output::Type(Keys::AtOnce(text.into()));
    let active = Output::Report(Observation::EndUserActive);
    assert_eq!(stage.take(Input::Typed("y\r".into())), [typed("y\r"), active.clone()]);
    let secret = Output::Say(HostMessage::Secret { text: "hunter2".into() });
    assert_eq!(stage.take(Input::Typed("hunter2".into())), [secret, typed("hunter2"), active]);
}

#[test]
fn a_terminal_s_answers_are_typed_at_once() {
    let mut stage = Stage::started(Method::PasteCode);
    assert_eq!(stage.writes("\x1b[6n"), [Output::Type(Keys::AtOnce("\x1b[1;1R".into()))]);
}

#[test]
fn a_refused_host_that_the_page_needs_is_allowed_by_the_operator() {
    let mut stage = Stage::awaited(Method::Browser);
    let host = "acme.okta.example";
    stage.take(Input::Contact(contact(host, EgressVerdict::RefusedByPolicy)));
    let title = format!("{host} - Chromium");
    let outputs = stage.guest(GuestMessage::PageTitle { title });
    assert!(reports(&outputs, "host_needed"), "{outputs:?}");
    let outputs = stage.command(Command::AllowHost { request: 1, host: host.into() });
    assert!(
        matches!(&outputs[0], Output::Allow(destination) if destination.host() == host),
        "{outputs:?}"
    );
    assert!(reports(&outputs, "end_user_notified"));
    let Some(Output::HostAnswered { request: 1, result: Ok(allowed) }) = outputs.last() else {
        panic!("{outputs:?}");
    };
    assert_eq!(allowed.host(), host);
    let outputs = stage.command(Command::AllowHost { request: 2, host: "b.example".into() });
    assert!(matches!(&outputs[..], [Output::HostAnswered { request: 2, result: Err(_) }]));
}

#[test]
fn a_connection_is_reported_and_one_that_asked_for_nothing_is_not() {
    let mut stage = Stage::started(Method::Browser);
    let failed = |host| Input::Contact(contact(host, EgressVerdict::Failed));
    assert_eq!(stage.take(failed("")), []);
    let outputs = stage.take(failed("a.test"));
    assert!(reports(&outputs[..1], "host_contacted") && reports(&outputs[1..], "host_unreachable"));
}

#[test]
fn a_service_that_the_sign_in_can_do_without_does_not_end_it() {
    let mut stage = Stage::started(Method::Browser);
    let outputs = stage.service("helper", exited(1));
    assert!(reports(&outputs, "service_exited"), "{outputs:?}");
    let outputs = stage.service("x", exited(1));
    assert_eq!(failed(&outputs), Some("service_failed"), "{outputs:?}");
}

#[test]
fn what_comes_out_of_order_ends_the_sign_in() {
    for (early, message) in [
        (true, GuestMessage::SignInUrl { url: URL.into() }),
        (true, found(0)),
        (true, GuestMessage::SandboxConfigured {}),
        (true, GuestMessage::SignInBegun {}),
        (true, GuestMessage::Frozen {}),
        (false, sealed()),
        (false, GuestMessage::SignInUrl { url: "javascript:x".into() }),
    ] {
        let mut stage = match early {
            true => Stage::of(Method::Browser, "when_the_end_user_comes"),
            false => Stage::awaited(Method::Browser),
        };
        let outputs = stage.guest(message.clone());
        assert_eq!(failed(&outputs), Some("guest_broke_protocol"), "{message:?}: {outputs:?}");
    }
    let mut stage = Stage::of(Method::PasteCode, "when_the_end_user_comes");
    let outputs = stage.writes(&format!("Open {URL}\n"));
    assert_eq!(failed(&outputs), Some("guest_broke_protocol"), "{outputs:?}");
}

#[test]
fn the_agent_s_and_the_controller_s_ends_are_different() {
    let mut stage = Stage::started(Method::Browser);
    assert_eq!(stage.command(Command::Shutdown), [Output::End(End::Ordered)]);
    let mut stage = Stage::started(Method::Browser);
    let outputs = stage.guest(GuestMessage::Fatal { cause: "no memory".into() });
    assert_eq!(failed(&outputs), Some("service_failed"));
    let mut stage = Stage::started(Method::Browser);
    let outputs = stage.guest(GuestMessage::CredentialRefused { cause: "too large".into() });
    assert_eq!(failed(&outputs), Some("credential_refused"));
}
