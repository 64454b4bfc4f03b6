//! Which values of a credential are secrets. Reports about it may print them later, above all the
//! answer of the tool's own status command.

use anteroom_guest_protocol::KeyringItem;
use base64::Engine;
use regex::Regex;
use serde_json::Value;

use super::complete::{Complete, text_of};
use super::watch::Watched;
use crate::redact::names_a_secret;

/// Bytes of a value that is taken for a secret by its form alone, and how often letters and digits must
/// take turns in it: words and versions have fewer turns, what is random has many.
const LIKE_A_SECRET: usize = 20;
const TURNS: usize = 4;

/// Values that are taken by name or form alone, at most: a file may hold very many, and what the
/// provider file asks for is to stay known.
const MAX_GUESSED: usize = 64;

/// What separates words in a text file.
const BETWEEN: [char; 16] =
    ['"', '\'', '`', '=', ':', ',', ';', '{', '}', '[', ']', '(', ')', '<', '>', '|'];

impl Watched {
    /// The secrets in what is there now, also where not all of it is.
    pub fn secrets(&self) -> Vec<String> {
        let mut values = Values::default();
        for file in &self.files {
            for found in file.look().unwrap_or_default() {
                let Some(text) = text_of(&found.content) else { continue };
                match &file.complete {
                    Complete::Json(pointers) => values.of_json(&text, pointers),
                    Complete::Text(patterns) => values.of_text(&text, patterns),
                    Complete::Binary => {}
                }
            }
        }
        for entry in self.keyring.look().unwrap_or_default() {
            values.of_keyring(&entry.content);
        }
        values.guessed.truncate(MAX_GUESSED);
        // Of too many the first are forgotten first.
        values.guessed.into_iter().chain(values.asked_for).collect()
    }
}

#[derive(Default)]
struct Values {
    /// What the provider file asks for.
    asked_for: Vec<String>,
    /// What has the name or the form of a secret.
    guessed: Vec<String>,
}

impl Values {
    fn of_json(&mut self, text: &str, pointers: &[String]) {
        let Ok(json) = serde_json::from_str::<Value>(text) else { return };
        let asked_for = pointers.iter().filter_map(|pointer| json.pointer(pointer)?.as_str());
        self.asked_for.extend(asked_for.map(str::to_owned));
        self.guess("", &json);
    }

    /// The strings in it that are secrets by their name or form.
    fn guess(&mut self, name: &str, value: &Value) {
        match value {
            Value::String(text) if names_a_secret(name) || is_like_a_secret(text) => {
                self.guessed.push(text.clone());
            }
            Value::Array(values) => values.iter().for_each(|value| self.guess(name, value)),
            Value::Object(fields) => {
                fields.iter().for_each(|(name, value)| self.guess(name, value))
            }
            _ => {}
        }
    }

    /// Where a pattern names something and what follows it, that is the secret: the last word of what it
    /// matches, whole. One that matches a whole line is of a file that has nothing else.
    fn of_text(&mut self, text: &str, patterns: &[Regex]) {
        let is_between = |c: char| c.is_whitespace() || BETWEEN.contains(&c);
        let after = |text: &str, what: &dyn Fn(char) -> bool| {
            text.char_indices().rfind(|(_, c)| what(*c)).map_or(0, |(at, c)| at + c.len_utf8())
        };
        for found in patterns.iter().filter_map(|pattern| pattern.find(text)) {
            let matched = found.as_str().trim_end_matches(is_between);
            let begins = after(&text[..found.start() + matched.len()], &is_between);
            let word = text[begins..].split(is_between).next().unwrap_or_default();
            let before = text.get(found.start()..begins).unwrap_or_default();
            let is_named = !before.trim_matches(is_between).is_empty();
            let line = text[after(&text[..begins], &|c| c == '\n')..].lines().next();
            if is_named || line.is_some_and(|line| line.trim() == word) {
                self.asked_for.push(word.to_owned());
            }
        }
        let secrets = text.split(is_between).filter(|word| is_like_a_secret(word));
        self.guessed.extend(secrets.map(str::to_owned));
    }

