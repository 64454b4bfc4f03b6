//! The questions that a provider file has answers for: when an answer is typed, and whether it was
//! taken.
//!
//! Many tools change their terminal's mode after they printed a question, and throw away what was
//! typed until then (`TCSAFLUSH`, termios(3)). So an answer waits until the screen is still, and is
//! typed once more where the question stands on as if nobody had answered. One that comes onto the
//! screen beside it is another question, and answered as often as the provider file says.

use std::time::{Duration, Instant};

use super::rule::{Rule, Span, at_rest, line_at, stands_on};

/// How many times the stillness before an answer its question has to stand on afterwards, until it is
/// answered once more.
pub const AGAIN: u32 = 10;

/// How long a screen that never is still keeps an answer back: a clock or a spinner beside it.
pub const RESTLESS: Duration = Duration::from_secs(5);

/// What is typed, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typing {
    /// The line that asks.
    pub question: String,
    /// What is typed.
    pub keys: String,
    /// Whether it is typed once more.
    pub again: bool,
}

/// The answers of one way to sign in.
pub struct Answers {
    known: Vec<Known>,
    quiet: Duration,
}

struct Known {
    rule: Rule,
    keys: String,
    times: u32,
    again: bool,
    stage: Stage,
}

/// Where a question stands.
enum Stage {
    /// Not on the screen, or answered and gone.
    Over,
    /// It came onto the screen then.
    Came { at: Instant, gone: Option<Instant> },
    /// It was answered, or all of its answers were given before.
    Answered(Answered),
}

struct Answered {
    question: String,
    /// When last.
    at: Instant,
    /// What stood behind the question then.
    behind: String,
    /// What was typed at it.
    typed: String,
    /// Whether it may be typed once more.
    again: bool,
    /// When it left the screen, if it did.
    gone: Option<Instant>,
}

impl Answers {
    /// Of a way to sign in; an answer is typed when the screen was still for `quiet`.
    pub fn new(
        answers: &[anteroom_provider::PromptRule],
        quiet: Duration,
    ) -> Result<Self, regex::Error> {
        let known = answers.iter().map(|answer| {
            Ok(Known {
                rule: Rule::new(&answer.screen)?,
                keys: answer.keys.clone(),
                times: answer.times,
                again: answer.again,
                stage: Stage::Over,
            })
        });
        Ok(Self { known: known.collect::<Result<_, regex::Error>>()?, quiet })
    }

    /// The screen shows this now.
    pub fn see(&mut self, text: &str, now: Instant) {
        for known in &mut self.known {
            known.see(text, now, self.quiet);
        }
    }

    /// Whether a line is a question that an answer is known for.
    pub fn know(&self, line: &str) -> bool {
        self.known.iter().any(|known| known.rule.place(line).is_some())
    }

    /// The tool did something that the screen does not show: it took its answers.
    pub fn went_on(&mut self) {
        for known in &mut self.known {
            if matches!(known.stage, Stage::Answered(_)) {
                known.stage = Stage::Over;
            }
        }
    }

    /// When [`Answers::typing`] is to be asked next, after a screen that has changed at `changed`.
    pub fn due(&self, changed: Instant) -> Option<Instant> {
        self.known.iter().filter_map(|known| self.due_of(known, changed)).min()
    }

    /// What is to be typed now, one answer at a time: the tool reads the next one when it asks.
    pub fn typing(&mut self, text: &str, changed: Instant, now: Instant) -> Option<Typing> {
        let is_due = |known: &Known| self.due_of(known, changed).is_some_and(|due| due <= now);
        let due = self.known.iter().enumerate().filter(|(_, known)| is_due(known));
        let placed = due.filter_map(|(n, known)| Some((n, known.rule.place(text)?)));
        // Of several the lowest: what stands above it was asked before.
        let (n, place) = placed.max_by_key(|(_, place)| place.start)?;
        self.known[n].answer(text, place, now)
    }

