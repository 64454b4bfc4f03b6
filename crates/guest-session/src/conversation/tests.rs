//! A guest that follows a script, at the other end of a link in memory. Time is tokio's, which passes
//! at once where everybody waits.

use std::net::Ipv4Addr;

use anteroom_guest_link::{answer_handshake, read_kind, read_message, write_message};
use anteroom_guest_protocol::{
    CliSpec, CredentialSpec, Desktop, HEARTBEAT_DEADLINE_MS, HEARTBEAT_INTERVAL_MS,
    MAX_CONTROL_MESSAGE, Preferences, Purpose, ScreenSize, StreamKind,
};
use tokio::io::DuplexStream;
use tokio::time::Instant;

use super::*;

/// The guest's end of the control stream.
struct Guest {
    control: anteroom_guest_link::LinkStream,
    _opener: Opener,
}

impl Guest {
    /// Answers the handshake and takes the control stream.
    async fn boot(mut link: DuplexStream) -> Self {
        answer_handshake(&mut link).await.unwrap();
        let (opener, mut incoming, drive) = connect(link, Side::Guest);
        tokio::task::spawn_local(drive);
        let mut control = incoming.next().await.unwrap();
        assert_eq!(read_kind(&mut control).await.unwrap(), StreamKind::Control);
        Self { control, _opener: opener }
    }

    /// Boots, says hello and takes the sandbox's configuration.
    async fn greeted(link: DuplexStream) -> Self {
        let mut guest = Self::boot(link).await;
        guest.say(hello()).await;
        assert!(matches!(guest.heard().await, HostMessage::ConfigureSandbox(_)));
        guest
    }

    async fn say(&mut self, message: GuestMessage) {
        write_message(&mut self.control, &message, MAX_CONTROL_MESSAGE).await.unwrap();
    }

    async fn heard(&mut self) -> HostMessage {
        read_message(&mut self.control, MAX_CONTROL_MESSAGE).await.unwrap().unwrap()
    }

    /// Stays there and says nothing more.
    async fn fall_silent(self) {
        std::future::pending::<()>().await;
    }
}

fn hello() -> GuestMessage {
    GuestMessage::Hello {
        agent_version: "0.1.0\u{1b}[2J".into(),
        kernel: "6.1.0".into(),
        boot_id: String::new(),
        is_clone: false,
        cpu: GuestCpu::default(),
    }
}

fn configuration() -> ConfigureSandbox {
    ConfigureSandbox {
        now_unix_ms: 0,
        entropy_base64: entropy_base64(),
        browser_ip: Ipv4Addr::LOCALHOST,
        screen: ScreenSize { width: 1280, height: 720 },
        purpose: Purpose::SignIn { desktop: Desktop::Used },
        egress_ports: Vec::new(),
        extra_ca_pem: String::new(),
        services: Vec::new(),
    }
}

fn sign_in() -> BeginSignIn {
    BeginSignIn {
        preferences: Preferences::default(),
        cli: CliSpec { command: vec!["cli".into()], env: [].into(), callback_ports: Vec::new() },
        credential: CredentialSpec {
            files: Vec::new(),
            keyring: Vec::new(),
            printed: Vec::new(),
            awaits_screen: false,
            status: None,
        },
        recipient: "age1".into(),
    }
}

/// Runs a host against a guest that follows `script`.
async fn with_guest<T, G>(
    script: impl FnOnce(DuplexStream) -> G,
    host: impl AsyncFnOnce(DuplexStream) -> T,
) -> T
where
    G: Future<Output = ()> + 'static,
{
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let script = script(theirs);
    tokio::task::LocalSet::new()
        .run_until(async move {
            tokio::task::spawn_local(script);
            host(ours).await
        })
        .await
}

/// Why a conversation cannot begin.
async fn not_begun<G>(script: impl FnOnce(DuplexStream) -> G) -> EndReason
where
    G: Future<Output = ()> + 'static,
{
    let begun = with_guest(script, async |link| Conversation::begin(link).await).await;
    begun.err().expect("the conversation begins")
}

