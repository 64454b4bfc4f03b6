//! The end user's turn: with which page or question, and when a screen asks for it.

use std::time::{Duration, Instant};

use anteroom_session::{Method, Prompt, PromptReason};

use super::answers::RESTLESS;
use super::{Action, RuleEngine};
use crate::screen::Terminal;

/// Addresses of a screen that are reported as ignored.
const MAX_IGNORED: usize = 3;

/// How long a screen stands still at a question until it is the end user's to answer.
const QUESTION: Duration = Duration::from_secs(2);

impl RuleEngine {
    /// When the screen is to be looked at for a question to the end user.
    pub(super) fn look_at(&self, changed: Instant) -> Option<Instant> {
        let still = self.still_since()?;
        let is_new = self.page.is_some() && self.looked != Some(still);
        let at = still + QUESTION;
        // A clock beside a question never is still.
        let restless = self.stands_at.as_ref().map(|(_, since)| *since + QUESTION + RESTLESS);
        (is_new && !self.answers.pending(changed)).then(|| restless.map_or(at, |by| by.min(at)))
    }

    /// When the CLI wrote, or was typed to, last.
    pub(super) fn still_since(&self) -> Option<Instant> {
        self.changed.max(self.typed)
    }

    /// The end user's turn was a page, and the screen has changed since: whether it stands at a question
    /// now that is theirs to answer, or at none any more.
    pub(super) fn asked(&mut self, terminal: &Terminal, text: String) -> Option<Action> {
        let (page, shown) = self.page.as_mut()?;
        let is_known = |line: &String| self.prompts.iter().any(|prompt| prompt.is_match(line));
        let asks = terminal.question().filter(|line| !is_known(line));
        let stands = |line: &String| {
            terminal.lines().last().is_some_and(|last| last.trim().starts_with(line.as_str()))
        };
        // Beside an address that opened by itself, tools ask for what the end user need not do.
        let by_themselves = self.method == Method::Browser;
        let is_unanswered = |line: &String| !by_themselves && !self.answers.know(line);
        match (asks, &self.question) {
            // The end user is answering it.
            (_, Some(question)) if stands(question) => None,
            (Some(line), Some(question)) if line.starts_with(question.as_str()) => None,
            (Some(question), _) if *shown != text || is_unanswered(&question) => {
                self.question = Some(question);
                let prompt = self.terminal_prompt(terminal, None);
                self.awaited = Some(prompt.clone());
                Some(Action::Await(prompt))
            }
            (None, Some(_)) => {
                self.question = None;
                *shown = text;
                self.awaited = Some(page.clone());
                Some(Action::Await(page.clone()))
            }
            _ => None,
        }
    }

    /// What leads the end user to the terminal; `ignored` is an address that came in vain.
    fn terminal_prompt(&self, terminal: &Terminal, ignored: Option<&str>) -> Prompt {
        let reason = match (self.answers.not_taken(), ignored) {
            (Some(question), _) => PromptReason::Answered { question: question.to_owned() },
            (None, Some(url)) => PromptReason::AddressIgnored { url: url.to_owned() },
            (None, None) => PromptReason::Unknown,
        };
        Prompt::Terminal { screen: terminal.lines(), reason }
    }

    /// The CLI has had its time to give an address. What its terminal shows becomes the end
    /// user's turn; nothing when it shows nothing.
    pub fn stuck(&mut self, terminal: &Terminal) -> Vec<Action> {
        if self.awaited.is_some() || terminal.lines().is_empty() {
            return Vec::new();
        }
        let shown = terminal.urls().into_iter().filter(|url| !self.url_pattern.is_match(url));
        let shown: Vec<String> = shown.take(MAX_IGNORED).collect();
        let ignored = self.ignored().or(shown.last().map(String::as_str));
        let prompt = self.terminal_prompt(terminal, ignored);
        self.awaited = Some(prompt.clone());
        shown.into_iter().map(Action::Ignored).chain([Action::Await(prompt)]).collect()
    }

    /// The end user's turn, if it has changed.
    pub(super) fn turn(&mut self, text: &str) -> Option<Action> {
        let url = self.url.clone()?;
        let code = match &self.code_pattern {
            None => None,
            Some(pattern) => Some(pattern.captures_iter(text).last()?.get(1)?.as_str().to_owned()),
        };
        let prompt = Prompt::Page { url, code };
        if self.page.as_ref().is_some_and(|(page, _)| *page == prompt) {
            return None;
        }
        self.page = Some((prompt.clone(), text.to_owned()));
        self.question = None;
        self.awaited = Some(prompt.clone());
        Some(Action::Await(prompt))
    }
}
