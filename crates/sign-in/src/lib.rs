//! A command-line tool's terminal, read as a person would: bytes become a screen ([`Terminal`]), and
//! a provider file's rules say what the screen means ([`RuleEngine`]). Pure.
//!
//! What a guest prints is hostile: the screen is bounded, sequences that never end are ended, and
//! what is shown to a person is drawn again from the screen's cells, so nothing that the tool sent
//! reaches another terminal as it came.
#![forbid(unsafe_code)]

mod question;
mod rule_engine;
mod screen;
mod urls;

pub use rule_engine::{Action, CodeRefused, Over, RuleEngine};
pub use screen::{Screen, Terminal};
