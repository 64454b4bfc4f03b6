//! What a provider file's rules make of a screen.
//!
//! Reports are made at once; what is typed waits until the screen is still ([`answers`]).

mod answers;
mod code;
mod rule;
mod turn;

use std::time::{Duration, Instant};

use anteroom_provider::{Provider, SignInMethod, UrlSource};
use anteroom_session::{Method, Prompt};
use regex::Regex;

use crate::screen::Terminal;
use answers::{Answers, Typing};
pub use code::CodeRefused;
use code::Codes;
use rule::{Rule, at_rest, line_at};

/// For the end user, where the tool still asks for a code after it was typed.
const CODE_NOT_TAKEN: &str = "The code was typed into the tool, and the tool still asks for it. If nothing \
                              happens, enter the code again, or a new one.";

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Type this into the terminal.
    Type(String),
    /// Lead the desktop's browser there.
    OpenSignInPage(String),
    /// It is the end user's turn.
    Await(Prompt),
    /// A question was answered.
    Answered {
        /// The line that asked.
        question: String,
        /// Whether for the second time, since the first answer was not taken.
        again: bool,
    },
    /// The end user's code is typed.
    CodeEntered,
    /// The end user's code replaces one that is not typed any more.
    CodeReplaced,
    /// An address that the CLI opened or shows is not the sign-in's, by the provider file.
    Ignored(String),
    /// Notify the end user.
    Notify(String),
    /// The screen shows that the CLI is signed in, by the provider file.
    SignedIn,
    /// The sign-in is over.
    End(Over),
}

/// A screen that says that the sign-in is over, as the provider file has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Over {
    /// The message for the end user.
    pub says: String,
    /// The message for the operator, if there is more to report.
    pub operator: Option<String>,
    /// The line of the screen.
    pub line: String,
}

/// Follows one sign-in.
pub struct RuleEngine {
    method: Method,
    source: UrlSource,
    url_pattern: Regex,
    code_pattern: Option<Regex>,
    /// Questions that are no news: where any way to sign in to this CLI takes its code.
    prompts: Vec<Regex>,
    answers: Answers,
    codes: Codes,
    screens: Vec<KnownScreen>,
    /// What the screen shows when the CLI is signed in, where the file says so.
    signed_in: Option<Regex>,
    /// When the CLI wrote last.
    changed: Option<Instant>,
    /// The CLI's last address.
    url: Option<String>,
    /// The last that it opened and that is not the sign-in's.
    ignored: Option<String>,
    /// What the end user was last asked to do.
    awaited: Option<Prompt>,
    /// The page that they were led to, and what the screen showed then.
    page: Option<(Prompt, String)>,
    /// The question that led them to the terminal after that.
    question: Option<String>,
    /// When something was last typed for the end user.
    typed: Option<Instant>,
    /// The question that the screen stands at, whatever moves beside it, and since when.
    stands_at: Option<(String, Instant)>,
    /// The moment that the screen is still since, once it was looked at for a question.
    looked: Option<Instant>,
}

struct KnownScreen {
    rule: Rule,
    says: String,
    operator: Option<String>,
    ends: bool,
}

impl RuleEngine {
    /// Follows `login` of `provider`.
    ///
    /// # Errors
    /// When a pattern does not compile, which a parsed provider's do.
    pub fn new(provider: &Provider, login: &SignInMethod) -> Result<Self, regex::Error> {
        let compiled = |pattern: &Option<String>| pattern.as_deref().map(Regex::new).transpose();
        let screens = provider.screens.iter().map(|screen| {
            Ok(KnownScreen {
                rule: Rule::new(&screen.screen)?,
                says: screen.says.clone(),
                operator: screen.operator.clone(),
                ends: screen.ends,
            })
        });
        let prompts = provider.login.iter().filter_map(|login| login.code_prompt.as_deref());
        let quiet = Duration::from_millis(login.quiet_ms);
        Ok(Self {
            method: login.method,
            source: login.url_source(),
            url_pattern: Regex::new(&format!("^(?:{})", login.url_pattern))?,
            code_pattern: compiled(&login.code_pattern)?,
            prompts: prompts.map(Regex::new).collect::<Result<_, _>>()?,
            answers: Answers::new(&login.answers, quiet)?,
            codes: Codes::new(login)?,
            screens: screens.collect::<Result<_, regex::Error>>()?,
            signed_in: compiled(&provider.credential.screen)?,
            changed: None,
            url: None,
            ignored: None,
            awaited: None,
            page: None,
            question: None,
            typed: None,
            stands_at: None,
            looked: None,
        })
    }

