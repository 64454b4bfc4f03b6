//! What a provider file's rules make of a screen.

use anteroom_provider::{Login, Provider, UrlSource};
use anteroom_session::{Method, Prompt};
use regex::Regex;

use crate::screen::Terminal;

/// The longest code taken, in bytes.
const MAX_CODE: usize = 4096;

/// Addresses of a screen that are told as ignored.
const MAX_IGNORED: usize = 3;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// Type this into the terminal.
    Type(String),
    /// Lead the desktop's browser there.
    Open(String),
    /// It is the person's turn.
    Await(Prompt),
    /// A question was answered; the line that asked.
    Answered(String),
    /// The person's code is typed.
    CodeEntered,
    /// An address that the CLI opened or shows is not the sign-in's, by the provider file.
    Ignored(String),
    /// Tell the person.
    Say(String),
    /// The sign-in is over; tell the person why.
    End(String),
}

/// A code that is not typed, and why: a sentence for who sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeRefused {
    /// The way of this sign-in has none.
    #[error("this sign-in takes no code")]
    NotTaken,
    /// Nothing, too much, or what a terminal would take for keys.
    #[error("a code has 1 to {MAX_CODE} bytes and no control characters")]
    Malformed,
    /// Not of the form that the provider file names.
    #[error("this is not the code that the tool asks for; copy all of what the last page shows")]
    WrongForm,
}

/// Follows one sign-in.
pub struct Director {
    method: Method,
    source: UrlSource,
    url_pattern: Regex,
    code_pattern: Option<Regex>,
    code_prompt: Option<Regex>,
    code_form: Option<Regex>,
    answers: Vec<(Rule, String, u32)>,
    screens: Vec<(Rule, String, bool)>,
    /// The CLI's last address.
    url: Option<String>,
    /// What the person was told last.
    awaited: Option<Prompt>,
    /// A code that waits for the CLI to take it.
    code: Option<String>,
}

/// A pattern that means something each time it comes onto the screen.
struct Rule {
    pattern: Regex,
    seen: usize,
}

impl Rule {
    fn new(pattern: &str) -> Result<Self, regex::Error> {
        Ok(Self { pattern: Regex::new(pattern)?, seen: 0 })
    }

    /// Where it is on the screen, if it is there once more than before.
    fn came(&mut self, text: &str) -> Option<usize> {
        let before = self.seen;
        self.seen = self.pattern.find_iter(text).count();
        let came = self.seen > before;
        self.pattern.find_iter(text).last().filter(|_| came).map(|hit| hit.start())
    }
}

impl Director {
    /// Follows `login` of `provider`.
    ///
    /// # Errors
    /// When a pattern does not compile, which a parsed provider's do.
    pub fn new(provider: &Provider, login: &Login) -> Result<Self, regex::Error> {
        let compiled = |pattern: &Option<String>| pattern.as_deref().map(Regex::new).transpose();
        let answers = login.answers.iter();
        let screens = provider.screens.iter();
        Ok(Self {
            method: login.method,
            source: login.url_source(),
            url_pattern: Regex::new(&format!("^(?:{})", login.url_pattern))?,
            code_pattern: compiled(&login.code_pattern)?,
            code_prompt: compiled(&login.code_prompt)?,
            code_form: match &login.code_form {
                Some(form) => Some(Regex::new(&format!("^(?:{form})$"))?),
                None => None,
            },
            answers: answers
                .map(|answer| Ok((Rule::new(&answer.screen)?, answer.keys.clone(), answer.times)))
                .collect::<Result<_, regex::Error>>()?,
            screens: screens
                .map(|screen| Ok((Rule::new(&screen.screen)?, screen.says.clone(), screen.ends)))
                .collect::<Result<_, regex::Error>>()?,
            url: None,
            awaited: None,
            code: None,
        })
    }

    /// What the person has to do, once it is their turn.
    #[must_use]
    pub fn awaited(&self) -> Option<&Prompt> {
        self.awaited.as_ref()
    }

