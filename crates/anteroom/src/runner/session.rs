//! The runner's life: boot, prepare, serve, end.

mod prepare;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use anteroom_api::CodeTaken;
use anteroom_crash::{Explainer, agent_failed};
use anteroom_fail_point::fail_point;
use anteroom_guest_link::LinkError;
use anteroom_guest_protocol::{
    GuestCpu, GuestMessage, HostMessage, LogStream, ServiceEvent, Transport, printable,
    printable_lines, service_name,
};
use anteroom_media::service::{MediaEvent, MediaHandle};
use anteroom_session::{Asks, DriverKind, EgressVerdict, EndReason, Observation, Prompt, Start};
use anteroom_sign_in::{Action, Over};
use anteroom_vm::RunningVm;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::confine::confine;
use super::controller_link::{self, ControllerSender};
use super::guest::{self, GuestSender, broken, violation};
use super::needed::Needed;
use super::protocol_guard::ProtocolGuard;
use super::sandbox;
use super::service_log::ServiceLog;
use super::sign_in::{self, SignIn};
use super::unreached::Unreached;
use super::{Sockets, channels, egress, media};
use crate::clock::now;
use crate::runner_protocol::{OfferAnswer, RunnerCommand, RunnerConfig, RunnerMessage};
use prepare::Prepared;

/// How long the guest may take to power off once told, before it is killed.
const POWER_OFF: Duration = Duration::from_secs(5);

/// Commands that may wait for the guest to be prepared.
const MAX_EARLY: usize = 8;

/// Runs the session that the controller describes; returns when nothing of it is left.
pub async fn run(sockets: Sockets) -> Result<()> {
    let Sockets { control, media, channels } = sockets;
    let (config, mut commands, sender, writing) = controller_link::open(control).await?;
    fail_point("runner.configured").context("reading what the session is to be failed")?;
    match sandbox::boot(&config.sandbox).await {
        Ok(mut sandbox) => {
            let ended = serve(
                &config,
                &mut sandbox.vm,
                Viewers { media, channels },
                &mut commands,
                &sender,
            )
            .await;
            end_sandbox(&config, &mut sandbox.vm).await;
            sender.last_figures().await;
            match ended {
                Ended::Failed(reason) => sender.failed(reason).await,
                Ended::Done => sender.observed(Observation::GuestPoweredOff).await,
                Ended::Reported => {}
            }
        }
        Err(reason) => sender.failed(reason).await,
    }
    fail_point("teardown.sandbox_ended").context("ending the room failed")?;
    drop(sender);
    writing.finished().await;
    Ok(())
}

/// A VM is killed; an agent on the host first gets the time to end what it started there.
async fn end_sandbox(config: &RunnerConfig, vm: &mut RunningVm) {
    match config.sandbox.driver.kind() {
        DriverKind::Host => {
            vm.terminate();
            let _ = tokio::time::timeout(POWER_OFF, vm.wait()).await;
        }
        DriverKind::Qemu => {}
    }
    vm.kill().await;
}

/// How a session ended, from the runner's side.
enum Ended {
    /// By a failure.
    Failed(EndReason),
    /// The credential is stored, the guest has been told.
    Done,
    /// The controller said so, or is gone.
    Reported,
}

/// Sockets of the viewers' media.
struct Viewers {
    media: std::os::unix::net::UnixDatagram,
    channels: std::os::unix::net::UnixStream,
}

