//! The sockets and the timer of a sign-in: what comes is handed to its machine, and what the machine
//! wants is carried out ([`super::carry_out`]).

use std::cell::Cell;
use std::convert::Infallible;
use std::rc::Rc;

use anteroom_guest_link::chain;
use anteroom_guest_protocol::LogStream;
use anteroom_guest_session::{Conversation, GuestMessages, GuestSender, broken};
use anteroom_media::service::MediaEvent;
use anteroom_runner_protocol::{RunnerCommand, RunnerMessage};
use anteroom_session::EndReason;
use anteroom_sign_in::{Command, Contact, Context, End, Input, Output, SignIn};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::super::egress_gate::{self, SessionGate};
use super::super::terminal::TerminalLink;
use super::super::{channels, egress};
use super::early::EarlyCommands;
use super::picture::Picture;
use super::{Begun, Session, step};

/// A sign-in's machine and what it acts on.
pub(super) struct Attended<'a, 'b> {
    pub(super) session: &'a mut Session<'b>,
    pub(super) sign_in: SignIn,
    pub(super) guest: GuestSender,
    pub(super) terminal: TerminalLink,
    pub(super) picture: Picture,
    pub(super) gate: Rc<SessionGate>,
    /// Whether connections are let out at all.
    pub(super) is_egress_open: Rc<Cell<bool>>,
}

/// What comes, beside the controller's commands and the terminal.
struct Sources {
    messages: GuestMessages,
    contacts: mpsc::Receiver<Result<Contact, EndReason>>,
}

impl<'b> Session<'b> {
    /// Carries the sign-in on until something ends it.
    pub(super) async fn attend(
        &mut self,
        begun: Begun,
        early: EarlyCommands,
        commands: &mut mpsc::Receiver<RunnerCommand>,
    ) -> End {
        match self.begin(begun).await {
            Ok((mut attended, first, sources)) => {
                let Err(end) = attended.run(first, early, sources, commands).await;
                end
            }
            Err(reason) => reason.into(),
        }
    }

    /// Opens what the sign-in acts on, and makes its machine.
    async fn begin(
        &mut self,
        begun: Begun,
    ) -> Result<(Attended<'_, 'b>, Vec<Output>, Sources), EndReason> {
        let Begun { conversation, guest: unconnected, picture, channels } = begun;
        let Conversation { opener, incoming, messages, sender: guest, link: _ } = conversation;
        let config = &self.config.sign_in;
        let terminal = TerminalLink::open(&opener).await?;
        let (view, to_guest) = (terminal.view(), opener.clone());
        tokio::task::spawn_local(channels::serve(channels, view, to_guest));
        let gate = Rc::new(egress_gate::gate(self.config)?);
        let is_egress_open = Rc::new(Cell::new(true));
        let (reports, contacts) = mpsc::channel(64);
        let carried = egress::carry(incoming, gate.clone(), reports, is_egress_open.clone());
        tokio::task::spawn_local(carried);
        unconnected.connect(&opener).await?;
        step("boot.media_started")?;
        let context = Context {
            provider: &config.provider,
            login: config.login(),
            services: &self.config.sandbox.services,
            operator_name: &config.operator_name,
            explainer: self.explainer.clone(),
        };
        let (sign_in, first) = SignIn::begin(context, Instant::now().into_std())?;
        let attended =
            Attended { session: self, sign_in, guest, terminal, picture, gate, is_egress_open };
        Ok((attended, first, Sources { messages, contacts }))
    }
}

impl Attended<'_, '_> {
    async fn run(
        &mut self,
        first: Vec<Output>,
        early: EarlyCommands,
        mut from: Sources,
        commands: &mut mpsc::Receiver<RunnerCommand>,
    ) -> Result<Infallible, End> {
        self.carry_out(first).await?;
        for command in early {
            self.obey(command).await?;
        }
        loop {
            let (deadline, waits) =
                (self.sign_in.next_deadline(), self.sign_in.waits_for_terminal());
            tokio::select! {
                message = from.messages.next(), if !waits => {
                    let message = message?;
                    self.guest.answer_heartbeat(&message).await?;
                    self.take(Input::Guest(message)).await?;
                }
                input = terminal_or_time(&mut self.terminal, deadline) => self.take(input).await?,
                command = commands.recv() => {
                    self.obey(command.unwrap_or(RunnerCommand::Shutdown {})).await?;
                }
                Some(contact) = from.contacts.recv() => {
                    self.take(Input::Contact(contact?)).await?;
                }
                Some(event) = self.picture.events.recv() => self.media_changed(event).await?,
            }
        }
    }

    /// Has the machine take what came.
    async fn take(&mut self, input: Input) -> Result<(), End> {
        let is_drawn = matches!(input, Input::Terminal(_));
        let outputs = self.sign_in.handle(input, Instant::now().into_std());
        if is_drawn {
            self.terminal.show(self.sign_in.screen());
        }
        self.carry_out(outputs).await
    }

    /// Does what the controller wants: of the viewers' media here, the rest by the machine.
    async fn obey(&mut self, command: RunnerCommand) -> Result<(), End> {
        let Some(command) = self.picture.obey(command).await else { return Ok(()) };
        let command = match command {
            RunnerCommand::Screenshot { request } => {
                self.screenshot(request);
                return Ok(());
            }
            RunnerCommand::StartTool {} => Command::StartTool,
            RunnerCommand::OpenSignInPage {} => Command::OpenSignInPage,
            RunnerCommand::EnterCode { request, code } => Command::EnterCode { request, code },
            RunnerCommand::AllowHost { request, host } => Command::AllowHost { request, host },
            RunnerCommand::AcknowledgeCredential {} => Command::AcknowledgeCredential,
            RunnerCommand::Shutdown {} => Command::Shutdown,
            // Obeyed above, and a session begins once.
            RunnerCommand::RevokeBefore { .. }
            | RunnerCommand::Dismiss { .. }
            | RunnerCommand::Offer { .. }
            | RunnerCommand::Begin(_) => return Ok(()),
        };
        self.take(Input::Command(command)).await
    }

    /// Answers with a picture of the desktop, which the sign-in does not wait for.
    fn screenshot(&self, request: u64) {
        let (media, sender) = (self.picture.media.clone(), self.session.sender.clone());
        tokio::task::spawn_local(async move {
            let png = media.screenshot().await;
            let result = png.map(|bytes| STANDARD.encode(bytes)).map_err(|error| chain(&error));
            sender.say(RunnerMessage::Screenshot { request, result }).await;
        });
    }

    async fn media_changed(&mut self, event: MediaEvent) -> Result<(), End> {
        match self.picture.report(event).await {
            Some(MediaEvent::FrameSourceFailed(error)) => Err(broken(&chain(&error)).into()),
            Some(MediaEvent::EncoderFailed(error)) => {
                self.session.write_log("runner", LogStream::Stderr, &chain(&error));
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What the terminal brings, or the deadline: what was written comes before what waits for nothing to
/// be written. May be dropped and called again.
async fn terminal_or_time(
    terminal: &mut TerminalLink,
    deadline: Option<std::time::Instant>,
) -> Input {
    let time = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        input = terminal.next() => input,
        () = time => Input::Time,
    }
}