    /// The screen has changed.
    pub fn see(&mut self, terminal: &Terminal) -> Vec<Act> {
        let text = terminal.text();
        let mut acts = Vec::new();
        for (rule, says, ends) in &mut self.screens {
            if rule.came(&text).is_some() {
                acts.push(if *ends { Act::End(says.clone()) } else { Act::Say(says.clone()) });
            }
        }
        for (rule, keys, times) in &mut self.answers {
            if let Some(at) = rule.came(&text)
                && *times > 0
            {
                *times -= 1;
                acts.push(Act::Answered(line_at(&text, at).to_owned()));
                acts.push(Act::Type(keys.clone()));
            }
        }
        if self.source == UrlSource::Terminal {
            let fits = |url: &String| self.url_pattern.is_match(url);
            if let Some(url) = terminal.urls().into_iter().rfind(fits)
                && self.url.as_ref() != Some(&url)
            {
                if self.method == Method::Browser {
                    acts.push(Act::Open(url.clone()));
                }
                self.url = Some(url);
            }
        }
        acts.extend(self.turn(&text));
        acts.extend(self.type_code(&text));
        acts
    }

    /// The CLI starts a browser with this address.
    pub fn opened(&mut self, url: String, terminal: &Terminal) -> Vec<Act> {
        if self.source != UrlSource::Opener {
            return Vec::new();
        }
        if !self.url_pattern.is_match(&url) {
            return vec![Act::Ignored(url)];
        }
        self.url = Some(url.clone());
        // Elsewhere than on the desktop the person opens it themselves.
        let mut acts = match self.method {
            Method::Browser => vec![Act::Open(url)],
            Method::PasteCode | Method::DeviceCode => Vec::new(),
        };
        acts.extend(self.turn(&terminal.text()));
        acts
    }

    /// The CLI has had its time to give an address. What its terminal shows becomes the person's
    /// turn; nothing when it shows nothing.
    pub fn stuck(&mut self, terminal: &Terminal) -> Vec<Act> {
        let screen = terminal.lines();
        if self.awaited.is_some() || screen.is_empty() {
            return Vec::new();
        }
        let prompt = Prompt::Terminal { screen };
        self.awaited = Some(prompt.clone());
        let shown = terminal.urls().into_iter().filter(|url| !self.url_pattern.is_match(url));
        shown.take(MAX_IGNORED).map(Act::Ignored).chain([Act::Await(prompt)]).collect()
    }

    /// The person brings a code.
    ///
    /// # Errors
    /// When it is not typed.
    pub fn enter_code(&mut self, code: &str, terminal: &Terminal) -> Result<Vec<Act>, CodeRefused> {
        if self.code_prompt.is_none() {
            return Err(CodeRefused::NotTaken);
        }
        let code = code.trim();
        if code.is_empty() || code.len() > MAX_CODE || code.chars().any(char::is_control) {
            return Err(CodeRefused::Malformed);
        }
        if self.code_form.as_ref().is_some_and(|form| !form.is_match(code)) {
            return Err(CodeRefused::WrongForm);
        }
        self.code = Some(code.to_owned());
        Ok(self.type_code(&terminal.text()))
    }

    /// Whether it is the person's turn, in new words.
    fn turn(&mut self, text: &str) -> Option<Act> {
        let url = self.url.clone()?;
        let code = match &self.code_pattern {
            None => None,
            Some(pattern) => Some(pattern.captures_iter(text).last()?.get(1)?.as_str().to_owned()),
        };
        let prompt = Prompt::Page { url, code };
        if self.awaited.as_ref() == Some(&prompt) {
            return None;
        }
        self.awaited = Some(prompt.clone());
        Some(Act::Await(prompt))
    }

    /// The code is typed when the CLI asks for it.
    fn type_code(&mut self, text: &str) -> Vec<Act> {
        let asks = self.code_prompt.as_ref().is_some_and(|prompt| prompt.is_match(text));
        match self.code.take_if(|_| asks) {
            Some(code) => vec![Act::Type(code), Act::Type("\r".to_owned()), Act::CodeEntered],
            None => Vec::new(),
        }
    }
}

/// The line that holds the byte at `at`.
fn line_at(text: &str, at: usize) -> &str {
    let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
    text[start..].lines().next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests;