    /// All of a keyring's secret, or the values of one that is JSON.
    fn of_keyring(&mut self, entry: &[u8]) {
        let Ok(item) = serde_json::from_slice::<KeyringItem>(entry) else { return };
        let decoded = base64::engine::general_purpose::STANDARD.decode(item.secret_base64);
        let Ok(text) = String::from_utf8(decoded.unwrap_or_default()) else { return };
        let known = self.guessed.len();
        self.of_json(&text, &[]);
        if self.guessed.len() == known {
            self.asked_for.push(text);
        }
    }
}

/// Whether a value is random to look at: one word in which letters and digits take turns.
fn is_like_a_secret(value: &str) -> bool {
    let inner: Vec<bool> =
        value.bytes().filter(u8::is_ascii_alphanumeric).map(|b| b.is_ascii_digit()).collect();
    let turns = inner.windows(2).filter(|pair| pair[0] != pair[1]).count();
    let is_ordinary = is_date(value)
        || value.contains("://")
        || value.contains('@')
        || value.starts_with(['/', '~', '.']);
    value.len() >= LIKE_A_SECRET
        && value.bytes().all(|b| b.is_ascii_graphic())
        && !is_ordinary
        && turns >= TURNS
}

/// Whether a value begins as a time does in RFC 3339.
fn is_date(value: &str) -> bool {
    let bytes = value.as_bytes();
    bytes.len() > 10
        && bytes[..4].iter().all(u8::is_ascii_digit)
        && (bytes[4], bytes[7]) == (b'-', b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_secrets_and_names_addresses_and_scopes_are_none() {
        let mut values = Values::default();
        values.of_json(
            r#"{"t":"9f8e7d6c5b4a","name":"Ada Lovelace","email":"ada.of.2024.x1y2z3@example.com",
                "scope":"read write","plan":"claude-max-20x-subscription","refreshToken":"plainwords",
                "expires":"2026-11-28T04:45:13.123Z","page":"https://a1b2c3d4e5f6.example.com/",
                "more":[{"id":"a1b2c3d4e5f6a7b8c9d0"}],"n":12}"#,
            &["/t".to_owned()],
        );
        assert_eq!(values.asked_for, ["9f8e7d6c5b4a"]);
        values.guessed.sort();
        assert_eq!(values.guessed, ["a1b2c3d4e5f6a7b8c9d0", "plainwords"]);
    }

    #[test]
    fn of_a_text_what_a_pattern_names_is_one() {
        for (text, pattern, secret) in [
            (
                "a:\n    oauth_token: hunter22\n    user: ada\n",
                r"(?m)^\s+oauth_token: \S+",
                "hunter22",
            ),
            ("x=1\ntoken=swordfish\n", "(?m)^token=.", "swordfish"),
            ("swordfish\n", r"\S+", "swordfish"),
            ("swordfish", r"^sword", "swordfish"),
            ("token: \"swordfish\"", "token: \"[^\"]+\"", "swordfish"),
        ] {
            let mut values = Values::default();
            values.of_text(text, &[Regex::new(pattern).unwrap()]);
            assert_eq!(values.asked_for, [secret], "{pattern}");
        }
        let mut values = Values::default();
        let account =
            "// of this account\n{\"lastLoggedInUser\":{\"host\":\"https://github.com\"}}";
        values.of_text(account, &[Regex::new("\"lastLoggedInUser\"").unwrap()]);
        assert!(values.asked_for.is_empty() && values.guessed.is_empty(), "{:?}", values.asked_for);
    }

    #[test]
    fn a_keyring_s_secret_is_one_as_a_whole_or_by_its_fields() {
        let entry = |secret: &str| {
            let secret = base64::engine::general_purpose::STANDARD.encode(secret);
            let item = KeyringItem {
                attributes: std::collections::BTreeMap::new(),
                secret_base64: secret,
                content_type: "text/plain".to_owned(),
            };
            serde_json::to_vec(&item).unwrap()
        };
        let mut values = Values::default();
        values.of_keyring(&entry("correct horse"));
        values.of_keyring(&entry(r#"{"user":"ada","access_token":"staple"}"#));
        assert_eq!(
            (values.asked_for, values.guessed),
            (vec!["correct horse".into()], vec!["staple".into()])
        );
    }
}
