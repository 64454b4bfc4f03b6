//! The end user's code: what counts as one, and when it is typed.
//!
//! One waits at a time, until the tool asks for it. After it was typed the next one waits until the
//! tool asks anew: many throw away what comes while they look at a code.

use std::time::{Duration, Instant};

use anteroom_provider::SignInMethod;
use regex::Regex;

use super::answers::{AGAIN, RESTLESS};
use super::rule::Rule;

/// The longest code taken, in bytes.
const MAX_CODE: usize = 4096;

/// How long the tool may still ask after a code was typed, until the end user is notified.
const NOT_TAKEN: Duration = Duration::from_secs(15);

/// Why a code is not typed: a sentence for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodeRefused {
    /// The method of this sign-in has none.
    #[error("this sign-in does not accept a code")]
    NotTaken,
    /// Nothing, too much, or what a terminal would take for keys.
    #[error("a code must be 1 to {MAX_CODE} bytes, without control or invisible characters")]
    Malformed,
    /// Not of the form that the provider file names.
    #[error("this is not the code that the tool asks for; copy the whole code from the last page")]
    WrongForm,
}

/// The codes of one sign-in.
pub struct Codes {
    /// What the screen shows when the tool takes one; nothing where it never does.
    prompt: Option<Rule>,
    form: Option<Regex>,
    quiet: Duration,
    /// When the tool asked, while it stands there.
    asked: Option<Instant>,
    /// The code that is to be typed, and when it was brought.
    waiting: Option<(String, Instant)>,
    /// The last that was typed, unless the tool has asked anew since.
    typed: Option<Typed>,
}

struct Typed {
    at: Instant,
    /// The line that the cursor waited in, until it was checked whether the code was taken.
    line: Option<String>,
}

impl Codes {
    /// Of a way to sign in.
    pub fn new(login: &SignInMethod) -> Result<Self, regex::Error> {
        let form = login.code_form.as_ref().map(|form| Regex::new(&format!("^(?:{form})$")));
        Ok(Self {
            prompt: login.code_prompt.as_deref().map(Rule::new).transpose()?,
            form: form.transpose()?,
            quiet: Duration::from_millis(login.quiet_ms),
            asked: None,
            waiting: None,
            typed: None,
        })
    }

    /// The screen shows this now.
    pub fn see(&mut self, text: &str, now: Instant) {
        let Some(prompt) = &mut self.prompt else { return };
        if prompt.came(text).is_some() {
            (self.asked, self.typed) = (Some(now), None);
        } else if prompt.place(text).is_none() {
            self.asked = None;
        }
    }

    /// When [`Codes::typing`] is to be asked next, after a screen that has changed at `changed`.
    pub fn due(&self, changed: Instant) -> Option<Instant> {
        let ((_, brought), asked) = (self.waiting.as_ref()?, self.asked?);
        Some(match &self.typed {
            None => (changed + self.quiet).min(asked.max(*brought) + self.quiet + RESTLESS),
            // Its question stood on: it is the next one's.
            Some(typed) => typed.at.max(changed) + self.quiet * AGAIN,
        })
    }

    /// The code that is to be typed now, in the line that the cursor waits in.
    pub fn typing(
        &mut self,
        line: Option<String>,
        changed: Instant,
        now: Instant,
    ) -> Option<String> {
        self.due(changed).filter(|due| *due <= now)?;
        self.typed = Some(Typed { at: now, line });
        self.waiting.take().map(|(code, _)| code)
    }

    /// When [`Codes::stands_on`] is to be asked next.
    pub fn look_at(&self) -> Option<Instant> {
        let typed = self.typed.as_ref().filter(|typed| typed.line.is_some())?;
        self.asked.map(|_| typed.at + NOT_TAKEN)
    }

    /// Whether the tool waits in the same line as if the code had not been typed; true once for each
    /// code. It is not typed again: it may have been taken, and most codes are valid once.
    pub fn stands_on(&mut self, line: Option<&str>, now: Instant) -> bool {
        let is_due = self.look_at().is_some_and(|at| at <= now);
        let typed_in = self.typed.as_mut().filter(|_| is_due).and_then(|typed| typed.line.take());
        typed_in.is_some() && typed_in.as_deref() == line
    }

    /// The end user enters a code. Returns whether it replaces another, which is not typed any more.
    ///
    /// # Errors
    /// When it is not a valid code, or this sign-in does not take one.
    pub fn bring(&mut self, code: &str, now: Instant) -> Result<bool, CodeRefused> {
        if self.prompt.is_none() {
            return Err(CodeRefused::NotTaken);
        }
        let code = code.trim();
        if code.is_empty() || code.len() > MAX_CODE || code.chars().any(is_no_sign) {
            return Err(CodeRefused::Malformed);
        }
        if self.form.as_ref().is_some_and(|form| !form.is_match(code)) {
            return Err(CodeRefused::WrongForm);
        }
        let before = self.waiting.replace((code.to_owned(), now));
        Ok(before.is_some_and(|(before, _)| before != code))
    }
}

/// What a terminal takes for keys, or what nobody sees and what turns the rest around: controls, formats
/// (Unicode's Cf) and ends of lines and paragraphs.
fn is_no_sign(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}'
                | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}'
        )
}