async fn serve(
    config: &RunnerConfig,
    vm: &mut RunningVm,
    viewers: Viewers,
    commands: &mut mpsc::Receiver<RunnerCommand>,
    sender: &ControllerSender,
) -> Ended {
    let log = match ServiceLog::create(&config.sandbox.log_dir) {
        Ok(log) => log,
        Err(error) => {
            let cause = format!(
                "creating {}/services.log failed: {error}",
                config.sandbox.log_dir.display()
            );
            return Ended::Failed(EndReason::VmNotStarted { cause });
        }
    };
    // Nothing was awaited since the VM was started: nothing of it has been read.
    let confined = match confine(&config.sandbox.confinement, vm) {
        Ok(confined) => confined,
        Err(error) => {
            return Ended::Failed(EndReason::VmNotStarted { cause: format!("{error:#}") });
        }
    };
    let driver = config.sandbox.driver.kind();
    let accelerator = vm.confirmed_accelerator().await;
    sender.observed(Observation::VmStarted { driver, accelerator, pid: vm.pid }).await;
    // A room that is gone already is told of below, as what it ended by.
    if let Some(confined) = confined {
        sender.observed(Observation::Confined(Box::new(confined))).await;
    }
    let link = vm.take_link();
    let explainer =
        Explainer::new(&sandbox::processor(&config.sandbox.driver), &GuestCpu::default());
    let mut session = Session { config, sender, log, link: None, explainer, needed: None };
    // The VM's own end is the most telling of all ends, so it is looked at first.
    tokio::select! {
        biased;
        end = vm.end_or_stop() => Ended::Failed(sandbox::end_reason(vm, end)),
        ended = session.run(link, viewers, commands) => match ended {
            // What the link says last may only be the echo of a VM that is gone.
            Ended::Failed(reason @ EndReason::GuestLinkFailed { .. }) => {
                match tokio::time::timeout(Duration::from_millis(500), vm.wait()).await {
                    Ok(exit) => Ended::Failed(sandbox::exit_reason(vm, exit)),
                    Err(_) => {
                        session.write_vm_state(vm).await;
                        Ended::Failed(reason)
                    }
                }
            }
            Ended::Failed(EndReason::AgentSilent { waited_ms, .. }) => {
                let run_state = session.write_vm_state(vm).await;
                let console_tail = vm.console_tail(sandbox::CONSOLE_TAIL);
                Ended::Failed(EndReason::AgentSilent { waited_ms, run_state, console_tail })
            }
            Ended::Done => {
                let _ = tokio::time::timeout(POWER_OFF, vm.wait()).await;
                Ended::Done
            }
            other => other,
        },
    }
}

/// What the session's steps share.
struct Session<'a> {
    config: &'a RunnerConfig,
    sender: &'a ControllerSender,
    log: ServiceLog,
    /// The multiplexer: its error says more than the ends of its streams.
    link: Option<JoinHandle<Result<(), LinkError>>>,
    /// Of no processor until the guest has told of its own.
    explainer: Explainer,
    /// Of the gate, once there is one.
    needed: Option<Needed>,
}

