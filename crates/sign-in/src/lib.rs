//! What decides a sign-in, once its guest's services start. Pure: no sockets, tasks or clock.
//!
//! [`SignIn::handle`] takes what came and says what is to be done ([`Output`]); it is called again at
//! [`SignIn::next_deadline`]. Of its parts, the terminal's bytes become a screen ([`Terminal`]), a
//! provider file's rules say what the screen means ([`RuleEngine`]), and [`ProtocolGuard`] holds the
//! guest to its order and its deadlines.
//!
//! What a guest sends is hostile: the screen is bounded, sequences that never end are ended, and what
//! is shown to an end user is drawn again from the screen's cells, so nothing that the CLI sent
//! reaches another terminal as it came.
#![forbid(unsafe_code)]

mod message;
mod needed;
mod no_keyring;
mod pages;
mod protocol_guard;
mod question;
mod rule_engine;
mod screen;
mod sign_in;
mod unreached;
mod urls;

pub use message::{Command, Contact, End, Input, Keys, Output};
pub use protocol_guard::ProtocolGuard;
pub use rule_engine::{Action, CodeRefused, Over, RuleEngine};
pub use screen::{Screen, Terminal};
pub use sign_in::{Context, SignIn, desktop};
