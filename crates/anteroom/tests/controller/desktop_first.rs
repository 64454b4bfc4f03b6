//! A sandbox that nobody signs in to yet: as far as its messages go, the desktop needs no sign-in, and
//! one begins in it later. A controller does not do that today; a pool of sandboxes will.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use anteroom_confine::Confinement;
use anteroom_guest_protocol::{
    BeginSignIn, CliSpec, ConfigureSandbox, CredentialSpec, Desktop, GuestMessage, HostMessage,
    Preferences, Purpose, ScreenSize, ServiceEvent,
};
use anteroom_guest_session::{
    Conversation, DriverConfig, SandboxConfig, entropy_base64, start_guest, unix_ms,
};
use anteroom_session::SessionId;
use tokio::task::LocalSet;
use tokio::time::timeout;

/// Longer than a browser takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);

fn sandbox() -> ConfigureSandbox {
    ConfigureSandbox {
        now_unix_ms: unix_ms(),
        entropy_base64: entropy_base64(),
        browser_ip: Ipv4Addr::LOCALHOST,
        screen: ScreenSize { width: 640, height: 480 },
        purpose: Purpose::SignIn { desktop: Desktop::Used },
        egress_ports: Vec::new(),
        extra_ca_pem: String::new(),
        services: Vec::new(),
    }
}

/// Prints what its environment says of the end user, and waits.
fn sign_in() -> BeginSignIn {
    let script = "echo \"speaks $LANG in $TZ\"; sleep 1000";
    BeginSignIn {
        preferences: Preferences {
            locale: Some("de-at".parse().unwrap()),
            time_zone: Some("Europe/Vienna".into()),
        },
        cli: CliSpec {
            command: ["sh", "-c", script].map(String::from).to_vec(),
            env: [].into(),
            callback_ports: Vec::new(),
        },
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

/// Takes messages until one is what is waited for.
async fn until(conversation: &mut Conversation, mut is_it: impl FnMut(&GuestMessage) -> bool) {
    let heard = async {
        loop {
            let message = conversation.messages.next().await.unwrap();
            if is_it(&message) {
                return;
            }
        }
    };
    timeout(PATIENCE, heard).await.expect("the guest says it");
}

#[test]
fn a_desktop_is_up_before_anybody_signs_in_and_a_sign_in_begins_in_it() {
    let folder = tempfile::tempdir().unwrap();
    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), open_to_all.clone()).unwrap();
    let agent = folder.path().join("agent");
    // The agent that the binary carries.
    std::fs::copy(Path::new(env!("OUT_DIR")).join("anteroom-agent"), &agent).unwrap();
    std::fs::set_permissions(&agent, open_to_all).unwrap();
    let name = SessionId::generate().to_string();
    let runtime_dir = Path::new("/tmp").join(format!("anteroom-{name}"));
    let config = SandboxConfig {
        name: name.parse().unwrap(),
        driver: DriverConfig::Host { agent, runtime_dir: runtime_dir.clone() },
        confinement: Confinement::of_this_machine(None),
        log_dir: folder.path().to_owned(),
        screen: sandbox().screen,
        services: Vec::new(),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    LocalSet::new().block_on(&runtime, async {
        let no_vm = || Err::<&[u8], _>("this is no VM");
        let mut running = config.boot(no_vm, None).await.unwrap();
        start_guest(&mut running).await.unwrap();
        let (mut conversation, _) = Conversation::begin(running.take_link()).await.unwrap();
        conversation.configure(sandbox(), |_, _, _| {}).await.unwrap();
        conversation.start_services().await.unwrap();
        let mut unready = BTreeSet::from(["x", "window-manager", "browser"]);
        until(&mut conversation, |message| {
            if let GuestMessage::Service { name, event: ServiceEvent::Ready {} } = message {
                unready.remove(name.as_str());
            }
            unready.is_empty()
        })
        .await;
        let begin = HostMessage::BeginSignIn(Box::new(sign_in()));
        conversation.sender.say(&begin).await.unwrap();
        until(&mut conversation, |message| *message == GuestMessage::SignInBegun {}).await;
        conversation.sender.say(&HostMessage::StartTool {}).await.unwrap();
        until(&mut conversation, |message| {
            matches!(message, GuestMessage::Log { service, line, .. }
                if service == "cli" && line == "speaks de_AT.UTF-8 in Europe/Vienna")
        })
        .await;
        running.end().await;
    });
    anteroom_vm::remove_runtime_dir(&runtime_dir, config.confinement.user).unwrap();
}