/// Why a guest that said hello is not configured.
async fn not_configured<G>(script: impl FnOnce(Guest) -> G + 'static) -> EndReason
where
    G: Future<Output = ()> + 'static,
{
    let guest = async |link| {
        script(Guest::greeted(link).await).await;
    };
    with_guest(guest, async |link| {
        let (mut conversation, _) = Conversation::begin(link).await.unwrap();
        conversation.configure(configuration(), |_, _, _| {}).await.unwrap_err()
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_keeps_the_order_comes_to_start_its_services() {
    let guest = async |link| {
        let mut guest = Guest::boot(link).await;
        guest.say(hello()).await;
        let HostMessage::ConfigureSandbox(configure) = guest.heard().await else {
            panic!("no configuration")
        };
        assert_eq!(STANDARD.decode(configure.entropy_base64).unwrap().len(), 32);
        guest.say(GuestMessage::Heartbeat { sent_ms: 1 }).await;
        let (service, line) = ("agent".to_owned(), "mounted".to_owned());
        guest.say(GuestMessage::Log { service, stream: LogStream::Stdout, line }).await;
        guest.say(GuestMessage::SandboxConfigured {}).await;
        let HostMessage::BeginSignIn(begin) = guest.heard().await else { panic!("no sign-in") };
        assert_eq!(*begin, sign_in());
        guest.say(GuestMessage::Heartbeat { sent_ms: 2 }).await;
        guest.say(GuestMessage::SignInBegun {}).await;
        assert!(matches!(guest.heard().await, HostMessage::StartServices {}));
        guest.say(GuestMessage::Heartbeat { sent_ms: 7 }).await;
        let HostMessage::Time { asked_ms: 7, .. } = guest.heard().await else { panic!("no time") };
        guest.say(GuestMessage::SignInPageOpened {}).await;
        guest.fall_silent().await;
    };
    with_guest(guest, async |link| {
        let (mut conversation, hello) = Conversation::begin(link).await.unwrap();
        assert_eq!(hello.agent_version, "0.1.0\u{fffd}[2J");
        let mut logged = Vec::new();
        let log = |service: &str, _, line: &str| logged.push(format!("{service}: {line}"));
        conversation.configure(configuration(), log).await.unwrap();
        assert_eq!(logged, ["agent: mounted"]);
        conversation.begin_sign_in(sign_in(), |_, _, _| {}).await.unwrap();
        conversation.start_services().await.unwrap();
        let heartbeat = conversation.messages.next().await.unwrap();
        conversation.sender.answer_heartbeat(&heartbeat).await.unwrap();
        let next = conversation.messages.next().await.unwrap();
        assert_eq!(next, GuestMessage::SignInPageOpened {});
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_vm_without_an_agent_is_given_two_minutes() {
    let started = Instant::now();
    let reason = not_begun(async |link| {
        let _open = link;
        std::future::pending::<()>().await;
    });
    assert!(matches!(reason.await, EndReason::AgentSilent { waited_ms: 120_000, .. }));
    assert_eq!(started.elapsed(), BOOT);
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_answers_and_says_no_hello_is_silent() {
    let reason = not_begun(async |link| Guest::boot(link).await.fall_silent().await);
    let waited = HEARTBEAT_DEADLINE_MS + 2 * HEARTBEAT_INTERVAL_MS;
    let EndReason::AgentSilent { waited_ms, .. } = reason.await else { panic!("another reason") };
    assert_eq!(waited_ms, waited);
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_the_hello_breaks_the_protocol_and_is_named() {
    let reason = not_begun(async |link| {
        let mut guest = Guest::boot(link).await;
        guest.say(GuestMessage::SandboxConfigured {}).await;
        guest.fall_silent().await;
    });
    let cause = "the guest sent sandbox_configured before its hello".to_owned();
    assert_eq!(reason.await, EndReason::GuestBrokeProtocol { cause });
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_cannot_go_on_says_why_before_its_hello_and_after() {
    let fatal = || GuestMessage::Fatal { cause: "no root\u{7}".into() };
    let before = not_begun(async move |link| {
        let mut guest = Guest::boot(link).await;
        guest.say(fatal()).await;
    });
    let after = not_configured(async move |mut guest| guest.say(fatal()).await);
    for reason in [before.await, after.await] {
        let EndReason::ServiceFailed { service, cause, .. } = reason else { panic!("{reason:?}") };
        assert_eq!((service.as_str(), cause.as_str()), ("agent", "no root\u{fffd}"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_never_sets_itself_up_is_given_a_minute() {
    let started = Instant::now();
    let reason = not_configured(async |mut guest| {
        loop {
            tokio::time::sleep(Duration::from_millis(HEARTBEAT_INTERVAL_MS)).await;
            guest.say(GuestMessage::Heartbeat { sent_ms: 0 }).await;
        }
    });
    let cause = format!("the guest did not finish its set-up within {SET_UP_SECONDS} s");
    assert_eq!(reason.await, EndReason::GuestLinkFailed { cause });
    assert_eq!(started.elapsed().as_secs(), SET_UP_SECONDS);
}

#[tokio::test(start_paused = true)]
async fn a_clone_that_says_hello_and_never_wakes_is_given_a_minute() {
    let guest = async |link| {
        let mut guest = Guest::boot(link).await;
        guest.say(hello()).await;
        assert!(matches!(guest.heard().await, HostMessage::Wake(_)));
        loop {
            tokio::time::sleep(Duration::from_millis(HEARTBEAT_INTERVAL_MS)).await;
            guest.say(GuestMessage::Heartbeat { sent_ms: 0 }).await;
        }
    };
    let reason = with_guest(guest, async |link| {
        let (mut conversation, _) = Conversation::begin(link).await.unwrap();
        let wake = Wake {
            wake_token: "t".into(),
            now_unix_ms: 0,
            entropy_base64: entropy_base64(),
            browser_ip: Ipv4Addr::LOCALHOST,
        };
        conversation.wake(wake, |_, _, _| {}).await.unwrap_err()
    });
    let cause = format!("the guest did not finish its set-up within {SET_UP_SECONDS} s");
    assert_eq!(reason.await, EndReason::GuestLinkFailed { cause });
}

#[tokio::test(start_paused = true)]
async fn what_comes_before_configured_breaks_the_protocol_and_is_named() {
    let reason = not_configured(async |mut guest| {
        guest.say(GuestMessage::SignInPageOpened {}).await;
        guest.fall_silent().await;
    });
    let cause = "the guest sent sign_in_page_opened before it was configured".to_owned();
    assert_eq!(reason.await, EndReason::GuestBrokeProtocol { cause });
}

/// Why a guest that is configured does not begin a sign-in.
async fn not_begun_sign_in<G>(script: impl FnOnce(Guest) -> G + 'static) -> EndReason
where
    G: Future<Output = ()> + 'static,
{
    let guest = async |link| {
        let mut guest = Guest::greeted(link).await;
        guest.say(GuestMessage::SandboxConfigured {}).await;
        assert!(matches!(guest.heard().await, HostMessage::BeginSignIn(_)));
        script(guest).await;
    };
    with_guest(guest, async |link| {
        let (mut conversation, _) = Conversation::begin(link).await.unwrap();
        conversation.configure(configuration(), |_, _, _| {}).await.unwrap();
        conversation.begin_sign_in(sign_in(), |_, _, _| {}).await.unwrap_err()
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_sign_in_begins_within_a_minute_and_nothing_comes_before_it() {
    let late = not_begun_sign_in(async |mut guest| {
        loop {
            tokio::time::sleep(Duration::from_millis(HEARTBEAT_INTERVAL_MS)).await;
            guest.say(GuestMessage::Heartbeat { sent_ms: 0 }).await;
        }
    });
    let cause = format!("the guest did not begin the sign-in within {SET_UP_SECONDS} s");
    assert_eq!(late.await, EndReason::GuestLinkFailed { cause });
    let early = not_begun_sign_in(async |mut guest| {
        guest.say(GuestMessage::SandboxConfigured {}).await;
        guest.fall_silent().await;
    });
    let cause = "the guest sent sandbox_configured before it had begun the sign-in".to_owned();
    assert_eq!(early.await, EndReason::GuestBrokeProtocol { cause });
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_goes_is_a_failed_link() {
    let gone = not_configured(async |guest| drop(guest)).await;
    assert!(matches!(gone, EndReason::GuestLinkFailed { .. }), "{gone:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_frame_of_the_multiplexer_is_said_as_that() {
    let reason = not_begun(async |mut link| {
        use tokio::io::AsyncWriteExt;
        answer_handshake(&mut link).await.unwrap();
        link.write_all(&[0xff; 64]).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    assert!(matches!(reason, EndReason::GuestBrokeProtocol { .. }), "{reason:?}");
}
