//! What the rule engine and the controller want, as outputs.

use std::time::Instant;

use anteroom_guest_protocol::{HostMessage, printable, printable_lines};
use anteroom_session::{CodeTaken, EndReason, Observation, Prompt, PromptReason};

use super::SignIn;
use crate::{Action, Command, End, Keys, Output, Over};

impl SignIn {
    /// Does what the provider file says.
    pub(super) fn act(&mut self, actions: Vec<Action>) -> Result<(), End> {
        for action in actions {
            let output = match action {
                Action::Type(keys) => Output::Type(Keys::Paced(keys)),
                Action::OpenSignInPage(url) => Output::Say(HostMessage::OpenSignInPage { url }),
                Action::Await(prompt) => {
                    self.guard.end_users_turn()?;
                    self.outputs.push(Output::Say(HostMessage::TurnBegins {}));
                    Output::Report(Observation::SignInAwaited { prompt: clean(prompt) })
                }
                Action::Answered { question, again } => {
                    let question = printable(&question);
                    Output::Report(Observation::QuestionAnswered { question, again })
                }
                Action::SignedIn => Output::Say(HostMessage::SignedIn {}),
                Action::CodeEntered => Output::Report(Observation::CodeEntered),
                Action::CodeReplaced => Output::Report(Observation::CodeReplaced),
                Action::Ignored(url) => {
                    Output::Report(Observation::AddressIgnored { url: printable(&url) })
                }
                Action::Notify(says) => Output::Report(Observation::EndUserNotified { says }),
                Action::End(over) => return Err(refused(over).into()),
            };
            self.outputs.push(output);
        }
        Ok(())
    }

    /// Does what the controller wants.
    pub(super) fn obey(&mut self, command: Command, now: Instant) -> Result<(), End> {
        match command {
            Command::StartTool => {
                if self.guard.start_tool(now) {
                    self.outputs.push(Output::Say(HostMessage::StartTool {}));
                }
            }
            Command::OpenSignInPage => {
                let url = self.rules.url().map(str::to_owned);
                self.outputs
                    .extend(url.map(|url| Output::Say(HostMessage::OpenSignInPage { url })));
            }
            Command::EnterCode { request, code } => self.enter_code(request, code, now)?,
            Command::AllowHost { request, host } => self.allow_host(request, &host),
            Command::AcknowledgeCredential => {
                self.outputs.push(Output::Say(HostMessage::AcknowledgeCredential {}));
                return Err(End::Done);
            }
            Command::Shutdown => return Err(End::Ordered),
        }
        Ok(())
    }

    fn enter_code(&mut self, request: u64, code: String, now: Instant) -> Result<(), End> {
        let actions = match self.rules.enter_code(&code, &self.terminal, now) {
            Ok(actions) => actions,
            Err(refused) => {
                self.outputs.push(Output::CodeAnswered { request, result: Err(refused) });
                return Ok(());
            }
        };
        let taken = CodeTaken {
            typed: actions.contains(&Action::CodeEntered),
            replaced: actions.contains(&Action::CodeReplaced),
        };
        // Before the terminal shows it.
        self.outputs.push(Output::Say(HostMessage::Secret { text: code }));
        self.outputs.push(Output::CodeAnswered { request, result: Ok(taken) });
        self.act(actions)
    }

    fn allow_host(&mut self, request: u64, host: &str) {
        let result = self.needed.allow(host).map(|(destination, reported)| {
            self.outputs.push(Output::Allow(destination.clone()));
            self.outputs.push(Output::Report(reported));
            destination
        });
        self.outputs.push(Output::HostAnswered { request, result });
    }
}

/// A guest's text for the end user, as callers may read it.
fn clean(prompt: Prompt) -> Prompt {
    match prompt {
        Prompt::Page { url, code } => Prompt::Page { url, code: code.map(|code| printable(&code)) },
        Prompt::Terminal { screen, reason } => Prompt::Terminal {
            screen: printable_lines(&screen),
            reason: match reason {
                PromptReason::Unknown => PromptReason::Unknown,
                PromptReason::AddressIgnored { url } => {
                    PromptReason::AddressIgnored { url: printable(&url) }
                }
                PromptReason::Answered { question } => {
                    PromptReason::Answered { question: printable(&question) }
                }
            },
        },
    }
}

/// The end of a sign-in by a screen of its CLI.
pub(super) fn refused(over: Over) -> EndReason {
    let Over { says, operator, line } = over;
    EndReason::SignInRefused { says, line: Some(printable(&line)), operator }
}