    /// The question that was answered, once more where it may be, and stands on all the same.
    pub fn not_taken(&self) -> Option<&str> {
        self.known.iter().find_map(|known| match &known.stage {
            Stage::Answered(answered) if answered.gone.is_none() => {
                Some(answered.question.as_str())
            }
            _ => None,
        })
    }

    /// Whether an answer is still to be typed.
    pub fn pending(&self, changed: Instant) -> bool {
        self.due(changed).is_some()
    }

    fn due_of(&self, known: &Known, changed: Instant) -> Option<Instant> {
        match &known.stage {
            Stage::Came { at, gone: None } => {
                Some((changed + self.quiet).min(*at + self.quiet + RESTLESS))
            }
            Stage::Answered(Answered { at, again: true, gone: None, .. }) => {
                let stood = self.quiet * AGAIN;
                Some((changed.max(*at) + stood).min(*at + stood + RESTLESS))
            }
            _ => None,
        }
    }
}

impl Known {
    /// The screen shows this now.
    fn see(&mut self, text: &str, now: Instant, quiet: Duration) {
        let came = self.rule.came(text);
        let Some(place) = self.rule.place(text) else { return self.leaves(now) };
        let within = |gone: Option<Instant>, long| gone.is_some_and(|gone| now - gone <= long);
        let since = match &self.stage {
            // Drawn anew.
            Stage::Came { at, gone } if within(*gone, quiet) => *at,
            _ => now,
        };
        match &mut self.stage {
            _ if came.is_some() && self.times > 0 => {
                self.stage = Stage::Came { at: since, gone: None };
            }
            Stage::Answered(answered) if within(answered.gone, quiet * AGAIN) => {
                answered.gone = None;
                if !answered.stands(place, text) {
                    self.stage = Stage::Over;
                }
            }
            // Once more than it is answered.
            _ if came.is_some() => {
                self.stage = Stage::Answered(Answered::new(place, text, now, "", false));
            }
            Stage::Answered(answered) if !answered.stands(place, text) => self.stage = Stage::Over,
            _ => {}
        }
    }

    fn leaves(&mut self, now: Instant) {
        match &mut self.stage {
            Stage::Came { gone, .. } | Stage::Answered(Answered { gone, .. }) => {
                gone.get_or_insert(now);
            }
            Stage::Over => {}
        }
    }

    fn answer(&mut self, text: &str, place: Span, now: Instant) -> Option<Typing> {
        let keys = self.keys.clone();
        match &mut self.stage {
            Stage::Over => None,
            Stage::Came { .. } => {
                self.times = self.times.saturating_sub(1);
                let first = Answered::new(place, text, now, &keys, self.again);
                let question = first.question.clone();
                self.stage = Stage::Answered(first);
                Some(Typing { question, keys, again: false })
            }
            Stage::Answered(answered) => {
                (answered.at, answered.again) = (now, false);
                answered.typed = answered.typed.repeat(2);
                Some(Typing { question: answered.question.clone(), keys, again: true })
            }
        }
    }
}

impl Answered {
    fn new(place: Span, text: &str, at: Instant, keys: &str, again: bool) -> Self {
        Self {
            question: line_at(text, place.start),
            at,
            behind: at_rest(&text[place.end..]),
            typed: at_rest(&echoed(keys)),
            again,
            gone: None,
        }
    }

    /// Whether the question stands as it did, with nothing new behind it but the answer itself, which
    /// the terminal may have shown.
    fn stands(&self, place: Span, text: &str) -> bool {
        stands_on(&self.behind, &at_rest(&text[place.end..]), &self.typed)
    }
}

/// As a terminal shows keys that a program does not read yet (ECHO and ECHOCTL, termios(3)).
fn echoed(keys: &str) -> String {
    let mut shown = String::new();
    for key in keys.chars() {
        match key {
            '\r' | '\n' => shown.push('\n'),
            '\0'..='\x1f' => shown.extend(['^', char::from(key as u8 ^ 0x40)]),
            _ => shown.push(key),
        }
    }
    shown
}