impl Session<'_> {
    async fn run(
        &mut self,
        link: sandbox::Link,
        viewers: Viewers,
        commands: &mut mpsc::Receiver<RunnerCommand>,
    ) -> Ended {
        let mut early = Vec::new();
        let prepared = tokio::select! {
            prepared = self.prepare(link) => prepared,
            () = shutdown(commands, &mut early) => return Ended::Reported,
        };
        let ended = match prepared {
            Ok(prepared) => self.attend(prepared, viewers, early, commands).await,
            Err(reason) => Ended::Failed(reason),
        };
        match ended {
            Ended::Failed(EndReason::GuestLinkFailed { cause }) => {
                Ended::Failed(self.link_failure(cause).await)
            }
            other => other,
        }
    }

    /// Why the link failed: the multiplexer's own error if it has one, else what was seen.
    async fn link_failure(&mut self, seen: String) -> EndReason {
        let finished = self.link.take().filter(JoinHandle::is_finished);
        match finished {
            Some(link) => match link.await {
                Ok(Err(error @ LinkError::Mux(_))) => guest::link_failed(error),
                _ => EndReason::GuestLinkFailed { cause: seen },
            },
            None => EndReason::GuestLinkFailed { cause: seen },
        }
    }

    /// Carries messages between guest, viewers, egress gate and controller until something ends.
    async fn attend(
        &mut self,
        prepared: Prepared,
        viewers: Viewers,
        early: Vec<RunnerCommand>,
        commands: &mut mpsc::Receiver<RunnerCommand>,
    ) -> Ended {
        let Prepared { opener, incoming, mut messages, guest: mut to_guest } = prepared;
        let login = self.config.sign_in.login();
        let url_timeout = Duration::from_secs(login.url_timeout_seconds);
        let mut guard =
            ProtocolGuard::new(url_timeout, sign_in::desktop(login.method), Instant::now());
        let mut sign_in = match SignIn::open(&opener, &self.config.sign_in.provider, login).await {
            Ok(sign_in) => sign_in,
            Err(reason) => return Ended::Failed(reason),
        };
        tokio::task::spawn_local(channels::serve(viewers.channels, sign_in.view(), opener.clone()));
        let (records, mut connections) = mpsc::channel(64);
        let gate = match sandbox::gate(&self.config.sign_in) {
            Ok(gate) => Rc::new(gate),
            Err(cause) => return Ended::Failed(EndReason::VmNotStarted { cause }),
        };
        self.needed = Some(Needed::new(
            gate.clone(),
            &self.config.sign_in.provider,
            &self.config.sign_in.operator_name,
        ));
        let mut unreached = Unreached::default();
        let is_open = Rc::new(Cell::new(true));
        tokio::task::spawn_local(egress::carry(incoming, gate, records, is_open.clone()));
        let (media, mut media_events) =
            match media::start(&self.config.sign_in, &opener, viewers.media, self.sender.clone())
                .await
            {
                Ok(started) => started,
                Err(reason) => return Ended::Failed(reason),
            };
        if let Err(reason) = step("boot.media_started") {
            return Ended::Failed(reason);
        }
        // Whoever came meanwhile is waited for no longer; nobody is where the tool starts at once.
        let at_once = (login.start == Start::AtOnce).then_some(RunnerCommand::StartTool {});
        for command in at_once.into_iter().chain(early) {
            let obeyed =
                self.obey(Some(command), &media, &mut to_guest, &mut sign_in, &mut guard).await;
            if let Obeyed::End(ended) = obeyed {
                return ended;
            }
        }
        loop {
            let step = tokio::select! {
                message = messages.next() => match message {
                    Ok(message) => {
                        if matches!(message, GuestMessage::CredentialFound { .. }) {
                            // What is asked of the credential now is asked without a network.
                            is_open.set(false);
                        }
                        self.listen(message, &mut guard, &mut to_guest, &media, &mut sign_in).await
                    }
                    Err(reason) => Err(reason),
                },
                reason = guard.late() => Err(reason),
                step = sign_in.next() => match step {
                    Ok(sign_in::Step::Actions(actions)) => Ok(actions),
                    Ok(sign_in::Step::Typed(text)) => {
                        self.typed(text, &mut to_guest, &sign_in).await.map(|()| Vec::new())
                    }
                    Err(reason) => Err(reason),
                },
                command = commands.recv() => {
                    let obeyed =
                        self.obey(command, &media, &mut to_guest, &mut sign_in, &mut guard);
                    match obeyed.await {
                        Obeyed::GoOn(actions) => Ok(actions),
                        Obeyed::End(ended) => return ended,
                    }
                }
                Some(record) = connections.recv() => match record {
                    Ok(contact) => {
                        let needed = self.needed.as_mut().map(|needed| needed.contacted(&contact));
                        let needed = needed.into_iter().flatten();
                        for reported in egress::reported(contact, &mut unreached).into_iter().chain(needed) {
                            self.sender.observed(reported).await;
                        }
                        Ok(Vec::new())
                    }
                    Err(reason) => Err(reason),
                },
                Some(event) = media_events.recv() => {
                    self.viewers_changed(event).await.map(|()| Vec::new())
                }
            };
            let done = match step {
                Ok(actions) => self.action(actions, &mut to_guest, &mut guard, &sign_in).await,
                Err(reason) => Err(reason),
            };
            if let Err(reason) = done {
                return Ended::Failed(reason);
            }
        }
    }

    /// Does what the provider file says.
    async fn action(
        &mut self,
        actions: Vec<Action>,
        to_guest: &mut GuestSender,
        guard: &mut ProtocolGuard,
        sign_in: &SignIn,
    ) -> Result<(), EndReason> {
        for action in actions {
            let observation = match action {
                Action::Type(keys) => {
                    sign_in.type_keys(keys);
                    continue;
                }
                Action::Open(url) => {
                    to_guest.say(&HostMessage::OpenPage { url }).await?;
                    continue;
                }
                Action::Await(prompt) => {
                    step("capture.sign_in_url")?;
                    guard.end_users_turn()?;
                    to_guest.say(&HostMessage::TurnBegins {}).await?;
                    Observation::SignInAwaited { prompt: clean(prompt) }
                }
                Action::Answered { question, again } => {
                    Observation::QuestionAnswered { question: printable(&question), again }
                }
                Action::SignedIn => {
                    to_guest.say(&HostMessage::SignedIn {}).await?;
                    continue;
                }
                Action::CodeEntered => Observation::CodeEntered,
                Action::CodeReplaced => Observation::CodeReplaced,
                Action::Ignored(url) => Observation::AddressIgnored { url: printable(&url) },
                Action::Say(says) => Observation::EndUserNotified { says },
                Action::End(over) => return Err(refused(over)),
            };
            self.sender.observed(observation).await;
        }
        Ok(())
    }

    /// What a viewer typed into the CLI's terminal.
    async fn typed(
        &mut self,
        text: String,
        to_guest: &mut GuestSender,
        sign_in: &SignIn,
    ) -> Result<(), EndReason> {
        if SignIn::may_be_secret(&text) {
            to_guest.say(&HostMessage::Secret { text: text.clone() }).await?;
        }
        sign_in.pass_keys(text);
        self.sender.observed(Observation::EndUserActive).await;
        Ok(())
    }

    /// Takes in what the guest says in its turn, and answers what asks for an answer.
    async fn listen(
        &mut self,
        message: GuestMessage,
        guard: &mut ProtocolGuard,
        to_guest: &mut GuestSender,
        media: &MediaHandle,
        sign_in: &mut SignIn,
    ) -> Result<Vec<Action>, EndReason> {
        let beside = guard.heard(&message, Instant::now())?;
        to_guest.answer_heartbeat(&message).await?;
        let actions = self.heard(message, media, sign_in).await?;
        if let Some(reported) = beside {
            self.sender.observed(reported).await;
        }
        Ok(actions)
    }

    async fn heard(
        &mut self,
        message: GuestMessage,
        media: &MediaHandle,
        sign_in: &mut SignIn,
    ) -> Result<Vec<Action>, EndReason> {
        let observation = match message {
            // Answered by who has the guest's ear.
            GuestMessage::Heartbeat { .. } => return Ok(Vec::new()),
            GuestMessage::Log { service, stream, line } => {
                self.write_log(&service, stream, &line);
                return Ok(Vec::new());
            }
            GuestMessage::Cursor(image) => {
                media.cursor(image).await;
                return Ok(Vec::new());
            }
            GuestMessage::Service { name, event } => {
                if name == "cli" && matches!(event, ServiceEvent::Started { .. }) {
                    sign_in.started();
                }
                let is_end = name == "cli" && matches!(event, ServiceEvent::Exited { .. });
                if is_end && let Some(over) = sign_in.last_words().await {
                    // What the provider file says of its last screen is of more use than its status.
                    return Err(refused(over));
                }
                if is_end && let Some(Action::Say(says)) = sign_in.wanted_keyring() {
                    self.sender.observed(Observation::EndUserNotified { says }).await;
                }
                let changed = self.service_changed(&service_name(&name), event).await;
                return changed.map(|()| Vec::new()).map_err(|reason| sign_in.explained(reason));
            }
            GuestMessage::SignInUrl { url } => return sign_in.opened(url),
            GuestMessage::PageTitle { title } => {
                let needed = self.needed.as_mut().map(|needed| needed.titled(&printable(&title)));
                for reported in needed.into_iter().flatten() {
                    self.sender.observed(reported).await;
                }
                return Ok(sign_in.titled(&printable(&title)).into_iter().collect());
            }
            GuestMessage::PageCallRefused { page, address } => {
                let reported = sign_in.call_refused(printable(&page), printable(&address));
                return Ok(reported.into_iter().collect());
            }
            GuestMessage::ConnectionBlocked { host, port, transport } => {
                let host = match transport {
                    Transport::Tcp => printable(&host),
                    Transport::Udp => format!("{}/udp", printable(&host)),
                };
                Observation::HostContacted {
                    host,
                    port,
                    verdict: EgressVerdict::RefusedByPolicy,
                    connections: 1,
                    bytes_up: 0,
                    bytes_down: 0,
                    detail: Some("no program may connect to it past the proxy".to_owned()),
                }
            }
            GuestMessage::CredentialVerified { said } => {
                Observation::CredentialVerified { said: printable(&said) }
            }
            GuestMessage::SignInPageOpened {} => Observation::SignInPageOpened,
            GuestMessage::CredentialFound { terminal_bytes } => {
                step("capture.found")?;
                // A tool that shows that it failed has failed, whatever file it left.
                let actions = sign_in.caught_up(terminal_bytes).await;
                if !actions.iter().any(|action| matches!(action, Action::End(_))) {
                    self.sender.observed(Observation::CredentialFound).await;
                }
                return Ok(actions);
            }
            GuestMessage::CredentialLeft {} => {
                sign_in.left_credential = true;
                return Ok(Vec::new());
            }
            GuestMessage::CredentialSealed { ciphertext_base64 } => {
                step("capture.sealed")?;
                Observation::CredentialSealed { ciphertext_base64 }
            }
            GuestMessage::CredentialRefused { cause } => {
                return Err(EndReason::CredentialRefused { cause: printable(&cause) });
            }
            GuestMessage::Fatal { cause } => {
                return Err(agent_failed(&cause));
            }
            other @ (GuestMessage::Hello { .. } | GuestMessage::Configured {}) => {
                return Err(violation(&format!("the guest sent {} twice", kind(&other))));
            }
        };
        self.sender.observed(observation).await;
        Ok(Vec::new())
    }

    /// A service's change, told; the end of one that is needed is the session's.
    async fn service_changed(&mut self, name: &str, event: ServiceEvent) -> Result<(), EndReason> {
        if let Some(observation) = self.explainer.of_service(name, self.needs(name), event)? {
            self.sender.observed(observation).await;
        }
        Ok(())
    }

    /// Whether the session cannot do without a service: each of the room's own, and what the recipe
    /// says of the others.
    fn needs(&self, name: &str) -> bool {
        self.config
            .sandbox
            .services
            .iter()
            .find(|spec| spec.name == name)
            .is_none_or(|spec| spec.needed)
    }

    async fn obey(
        &mut self,
        command: Option<RunnerCommand>,
        media: &MediaHandle,
        to_guest: &mut GuestSender,
        sign_in: &mut SignIn,
        guard: &mut ProtocolGuard,
    ) -> Obeyed {
        match command {
            Some(RunnerCommand::StartTool {}) => {
                if guard.start_tool(Instant::now())
                    && let Err(reason) = to_guest.say(&HostMessage::StartTool {}).await
                {
                    return Obeyed::End(Ended::Failed(reason));
                }
            }
            Some(RunnerCommand::RevokeBefore { oldest }) => media.revoke_before(oldest).await,
            Some(RunnerCommand::Dismiss { ice_ufrag }) => media.dismiss(ice_ufrag).await,
            Some(RunnerCommand::Offer { request, sdp, viewer }) => {
                let answered = media.offer(sdp, viewer).await;
                let result = answered
                    .map(|accepted| OfferAnswer {
                        sdp: accepted.answer_sdp,
                        ice_ufrag: accepted.ufrag,
                    })
                    .map_err(|error| anteroom_guest_link::chain(&error));
                self.sender.say(RunnerMessage::OfferAnswered { request, result }).await;
            }
            Some(RunnerCommand::Screenshot { request }) => {
                let (media, sender) = (media.clone(), self.sender.clone());
                tokio::task::spawn_local(async move {
                    let png = media
                        .screenshot()
                        .await
                        .map_err(|error| anteroom_guest_link::chain(&error));
                    let result = png.map(|bytes| STANDARD.encode(bytes));
                    sender.say(RunnerMessage::Screenshot { request, result }).await;
                });
            }
            Some(RunnerCommand::OpenSignInUrl {}) => {
                let actions = sign_in.url().map(|url| Action::Open(url.to_owned()));
                return Obeyed::GoOn(actions.into_iter().collect());
            }
            Some(RunnerCommand::EnterCode { request, code }) => {
                let entered = sign_in.enter_code(&code);
                if entered.is_ok() {
                    // Before the terminal shows it.
                    let secret = HostMessage::Secret { text: code };
                    if let Err(reason) = to_guest.say(&secret).await {
                        return Obeyed::End(Ended::Failed(reason));
                    }
                }
                let taken = |actions: &Vec<Action>| CodeTaken {
                    typed: actions.contains(&Action::CodeEntered),
                    replaced: actions.contains(&Action::CodeReplaced),
                };
                let result = entered.as_ref().map(taken).map_err(ToString::to_string);
                self.sender.say(RunnerMessage::CodeTaken { request, result }).await;
                return Obeyed::GoOn(entered.unwrap_or_default());
            }
            Some(RunnerCommand::AllowHost { request, host }) => {
                let allowed = self.needed.as_mut().map(|needed| needed.allow(&host));
                let (reported, result) = match allowed {
                    Some(Ok(reported)) => (reported, Ok(())),
                    Some(Err(sentence)) => (Vec::new(), Err(sentence)),
                    None => (Vec::new(), Err("the room is not ready yet".to_owned())),
                };
                for reported in reported {
                    self.sender.observed(reported).await;
                }
                self.sender.say(RunnerMessage::HostAllowed { request, result }).await;
            }
            Some(RunnerCommand::CredentialStored {}) => {
                if let Err(reason) = step("capture.acknowledged") {
                    return Obeyed::End(Ended::Failed(reason));
                }
                // If it does not arrive the guest is killed a moment later all the same.
                let _ = to_guest.say(&HostMessage::CredentialStored {}).await;
                return Obeyed::End(Ended::Done);
            }
            Some(RunnerCommand::Shutdown {}) | None => return Obeyed::End(Ended::Reported),
        }
        Obeyed::GoOn(Vec::new())
    }

    async fn viewers_changed(&mut self, event: MediaEvent) -> Result<(), EndReason> {
        let observation = match event {
            MediaEvent::ViewerJoined(viewer) => Observation::ViewerJoined { viewer },
            MediaEvent::ViewerLeft => Observation::ViewerLeft,
            MediaEvent::FirstFrameSent => Observation::FirstFrameSent,
            MediaEvent::FrameSourceFailed(error) => {
                return Err(broken(&anteroom_guest_link::chain(&error)));
            }
            MediaEvent::EncoderFailed(error) => {
                self.write_log("runner", LogStream::Stderr, &anteroom_guest_link::chain(&error));
                return Ok(());
            }
        };
        self.sender.observed(observation).await;
        Ok(())
    }

    /// Keeps where a machine stands that does not answer; says whether it runs at all.
    async fn write_vm_state(&mut self, vm: &RunningVm) -> Option<String> {
        let run_state = vm.run_state().await?;
        self.write_log("qemu", LogStream::Stdout, &format!("the machine is {run_state}"));
        for line in vm.registers().await {
            self.write_log("qemu", LogStream::Stdout, &line);
        }
        Some(run_state)
    }

    fn write_log(&mut self, service: &str, stream: LogStream, line: &str) {
        // A full disk must not end a sign-in; the log is evidence, not a part of it.
        let _ = self.log.line(now(), service, stream, line);
    }
}

