//! What crosses the guest link, byte for byte. A change here is a change of the protocol: raise
//! `PROTOCOL_VERSION` with it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;
use std::net::Ipv4Addr;

use anteroom_guest_protocol::frames::{FrameHeader, Rect, Request};
use anteroom_guest_protocol::input::{InputEvent, PointerButton};
use anteroom_guest_protocol::{
    BeginSignIn, Check, Checked, CliSpec, Completeness, ConfigureSandbox, CredentialFileSpec,
    CredentialSpec, CursorImage, Desktop, Evidence, Fault, FileHeader, FileOutcome, GuestCpu,
    GuestMessage, HostMessage, KeyringSpec, LogStream, Mapping, NotStarted, OutOfMemory,
    PROTOCOL_VERSION, PageFacts, Preamble, Preferences, PrintedSpec, Probe, ProcessExit, Purpose,
    ScreenSize, Sender, ServiceEvent, ServiceSpec, ServiceUser, Stall, StatusSpec, StreamKind,
    Symbol, SystemFacts, Then, Transport, Wake, Watchdog,
};
use serde::Serialize;

fn lines<T: Serialize>(messages: &[T]) -> String {
    messages.iter().map(|message| serde_json::to_string(message).unwrap() + "\n").collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn service() -> ServiceSpec {
    ServiceSpec {
        name: "vnc".into(),
        command: vec!["x0vncserver".into()],
        user: ServiceUser::EndUser,
        env: [].into(),
        ready: Some(Probe::Greeting { port: 5900, begins: "RFB ".into() }),
        ready_seconds: 60,
        watchdog: Some(Watchdog { probe: Probe::Port(5900), seconds: 30 }),
        restarts: 3,
        needed: true,
        memory_mib: Some(64),
        max_processes: None,
    }
}

fn credential() -> CredentialSpec {
    CredentialSpec {
        files: vec![
            CredentialFileSpec {
                path: ".demo/credentials.json".into(),
                complete: Completeness::Json { pointers: vec!["/access_token".into()] },
                optional: false,
                max_bytes: 65_536,
            },
            CredentialFileSpec {
                path: ".demo/hosts".into(),
                complete: Completeness::Text { patterns: vec!["a".into()] },
                optional: true,
                max_bytes: 65_536,
            },
        ],
        keyring: vec![KeyringSpec {
            attributes: [("service".to_owned(), "acme".to_owned())].into(),
            optional: false,
            max_bytes: 65_536,
        }],
        printed: vec![PrintedSpec {
            path: ".demo/token".into(),
            begins: "demo-".into(),
            rest: "[a-z]+".into(),
        }],
        awaits_screen: true,
        status: Some(StatusSpec {
            command: vec!["demo-login".into(), "status".into()],
            env: [("A".to_owned(), "b".to_owned())].into(),
            signed_in: "yes".into(),
        }),
    }
}

#[test]
fn host_messages() {
    let sandbox = ConfigureSandbox {
        now_unix_ms: 1_700_000_000_000,
        entropy_base64: "AAAA".into(),
        browser_ip: Ipv4Addr::new(10, 0, 0, 2),
        screen: ScreenSize { width: 1280, height: 720 },
        purpose: Purpose::SignIn { desktop: Desktop::Used },
        egress_ports: vec![443],
        extra_ca_pem: String::new(),
        services: vec![service()],
    };
    let [verification, template] = [Purpose::Verification {}, Purpose::Template {}]
        .map(|purpose| ConfigureSandbox { purpose, services: Vec::new(), ..sandbox.clone() });
    let sign_in = BeginSignIn {
        preferences: Preferences {
            locale: Some("de-AT".parse().unwrap()),
            time_zone: Some("Europe/Vienna".into()),
        },
        cli: CliSpec {
            command: vec!["demo-login".into(), "login".into()],
            env: [("KEY".to_owned(), "value".to_owned())].into(),
            callback_ports: vec![1455],
        },
        credential: credential(),
        recipient: "age1".into(),
    };
    insta::assert_snapshot!(lines(&[
        HostMessage::ConfigureSandbox(Box::new(sandbox)),
        HostMessage::ConfigureSandbox(Box::new(verification)),
        HostMessage::ConfigureSandbox(Box::new(template)),
        HostMessage::BeginSignIn(Box::new(sign_in)),
        HostMessage::Freeze { wake_token: "t".into() },
        HostMessage::Wake(Box::new(Wake {
            wake_token: "t".into(),
            now_unix_ms: 1_700_000_000_000,
            entropy_base64: "AA==".into(),
            browser_ip: [10, 1, 2, 3].into(),
        })),
        HostMessage::StartServices {},
        HostMessage::StartTool {},
        HostMessage::OpenSignInPage { url: "https://x.test/".into() },
        HostMessage::Time { asked_ms: 2_000, now_unix_ms: 1_700_000_002_000 },
        HostMessage::Secret { text: "s".into() },
        HostMessage::TurnBegins {},
        HostMessage::SignedIn {},
        HostMessage::AcknowledgeCredential {},
        HostMessage::Shutdown {},
    ]));
}

fn fault() -> Fault {
    let mapping = Mapping {
        start: 4096,
        end: 8192,
        permissions: "r-x".into(),
        file_offset: 0,
        path: "/lib/a.so".into(),
        build_id: Some("ab".into()),
    };
    Fault {
        signal: 4,
        code: 2,
        address: 4100,
        sender: Some(Sender::Process(7)),
        thread: "t".into(),
        program: "/bin/a".into(),
        instruction_pointer: 4100,
        stack_pointer: 16,
        registers: vec![1, 2],
        instruction: "0f0b".into(),
        code_mapping: Some(mapping.clone()),
        near_address: Some(mapping),
        symbol: Some(Symbol { name: "main".into(), offset: 3 }),
        last_message: None,
        unseen: vec!["u".into()],
    }
}

#[test]
fn checks() {
    insta::assert_snapshot!(lines(&[
        Check::Run {
            name: "node".into(),
            command: vec!["node".into(), "--version".into()],
            env: [("A".to_owned(), "b".to_owned())].into(),
            seconds: 60,
        },
        Check::System {},
        Check::Page {},
        Check::VncGreeting {},
        Check::OpenedFiles { skip: 500 },
    ]));
    let exited = ServiceEvent::Exited {
        exit: ProcessExit::Exited { code: 0 },
        lived_ms: 12,
        last_lines: vec!["v20.1.0".into()],
        evidence: Box::default(),
        deaths: 1,
        then: Then::Nothing {},
    };
    insta::assert_snapshot!(lines(&[
        Checked::Ran { first_lines: vec!["v20.1.0".into()], event: exited },
        Checked::System(SystemFacts { os: "Debian".into(), ..SystemFacts::default() }),
        Checked::Page(PageFacts { user_agent: "x".into(), ..PageFacts::default() }),
        Checked::VncGreeting { text: "RFB 003.008".into() },
        Checked::OpenedFiles { paths: vec!["/lib/a.so".into()], more: false },
        Checked::Failed { cause: "c".into() },
    ]));
}

/// With all evidence that there may be.
fn killed() -> ServiceEvent {
    ServiceEvent::Exited {
        exit: ProcessExit::Signalled { signal: 4 },
        lived_ms: 5,
        last_lines: vec!["a".to_owned()],
        evidence: Box::new(Evidence {
            fault: Some(Box::new(fault())),
            out_of_memory: Some(OutOfMemory {
                child: None,
                line: "l".into(),
                limit: Some(2),
                peak: Some(1),
            }),
            kernel_log_read: true,
            not_started: None,
            stall: Some(Stall {
                silent_ms: 1,
                asked: "port 1".into(),
                was_ready: true,
                state: "S".into(),
                system_call: Some(202),
                waits_in: None,
                children: vec!["xmessage x".into()],
            }),
        }),
        deaths: 4,
        then: Then::TooOften {},
    }
}

fn not_started() -> ServiceEvent {
    ServiceEvent::Failed {
        cause: "c".into(),
        last_lines: vec!["a".to_owned()],
        evidence: Box::new(Evidence {
            not_started: Some(NotStarted::NoInterpreter {
                program: "/a".into(),
                interpreter: "/b".into(),
            }),
            ..Evidence::default()
        }),
        exit: None,
        lived_ms: 0,
    }
}

#[test]
fn guest_messages() {
    let service = |event| GuestMessage::Service { name: "browser".into(), event };
    insta::assert_snapshot!(lines(&[
        GuestMessage::Hello {
            agent_version: "0.1.0".into(),
            kernel: "6.1.0".into(),
            boot_id: "b".into(),
            is_clone: false,
            cpu: GuestCpu { leaves: vec![[1, 0, 2, 3, 4, 5]], xcr0: 7 },
        },
        GuestMessage::SandboxConfigured {},
        GuestMessage::Frozen {},
        GuestMessage::SignInBegun {},
        GuestMessage::Heartbeat { sent_ms: 2_000 },
        service(ServiceEvent::Started { pid: 7 }),
        service(ServiceEvent::Ready {}),
        service(ServiceEvent::Exited {
            exit: ProcessExit::Exited { code: 1 },
            lived_ms: 5,
            last_lines: vec!["a".to_owned()],
            evidence: Box::default(),
            deaths: 1,
            then: Then::Restart { after_ms: 250 },
        }),
        service(killed()),
        service(not_started()),
        service(ServiceEvent::ChildDied {
            child: "p".to_owned(),
            evidence: Box::new(Evidence { fault: Some(Box::new(fault())), ..Evidence::default() }),
        }),
        GuestMessage::Log { service: "x".into(), stream: LogStream::Stderr, line: "l".into() },
        GuestMessage::SignInUrl { url: "https://x.test/".into() },
        GuestMessage::SignInPageOpened {},
        GuestMessage::PageTitle { title: "t".into() },
        GuestMessage::PageCallRefused { page: "https://x.test".into(), address: "[::1]:80".into() },
        GuestMessage::Cursor(CursorImage {
            width: 1,
            height: 1,
            hot_x: 0,
            hot_y: 0,
            rgba_base64: "AAAAAA==".into()
        }),
        GuestMessage::ConnectionBlocked {
            host: "a.test".into(),
            port: 443,
            transport: Transport::Udp
        },
        GuestMessage::CredentialFound { terminal_bytes: 4321 },
        GuestMessage::CredentialLeft {},
        GuestMessage::CredentialVerified { said: "s".into() },
        GuestMessage::CredentialSealed { ciphertext_base64: "YWdl".into() },
        GuestMessage::CredentialRefused { cause: "c".into() },
        GuestMessage::Fatal { cause: "c".into() },
    ]));
}

#[test]
fn input_events() {
    insta::assert_snapshot!(lines(&[
        InputEvent::PointerMove { x: 1, y: 2 },
        InputEvent::PointerButton { button: PointerButton::Middle, pressed: true },
        InputEvent::Scroll { dx: 0, dy: -1 },
        InputEvent::Key { code: serde_json::from_str("\"KeyA\"").unwrap(), pressed: false },
        InputEvent::Text { text: "é".into() },
        InputEvent::Paste { text: "p".into() },
        InputEvent::ReleaseAll {},
    ]));
}

#[test]
fn files_streams_and_frames() {
    let header = FileHeader { path: "~/a".into(), owner: "person".into(), mode: 0o600, size: 3 };
    let outcomes =
        [FileOutcome::Written { sha256: "00".into() }, FileOutcome::Refused { cause: "c".into() }];
    let kinds = [
        StreamKind::Control,
        StreamKind::Frames,
        StreamKind::Input,
        StreamKind::File,
        StreamKind::Egress,
        StreamKind::Terminal,
        StreamKind::Vnc,
    ];
    let frame =
        FrameHeader { sequence: 1, captured_us: 2, width: 1280, height: 720, rects: 1 }.encode();
    let rect = Rect { x: 1, y: 2, width: 3, height: 4 }.encode();
    insta::assert_snapshot!(format!(
        "version {PROTOCOL_VERSION}\npreamble {}\n{}{}kinds {:?}\nrequests {:?}\nframe {}\nrect {}\n",
        hex(&Preamble::new([7; 16]).encode()),
        lines(&[header]),
        lines(&outcomes),
        kinds.map(u8::from),
        [Request::Changes, Request::Everything].map(u8::from),
        hex(&frame),
        hex(&rect),
    ));
}
