//! The guest from the runner's side: hello, configuration, injected files, its messages.
//!
//! All that comes is hostile. What breaks the protocol, or stops coming, is an [`EndReason`].

use std::collections::BTreeSet;
use std::time::Duration;

use super::pace::pace;
use anteroom_guest_link::{LinkError, LinkStream, Opener, chain, read_message, write_message};
use anteroom_guest_protocol::{
    CliSpec, Completeness, CredentialFileSpec, CredentialSpec, FileHeader, FileOutcome,
    GuestMessage, HEARTBEAT_DEADLINE_MS, HEARTBEAT_INTERVAL_MS, HostMessage, KeyringSpec,
    MAX_CONTROL_MESSAGE, PrintedSpec, SignIn, StatusSpec, StreamKind, printable,
};
use anteroom_provider::{FileFormat, InjectedFile, KeyringSecret, PrintedSecret, Provider};
use anteroom_session::EndReason;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::io::InspectReader;

use crate::clock::wall;
use crate::runner_protocol::SignInConfig;

/// How long the guest may take to set itself up or to write a file, in seconds.
pub const STEP_SECONDS: u64 = 60;

/// How long the guest may take to read a message, in seconds.
const SAY_SECONDS: u64 = 10;

/// How long a guest that was silent for too long may still take, in case that was not its fault: more
/// than it lets pass between two heartbeats.
const AWAKE_AGAIN: Duration = Duration::from_millis(2 * HEARTBEAT_INTERVAL_MS);

/// Messages that a guest may send for long, a second, and at once: a browser's log has bursts.
const MESSAGES_PER_SECOND: usize = 200;
const MESSAGE_BURST: usize = 2000;

/// Their bytes likewise.
const BYTES_PER_SECOND: usize = 1024 * 1024;
const BYTE_BURST: usize = 8 * BYTES_PER_SECOND;

/// What the guest says, in order. The first failure is the last thing that comes.
pub struct GuestMessages(mpsc::Receiver<Result<GuestMessage, EndReason>>);

/// Speaks to the guest.
pub struct GuestSender(WriteHalf<LinkStream>);

/// Opens the control stream.
pub async fn open_control(opener: &Opener) -> Result<(GuestMessages, GuestSender), EndReason> {
    let stream = opener.open(StreamKind::Control).await.map_err(link_failed)?;
    let (reader, writer) = tokio::io::split(stream);
    let (sender, messages) = mpsc::channel(64);
    // A task of its own: half a message must survive that its reader is interrupted.
    tokio::task::spawn_local(read(reader, sender));
    Ok((GuestMessages(messages), GuestSender(writer)))
}

async fn read(reader: ReadHalf<LinkStream>, sender: mpsc::Sender<Result<GuestMessage, EndReason>>) {
    let deadline = Duration::from_millis(HEARTBEAT_DEADLINE_MS);
    let messages = pace(MESSAGES_PER_SECOND, MESSAGE_BURST);
    let bytes = pace(BYTES_PER_SECOND, BYTE_BURST);
    let read = std::cell::Cell::new(0);
    let mut reader = InspectReader::new(reader, |part| read.set(read.get() + part.len()));
    loop {
        messages.acquire_one().await;
        bytes.acquire(read.take()).await;
        let mut next = std::pin::pin!(read_message(&mut reader, MAX_CONTROL_MESSAGE));
        let heard = match timeout(deadline, &mut next).await {
            // A machine that slept meanwhile: the guest did too, and speaks as soon as it can.
            Err(_) => timeout(AWAKE_AGAIN, &mut next).await,
            heard => heard,
        };
        let message = match heard {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(broken("the agent closed the link")),
            Ok(Err(error)) => Err(link_failed(error)),
            // What the machine was at is added by who has it.
            Err(_) => Err(EndReason::AgentSilent {
                waited_ms: HEARTBEAT_DEADLINE_MS + 2 * HEARTBEAT_INTERVAL_MS,
                run_state: None,
                console_tail: Vec::new(),
            }),
        };
        let last = message.is_err();
        if sender.send(message).await.is_err() || last {
            return;
        }
    }
}

impl GuestMessages {
    /// The next message; may be dropped and called again.
    pub async fn next(&mut self) -> Result<GuestMessage, EndReason> {
        self.0.recv().await.unwrap_or_else(|| Err(broken("the guest link is closed")))
    }
}

impl GuestSender {
    /// Tells a guest that gives a sign of life what time it is.
    pub async fn answer_heartbeat(&mut self, heard: &GuestMessage) -> Result<(), EndReason> {
        let GuestMessage::Heartbeat { sent_ms } = *heard else { return Ok(()) };
        self.say(&HostMessage::Time { asked_ms: sent_ms, now_unix_ms: wall().0 }).await
    }

    /// Sends one message.
    pub async fn say(&mut self, message: &HostMessage) -> Result<(), EndReason> {
        let said = write_message(&mut self.0, message, MAX_CONTROL_MESSAGE);
        match timeout(Duration::from_secs(SAY_SECONDS), said).await {
            Ok(said) => said.map_err(link_failed),
            Err(_) => Err(EndReason::GuestStalled {
                what: "read what it is told".to_owned(),
                allowed_seconds: SAY_SECONDS,
            }),
        }
    }
}