enum Obeyed {
    /// When this is done.
    GoOn(Vec<Action>),
    End(Ended),
}

/// Waits for the end of the session by the controller's word; other commands have nothing to act on
/// yet and wait in `early`. What is too many is dropped, which its sender sees as a deadline.
async fn shutdown(commands: &mut mpsc::Receiver<RunnerCommand>, early: &mut Vec<RunnerCommand>) {
    loop {
        match commands.recv().await {
            Some(RunnerCommand::Shutdown {}) | None => return,
            Some(RunnerCommand::RevokeBefore { oldest }) => {
                // One says all that those before it said, and no offer may take its place.
                early.retain(|command| match command {
                    RunnerCommand::RevokeBefore { .. } => false,
                    RunnerCommand::Offer { viewer, .. } => !viewer.is_before(oldest),
                    _ => true,
                });
                early.insert(0, RunnerCommand::RevokeBefore { oldest });
            }
            // Said once a session, and nothing comes of it without.
            Some(RunnerCommand::StartTool {}) => early.insert(0, RunnerCommand::StartTool {}),
            Some(command) if early.len() < MAX_EARLY => early.push(command),
            Some(_) => {}
        }
    }
}

/// A guest's words for the person, as callers may read them.
fn clean(prompt: Prompt) -> Prompt {
    match prompt {
        Prompt::Page { url, code } => Prompt::Page { url, code: code.map(|code| printable(&code)) },
        Prompt::Terminal { screen, asks } => Prompt::Terminal {
            screen: printable_lines(&screen),
            asks: match asks {
                Asks::Unknown => Asks::Unknown,
                Asks::AddressIgnored { url } => Asks::AddressIgnored { url: printable(&url) },
                Asks::Answered { question } => Asks::Answered { question: printable(&question) },
            },
        },
    }
}

/// The end of a sign-in by a screen of its CLI.
fn refused(over: Over) -> EndReason {
    let Over { says, operator, line } = over;
    EndReason::SignInRefused { says, line: Some(printable(&line)), operator }
}

/// A fail point between two steps.
fn step(name: &str) -> Result<(), EndReason> {
    fail_point(name).map_err(|error| violation(&error.to_string()))
}

fn kind(message: &GuestMessage) -> String {
    let json = serde_json::to_value(message).unwrap_or_default();
    json["type"].as_str().unwrap_or("something").to_owned()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
