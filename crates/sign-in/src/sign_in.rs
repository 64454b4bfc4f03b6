//! The machine of one sign-in.

mod act;
mod guest;
mod time;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anteroom_crash::Explainer;
use anteroom_guest_protocol::{Desktop, HostMessage, ServiceEvent, ServiceSpec, printable};
use anteroom_provider::{Provider, SignInMethod};
use anteroom_session::{EgressVerdict, EndReason, Method, Observation, SetupStep, Start};

use crate::needed::Needed;
use crate::pages::Pages;
use crate::unreached::Unreached;
use crate::{
    Action, Command, Contact, End, Input, Keys, Output, Over, ProtocolGuard, RuleEngine, Screen,
    Terminal,
};

/// From so many characters on, what a viewer types at once is pasted, and may be a secret.
const PASTED: usize = 6;

/// How long what a CLI has written may take to come: more than its pace takes for all that is kept.
const CATCH_UP: Duration = Duration::from_secs(10);

/// How long after its end a CLI's last output may come.
const LATE: Duration = Duration::from_millis(300);

/// One sign-in, from the start of its services to its end.
pub struct SignIn {
    phase: Phase,
    guard: ProtocolGuard,
    terminal: Terminal,
    /// Bytes of the terminal that were taken.
    taken: u64,
    /// Whether more may come from the terminal.
    is_terminal_open: bool,
    rules: RuleEngine,
    pages: Pages,
    needed: Needed,
    unreached: Unreached,
    explainer: Explainer,
    /// Services that the sign-in can do without.
    optional: BTreeSet<String>,
    has_keyring: bool,
    url_timeout: Duration,
    /// When the CLI must have given its address; absent before it starts.
    url_by: Option<Instant>,
    /// Whether a CLI that failed had written its credential.
    left_credential: bool,
    /// What this call of [`SignIn::handle`] wants done.
    outputs: Vec<Output>,
}

/// What a sign-in is made of.
pub struct Context<'a> {
    /// The CLI, its credential and its egress.
    pub provider: &'a Provider,
    /// How the end user signs in: one of the provider's ways.
    pub login: &'a SignInMethod,
    /// Services beside the sandbox's own.
    pub services: &'a [ServiceSpec],
    /// Who runs this Anteroom, as end users know them; may be empty.
    pub operator_name: &'a str,
    /// Explains the deaths of this guest.
    pub explainer: Explainer,
}

/// What the machine waits for.
enum Phase {
    /// Nothing in particular: everything is taken as it comes.
    Open,
    /// A credential is found. What the terminal shows by then is waited for, since it comes on a
    /// stream of its own and may say that the CLI failed.
    CatchingUp { until_bytes: u64, by: Instant, actions: Vec<Action> },
    /// The CLI has ended. What its terminal shows at last may come a moment later.
    LastOutput { event: ServiceEvent, over: Option<Over>, still_by: Instant, by: Instant },
    /// Nothing: it is over.
    Over,
}

/// Whether this way of signing in needs the desktop.
#[must_use]
pub fn desktop(method: Method) -> Desktop {
    match method {
        Method::Browser => Desktop::Used,
        Method::PasteCode | Method::DeviceCode => Desktop::OnDemand,
    }
}

impl SignIn {
    /// A sign-in whose services start `now`, and the first things to do for it.
    ///
    /// # Errors
    /// When a pattern of the provider's does not compile, which a parsed provider's do.
    pub fn begin(context: Context<'_>, now: Instant) -> Result<(Self, Vec<Output>), EndReason> {
        let unusable = |error: regex::Error| EndReason::SessionSetupFailed {
            step: SetupStep::CompilePatterns,
            cause: error.to_string(),
        };
        let Context { provider, login, services, operator_name, explainer } = context;
        let url_timeout = Duration::from_secs(login.url_timeout_seconds);
        let optional = services.iter().filter(|spec| !spec.needed).map(|spec| spec.name.clone());
        let mut sign_in = Self {
            phase: Phase::Open,
            guard: ProtocolGuard::new(url_timeout, desktop(login.method), now),
            terminal: Terminal::default(),
            taken: 0,
            is_terminal_open: true,
            rules: RuleEngine::new(provider, login).map_err(unusable)?,
            pages: Pages::new(provider).map_err(unusable)?,
            needed: Needed::new(provider, operator_name),
            unreached: Unreached::default(),
            explainer,
            optional: optional.collect(),
            has_keyring: !provider.credential.keyring.is_empty(),
            url_timeout,
            url_by: None,
            left_credential: false,
            outputs: Vec::new(),
        };
        let outputs = match login.start {
            Start::AtOnce => sign_in.handle(Input::Command(Command::StartTool), now),
            Start::WhenTheEndUserComes => Vec::new(),
        };
        Ok((sign_in, outputs))
    }

