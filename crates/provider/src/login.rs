//! The ways to sign in.

use std::collections::BTreeMap;

use anteroom_session::{Method, Start};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One way to sign in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SignInMethod {
    /// `browser`: in the desktop's browser, whose last page calls the CLI back inside the guest.
    /// `paste_code`: the end user opens the URL where they like and brings back the code that the last
    /// page shows. `device_code`: the end user opens the URL where they like and gives it the code that
    /// the CLI shows.
    #[schemars(with = "String", extend("enum" = ["browser", "paste_code", "device_code"]))]
    pub method: Method,
    /// Program and arguments; the program is looked up in the guest's PATH.
    pub command: Vec<String>,
    /// Extra environment variables.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// What the end user has to do, one sentence.
    pub instructions: String,
    /// When the CLI is started: `at_once`, or `when_the_end_user_comes`, for one that gives up by itself
    /// sooner than people come. Sandbox, desktop and browser are ready by then.
    #[serde(default, skip_serializing_if = "is_at_once")]
    #[schemars(with = "String", extend("enum" = ["at_once", "when_the_end_user_comes"]))]
    pub start: Start,
    /// How long the CLI may take from its start to give its sign-in URL (and code), in seconds.
    #[serde(default = "default_url_timeout")]
    pub url_timeout_seconds: u64,
    /// How long the CLI waits for the end user once it gave its URL, in seconds, where it gives up by
    /// itself: the end user sees this deadline where it comes before the session's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gives_up_after_seconds: Option<u64>,
    /// Where the CLI's sign-in URL comes from: `opener` (it starts a browser; the default for
    /// `browser`) or `terminal` (it prints it; the default for the others).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_from: Option<UrlSource>,
    /// A regular expression that the URL has to match, from its start.
    #[serde(default = "default_url_pattern")]
    pub url_pattern: String,
    /// For `device_code`: a regular expression on the terminal's screen whose first group is the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_pattern: Option<String>,
    /// For `paste_code`: a regular expression on the terminal's screen that shows when the CLI takes
    /// the code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_prompt: Option<String>,
    /// For `paste_code`: a regular expression for the whole code, to refuse anything else immediately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code_form: Option<String>,
    /// TCP ports on the guest's loopback that the CLI listens on for its callback.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub callback_ports: Vec<u16>,
    /// How long the screen has to be still before an answer or a code is typed, in milliseconds: many
    /// tools throw away what is typed before they read.
    #[serde(default = "default_quiet_ms")]
    pub quiet_ms: u64,
    /// What the CLI asks on the way, and how it is answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<PromptRule>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_at_once(start: &Start) -> bool {
    *start == Start::AtOnce
}

fn default_url_timeout() -> u64 {
    120
}

fn default_quiet_ms() -> u64 {
    400
}

fn default_url_pattern() -> String {
    "https?://".to_owned()
}

/// Where a sign-in URL comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UrlSource {
    /// The CLI starts a browser.
    Opener,
    /// The CLI prints it.
    Terminal,
}

impl SignInMethod {
    /// Where its URL comes from, said or usual.
    #[must_use]
    pub fn url_source(&self) -> UrlSource {
        self.url_from.unwrap_or(match self.method {
            Method::Browser => UrlSource::Opener,
            Method::PasteCode | Method::DeviceCode => UrlSource::Terminal,
        })
    }
}

/// A question of the CLI's.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PromptRule {
    /// A regular expression on the terminal's screen.
    pub screen: String,
    /// What is typed, `\r` for Enter and `\u001b[B` for the down key.
    #[serde(rename = "type")]
    pub keys: String,
    /// How often it is answered; each time the question has to have left the screen before.
    #[serde(default = "once")]
    pub times: u32,
    /// Whether it is typed once more where the question stands on for ten times `quiet_ms` as if nobody
    /// had answered; `false` for a tool that says nothing for long and reads what was typed meanwhile.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub again: bool,
}

fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_yes(value: &bool) -> bool {
    *value
}

fn once() -> u32 {
    1
}

/// A screen of the CLI that an end user needs a message about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KnownScreen {
    /// A regular expression on the terminal's screen.
    pub screen: String,
    /// The message to the end user: what it means, and what to do.
    pub says: String,
    /// The message to the operator: what they can do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Whether the sign-in has failed with it: then it is over, whatever files the CLI left.
    #[serde(default)]
    pub ends: bool,
}