    /// What the end user has to do, once it is their turn.
    #[must_use]
    pub fn awaited(&self) -> Option<&Prompt> {
        self.awaited.as_ref()
    }

    /// The sign-in page, once the CLI has given its address.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.page.as_ref().and_then(|(prompt, _)| prompt.url())
    }

    /// The last address that the CLI opened and that is not the sign-in's, by the provider file.
    #[must_use]
    pub fn ignored(&self) -> Option<&str> {
        self.ignored.as_deref()
    }

    /// The CLI has written, and this is what its terminal shows.
    pub fn see(&mut self, terminal: &Terminal, now: Instant) -> Vec<Action> {
        let text = terminal.text();
        self.changed = Some(now);
        self.answers.see(&text, now);
        self.codes.see(&text, now);
        let asks = terminal.question().map(|line| at_rest(&line));
        if self.stands_at.as_ref().map(|(line, _)| line) != asks.as_ref() {
            self.stands_at = asks.map(|line| (line, now));
        }
        let mut actions = Vec::new();
        for screen in &mut self.screens {
            let Some(place) = screen.rule.came(&text) else { continue };
            let says = screen.says.clone();
            actions.push(match screen.ends {
                false => Action::Notify(says),
                true => Action::End(Over {
                    says,
                    operator: screen.operator.clone(),
                    line: line_at(&text, place.start),
                }),
            });
        }
        if self.signed_in.as_ref().is_some_and(|signed_in| signed_in.is_match(&text)) {
            self.signed_in = None;
            actions.push(Action::SignedIn);
        }
        if self.source == UrlSource::Terminal {
            let fits = |url: &String| self.url_pattern.is_match(url);
            if let Some(url) = terminal.urls().into_iter().rfind(fits)
                && self.url.as_ref() != Some(&url)
            {
                if self.method == Method::Browser {
                    actions.push(Action::OpenSignInPage(url.clone()));
                }
                self.url = Some(url);
            }
        }
        actions.extend(self.turn(&text));
        actions
    }

    /// When [`RuleEngine::rest`] is to be called next, if nothing is written until then.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let changed = self.changed?;
        let codes = [self.codes.due(changed), self.codes.look_at()];
        [self.answers.due(changed), self.look_at(changed)].into_iter().chain(codes).flatten().min()
    }

    /// Nothing was written for a while: what waited for that is done.
    pub fn rest(&mut self, terminal: &Terminal, now: Instant) -> Vec<Action> {
        let Some(changed) = self.changed else { return Vec::new() };
        let (text, question) = (terminal.text(), terminal.question());
        if let Some(code) = self.codes.typing(question.clone(), changed, now) {
            self.typed = Some(now);
            return vec![Action::Type(code), Action::Type("\r".to_owned()), Action::CodeEntered];
        }
        if let Some(Typing { question, keys, again }) = self.answers.typing(&text, changed, now) {
            self.typed = Some(now);
            return vec![Action::Answered { question, again }, Action::Type(keys)];
        }
        if self.codes.stands_on(question.as_deref(), now) {
            return vec![Action::Notify(CODE_NOT_TAKEN.to_owned())];
        }
        if self.look_at(changed).is_none_or(|at| now < at) {
            return Vec::new();
        }
        self.looked = self.still_since();
        self.asked(terminal, text).into_iter().collect()
    }

    /// The CLI starts a browser with this address.
    pub fn opened(&mut self, url: String, terminal: &Terminal) -> Vec<Action> {
        self.answers.went_on();
        if self.source != UrlSource::Opener {
            return Vec::new();
        }
        if !self.url_pattern.is_match(&url) {
            self.ignored = Some(url.clone());
            return vec![Action::Ignored(url)];
        }
        self.url = Some(url.clone());
        // Elsewhere than on the desktop the end user opens it themselves.
        let mut actions = match self.method {
            Method::Browser => vec![Action::OpenSignInPage(url)],
            Method::PasteCode | Method::DeviceCode => Vec::new(),
        };
        actions.extend(self.turn(&terminal.text()));
        actions
    }

    /// The end user enters a code. It is typed when the CLI asks for it and its screen is still; one that
    /// waited for that is not.
    ///
    /// # Errors
    /// When it is not typed.
    pub fn enter_code(
        &mut self,
        code: &str,
        terminal: &Terminal,
        now: Instant,
    ) -> Result<Vec<Action>, CodeRefused> {
        let replaced = self.codes.bring(code, now)?.then_some(Action::CodeReplaced);
        Ok(replaced.into_iter().chain(self.rest(terminal, now)).collect())
    }
}

#[cfg(test)]
mod tests;
