//! What crosses the guest link, byte for byte. A change here is a change of the protocol: raise
//! `PROTOCOL_VERSION` with it.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fmt::Write;
use std::net::Ipv4Addr;

use anteroom_guest_protocol::frames::{FrameHeader, Rect, Request};
use anteroom_guest_protocol::input::{InputEvent, PointerButton};
use anteroom_guest_protocol::{
    CliSpec, Configure, CredentialSpec, CursorImage, FileHeader, FileOutcome, GuestMessage,
    HostMessage, LogStream, PROTOCOL_VERSION, Preamble, ProcessExit, ScreenSize, ServiceEvent,
    StreamKind,
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

#[test]
fn host_messages() {
    let configure = Configure {
        session_id: "0198".into(),
        now_unix_ms: 1_700_000_000_000,
        entropy_base64: "AAAA".into(),
        browser_ip: Ipv4Addr::new(10, 0, 0, 2),
        screen: ScreenSize { width: 1280, height: 720 },
        cli: CliSpec {
            command: vec!["demo-login".into(), "login".into()],
            env: [("KEY".to_owned(), "value".to_owned())].into(),
            url_timeout_ms: 120_000,
        },
        credential: CredentialSpec {
            path: "~/.demo/credentials.json".into(),
            required: vec!["/access_token".into()],
            max_bytes: 65_536,
        },
        recipient: "age1".into(),
        extra_ca_pem: String::new(),
    };
    insta::assert_snapshot!(lines(&[
        HostMessage::Configure(Box::new(configure)),
        HostMessage::StartServices {},
        HostMessage::OpenSignInUrl {},
        HostMessage::CredentialStored {},
        HostMessage::Shutdown {},
    ]));
}

#[test]
fn guest_messages() {
    let service = |event| GuestMessage::Service { name: "browser".into(), event };
    let last_lines = || vec!["a".to_owned()];
    insta::assert_snapshot!(lines(&[
        GuestMessage::Hello {
            agent_version: "0.1.0".into(),
            kernel: "6.1.0".into(),
            boot_id: "b".into()
        },
        GuestMessage::Configured {},
        GuestMessage::Heartbeat {},
        service(ServiceEvent::Started { pid: 7 }),
        service(ServiceEvent::Ready {}),
        service(ServiceEvent::Exited {
            exit: ProcessExit::Exited { code: 1 },
            lived_ms: 5,
            last_lines: last_lines()
        }),
        service(ServiceEvent::Exited {
            exit: ProcessExit::Signalled { signal: 4 },
            lived_ms: 5,
            last_lines: last_lines()
        }),
        service(ServiceEvent::Failed { cause: "c".into(), last_lines: last_lines() }),
        GuestMessage::Log { service: "x".into(), stream: LogStream::Stderr, line: "l".into() },
        GuestMessage::SignInUrl { url: "https://x.test/".into() },
        GuestMessage::NoSignInUrl { waited_ms: 1, last_lines: last_lines() },
        GuestMessage::SignInPageOpened {},
        GuestMessage::Cursor(CursorImage {
            width: 1,
            height: 1,
            hot_x: 0,
            hot_y: 0,
            rgba_base64: "AAAAAA==".into()
        }),
        GuestMessage::CredentialFound {},
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