/// Puts a file into the guest and checks the hash of what the guest read back.
pub async fn inject(opener: &Opener, file: &InjectedFile) -> Result<(), EndReason> {
    let refused = |cause: String| EndReason::FileNotInjected { path: file.path.clone(), cause };
    let late = |_| refused(format!("the guest did not confirm it within {STEP_SECONDS} s"));
    let outcome = timeout(Duration::from_secs(STEP_SECONDS), send_file(opener, file))
        .await
        .map_err(late)?
        // The link's failure, not the file's: a guest that crashes now is told as one that crashed.
        .map_err(|error| {
            broken(&format!("while {} was put in place: {}", file.path, chain(&error)))
        })?;
    let expected = hex::encode(Sha256::digest(file.content.as_bytes()));
    match outcome {
        FileOutcome::Written { sha256 } if sha256 == expected => Ok(()),
        FileOutcome::Written { sha256 } => Err(refused(format!(
            "the guest has other bytes: SHA-256 {}, not {expected}",
            printable(&sha256)
        ))),
        FileOutcome::Refused { cause } => Err(refused(printable(&cause))),
    }
}

async fn send_file(opener: &Opener, file: &InjectedFile) -> Result<FileOutcome, LinkError> {
    let mut stream = opener.open(StreamKind::File).await?;
    let header = FileHeader {
        path: file.path.clone(),
        owner: file.owner.clone(),
        mode: file.mode,
        size: file.content.len() as u64,
    };
    write_message(&mut stream, &header, MAX_CONTROL_MESSAGE).await?;
    stream.write_all(file.content.as_bytes()).await?;
    stream.flush().await?;
    read_message(&mut stream, MAX_CONTROL_MESSAGE).await?.ok_or(LinkError::Closed)
}

/// What the guest is told of the sign-in.
pub fn sign_in_spec(config: &SignInConfig) -> SignIn {
    let login = config.login();
    let credential = &config.provider.credential;
    let files = credential.files.iter().map(|file| CredentialFileSpec {
        path: file.path.trim_start_matches("~/").to_owned(),
        complete: match file.format {
            FileFormat::Json => Completeness::Json { pointers: file.required.clone() },
            FileFormat::Text => Completeness::Text { patterns: file.required.clone() },
            FileFormat::Binary => Completeness::Binary {},
        },
        optional: file.optional,
        max_bytes: file.max_bytes,
    });
    let status = credential.status.as_ref().map(|status| StatusSpec {
        command: status.command.clone(),
        env: status.env.clone(),
        signed_in: status.signed_in.clone(),
    });
    SignIn {
        cli: CliSpec {
            command: login.command.clone(),
            env: login.env.clone(),
            callback_ports: login.callback_ports.clone(),
        },
        credential: CredentialSpec {
            keyring: credential.keyring.iter().map(keyring_spec).collect(),
            files: files.collect(),
            printed: credential.printed.iter().map(printed_spec).collect(),
            awaits_screen: credential.screen.is_some(),
            status,
        },
        recipient: config.recipient.clone(),
        desktop: anteroom_sign_in::desktop(login.method),
    }
}

fn keyring_spec(secret: &KeyringSecret) -> KeyringSpec {
    KeyringSpec {
        attributes: secret.attributes.clone(),
        optional: secret.optional,
        max_bytes: secret.max_bytes,
    }
}

fn printed_spec(secret: &PrintedSecret) -> PrintedSpec {
    PrintedSpec {
        path: secret.path.trim_start_matches("~/").to_owned(),
        begins: secret.begins.clone(),
        rest: secret.rest.clone(),
    }
}

/// TCP ports that a provider's programs may reach: the web's, and those that its list names.
pub fn egress_ports(provider: &Provider) -> Vec<u16> {
    let named =
        provider.egress.allow.iter().filter_map(|host| host.rsplit_once(':')?.1.parse().ok());
    let ports: BTreeSet<u16> = named.chain([80, 443]).collect();
    ports.into_iter().collect()
}

/// A failure of the link as a reason: what the guest did wrong, or that the link is gone, which may
/// only be the echo of a machine that is.
pub fn link_failed(error: LinkError) -> EndReason {
    use yamux::ConnectionError::{Decode, TooManyStreams};
    let cause = chain(&error);
    match error {
        LinkError::Preamble(_)
        | LinkError::Message(_)
        | LinkError::Kind(_)
        | LinkError::Mux(Decode(_) | TooManyStreams) => EndReason::GuestBrokeProtocol { cause },
        LinkError::Io(_) | LinkError::Mux(_) | LinkError::Silent { .. } | LinkError::Closed => {
            EndReason::GuestLinkFailed { cause }
        }
    }
}

/// What the guest did wrong, in words.
pub fn violation(cause: &str) -> EndReason {
    EndReason::GuestBrokeProtocol { cause: cause.to_owned() }
}

/// A failure of the link in words.
pub fn broken(cause: &str) -> EndReason {
    EndReason::GuestLinkFailed { cause: cause.to_owned() }
}

#[cfg(test)]
mod tests {
    use anteroom_guest_link::{Side, connect};

    use super::*;

    #[tokio::test]
    async fn a_guest_that_is_gone_while_a_file_is_put_in_place_failed_as_a_guest() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let (host, guest) = tokio::net::UnixStream::pair().unwrap();
                let (opener, _, drive) = connect(host, Side::Host);
                tokio::task::spawn_local(drive);
                drop(guest);
                let file = InjectedFile {
                    path: "~/.netrc".into(),
                    owner: "person".into(),
                    mode: 0o600,
                    content: "x".into(),
                };
                let reason = inject(&opener, &file).await.unwrap_err();
                assert_eq!(reason.code(), "guest_link_failed");
                assert!(reason.to_string().contains("~/.netrc"), "{reason}");
            })
            .await;
    }
}