    /// Takes what came at `now`, and says what is to be done. After an end nothing is.
    pub fn handle(&mut self, input: Input, now: Instant) -> Vec<Output> {
        if matches!(self.phase, Phase::Over) {
            return Vec::new();
        }
        if let Err(end) = self.take(input, now) {
            self.phase = Phase::Over;
            self.outputs.push(Output::End(end));
        }
        std::mem::take(&mut self.outputs)
    }

    /// What the terminal shows.
    #[must_use]
    pub fn screen(&self) -> Screen {
        self.terminal.screen()
    }

    fn take(&mut self, input: Input, now: Instant) -> Result<(), End> {
        match input {
            Input::Guest(message) => {
                self.settle()?;
                let beside = self.guard.check(&message, now)?;
                self.heard(message, now)?;
                self.outputs.extend(beside.map(Output::Report));
            }
            Input::Terminal(bytes) => self.wrote(&bytes, now)?,
            Input::TerminalClosed => {
                self.is_terminal_open = false;
                self.settle()?;
            }
            Input::Typed(text) => self.typed(text),
            Input::Command(command) => self.obey(command, now)?,
            Input::Contact(contact) => self.contacted(contact),
            Input::Time => self.time_passed(now)?,
        }
        Ok(())
    }

    /// The CLI wrote this.
    fn wrote(&mut self, bytes: &[u8], now: Instant) -> Result<(), End> {
        self.taken += bytes.len() as u64;
        self.terminal.feed(bytes);
        let answers = self.terminal.take_answers();
        if !answers.is_empty() {
            self.outputs.push(Output::Type(Keys::AtOnce(answers)));
        }
        let shown = self.rules.see(&self.terminal, now);
        match &mut self.phase {
            Phase::Open => return self.act(shown),
            Phase::CatchingUp { until_bytes, actions, .. } => {
                actions.extend(shown);
                if *until_bytes <= self.taken {
                    return self.settle();
                }
            }
            Phase::LastOutput { over, still_by, .. } => {
                *over = over.take().or(over_by(shown));
                *still_by = now + LATE;
            }
            Phase::Over => {}
        }
        Ok(())
    }

    /// A viewer typed this into the terminal.
    fn typed(&mut self, text: String) {
        if text.chars().filter(|c| !c.is_control()).count() >= PASTED {
            self.outputs.push(Output::Say(HostMessage::Secret { text: text.clone() }));
        }
        self.outputs.push(Output::Type(Keys::AtOnce(text)));
        self.report(Observation::EndUserActive);
    }

    fn contacted(&mut self, contact: Contact) {
        let needed = self.needed.contacted(&contact);
        let Contact { host, port, verdict, connections, bytes_up, bytes_down, detail } = contact;
        // A browser opens connections ahead of need and drops them unused: nothing was asked for.
        if !host.is_empty() || verdict != EgressVerdict::Failed {
            let (host, detail) = (printable(&host), detail.map(|detail| printable(&detail)));
            let news = self.unreached.news(&host, verdict, detail.as_deref());
            self.report(Observation::HostContacted {
                host,
                port,
                verdict,
                connections,
                bytes_up,
                bytes_down,
                detail,
            });
            self.report_all(news);
        }
        self.report_all(needed);
    }

    fn report(&mut self, observation: Observation) {
        self.outputs.push(Output::Report(observation));
    }

    fn report_all(&mut self, observations: impl IntoIterator<Item = Observation>) {
        self.outputs.extend(observations.into_iter().map(Output::Report));
    }
}

/// Why the sign-in is over, if it is.
fn over_by(actions: Vec<Action>) -> Option<Over> {
    actions.into_iter().find_map(|action| match action {
        Action::End(over) => Some(over),
        _ => None,
    })
}

#[cfg(test)]
mod tests;
