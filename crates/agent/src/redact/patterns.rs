//! Replaces secrets in what programs print before a line leaves the guest. A secret is recognised by
//! the name before it, by the form that its issuer gives it, as a private key between its first and its
//! last line, or as a password in an address; nothing else is.

use std::sync::LazyLock;

use regex::Regex;

/// What stands in a secret's place.
pub const MARK: &str = "[redacted]";

/// Ends of names whose value is a secret, in lower case.
const NAMES: [&str; 14] = [
    "token",
    "secret",
    "password",
    "passwd",
    "apikey",
    "api_key",
    "api-key",
    "cookie",
    "verifier",
    "credential",
    "access_key",
    "private_key",
    "passphrase",
    "authorization",
];

/// The end of a name whose value is a list of names with a secret each.
const COOKIE: &str = "cookie";

/// Words before a secret, with only space between.
const SCHEMES: [&str; 2] = ["bearer", "basic"];

/// Words that are schemes behind a name alone: `Authorization: token …`.
const SCHEMES_BEHIND: [&str; 4] = ["token", "apikey", "digest", "negotiate"];

/// How issuers begin their tokens.
const FORMS: [&str; 13] = [
    "sk-",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "xoxb-",
    "xoxp-",
    "ya29.",
    "AGE-SECRET-KEY-1",
    "eyJ",
];

/// How other issuers do, who go on with letters and digits alone.
const PLAIN_FORMS: [&str; 14] = [
    "hf_", "npm_", "dop_v1_", "shpat_", "gsk_", "r8_", "sk_live_", "rk_live_", "AKIA", "AIza",
    "ATATT", "figd_", "nvapi-", "1//0",
];

/// The shortest value taken for a secret, in bytes: after a name, and by its form.
const AFTER_NAME: usize = 6;
const BY_FORM: usize = 20;

/// What stands before and behind a private key (RFC 7468), and how it is written in text on one line.
const KEY_BEGINS: &str = r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY[A-Z ]*-----";
const KEY_ENDS: &str = "-----END ";

/// What stands in a row of a key, and above its first one.
const KEY_ROW: &str = r"^[A-Za-z0-9+/=]+$|^(?:Proc-Type|DEK-Info|Version|Comment|Hash): |^$";

/// The password of an address.
const PASSWORD: &str = r#"(://[^\s/?#:@"'<>]*:)[^\s/?#"'<>]+@"#;

#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static PATTERNS: LazyLock<[Regex; 3]> =
    LazyLock::new(|| [KEY_BEGINS, KEY_ROW, PASSWORD].map(|pattern| Regex::new(pattern).unwrap()));

/// Redacts one line after the other of a program.
#[derive(Debug, Default)]
pub struct Rows {
    /// The last line was of a private key.
    in_key: bool,
}

impl Rows {
    /// The next line without what is recognised as a secret.
    pub fn redact(&mut self, line: &str) -> String {
        let [begins, row, _] = &*PATTERNS;
        if let Some(found) = begins.find(line) {
            let (before, rest) = line.split_at(found.end());
            let end = rest.find(KEY_ENDS);
            self.in_key = end.is_none();
            let (key, after) = rest.split_at(end.unwrap_or(rest.len()));
            let mark = if is_blank(key) { "" } else { MARK };
            return format!("{}{mark}{}", redact(before), redact(after));
        }
        // In a frame, or as a list of strings.
        let inner = line.trim_matches(|c: char| !c.is_ascii_alphanumeric() && !"+/=".contains(c));
        self.in_key &= row.is_match(inner) && !line.contains(KEY_ENDS);
        match self.in_key && !inner.is_empty() {
            true => line.replacen(inner, MARK, 1),
            false => redact(line),
        }
    }
}

/// Whether nothing of a key is in this.
fn is_blank(text: &str) -> bool {
    !text.contains(|c: char| c.is_ascii_alphanumeric())
}

/// The line without what is recognised as a secret by itself.
pub fn redact(line: &str) -> String {
    redact_tokens(&PATTERNS[2].replace_all(line, format!("${{1}}{MARK}@")))
}

fn redact_tokens(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut expects = Expects::Nothing;
    let (mut rest, mut unexpected, mut cookies) = (line, false, false);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.~+/".contains(c);
        let in_word = is_word(first);
        let end = rest.find(|c| is_word(c) != in_word).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        rest = after;
        if !in_word {
            let assigns = part.contains([':', '=']);
            if assigns && (expects == Expects::Assignment || cookies) {
                expects = Expects::Value;
            }
            clean.push_str(part);
            continue;
        }
        let by_name = expects == Expects::Value && part.len() >= AFTER_NAME;
        let by_form = part.len() >= BY_FORM && has_form(part);
        let lower = part.to_ascii_lowercase();
        // The name of a cookie, and not its value.
        let is_name = cookies && rest.starts_with('=');
        let is_scheme = SCHEMES.contains(&lower.as_str())
            || (expects == Expects::Value && SCHEMES_BEHIND.contains(&lower.as_str()));
        let after_unexpected = std::mem::replace(&mut unexpected, lower == "unexpected");
        if is_scheme || is_name {
            expects = Expects::Value;
            clean.push_str(part);
        } else if by_name || by_form {
            expects = Expects::Nothing;
            clean.push_str(MARK);
        } else {
            // A parser's token is none to keep, and /etc/passwd is a file.
            let names = names_a_secret(&lower) && !after_unexpected && !lower.contains('/');
            expects = if names { Expects::Assignment } else { Expects::Nothing };
            cookies |= lower.ends_with(COOKIE);
            clean.push_str(part);
        }
    }
    clean
}

/// Whether the value of something with this name is a secret.
pub fn names_a_secret(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    NAMES.iter().any(|name| lower.ends_with(name))
}

fn has_form(part: &str) -> bool {
    let plain = |form: &str| {
        let rest = part.strip_prefix(form);
        rest.is_some_and(|rest| !rest.contains(['_', '.', '/', '~', '+']))
    };
    FORMS.iter().any(|form| part.starts_with(form)) || PLAIN_FORMS.into_iter().any(plain)
}

/// What the next word may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expects {
    Nothing,
    /// A secret, if an equals sign or a colon comes before it.
    Assignment,
    Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_go_and_what_explains_stays() {
        let cases = [
            (r#"{"access_token":"abcdef123","n":1}"#, r#"{"access_token":"[redacted]","n":1}"#),
            ("Authorization: Bearer abc.def-123", "Authorization: Bearer [redacted]"),
            ("export GH_TOKEN=whatever1", "export GH_TOKEN=[redacted]"),
            ("using sk-made-up-for-this-test-123 now", "using [redacted] now"),
            ("jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx.abc", "jwt [redacted]"),
            ("SyntaxError: Unexpected token '.'", "SyntaxError: Unexpected token '.'"),
            (
                "SyntaxError: Unexpected token: identifier",
                "SyntaxError: Unexpected token: identifier",
            ),
            ("password incorrect", "password incorrect"),
            ("exec: /etc/passwd: Permission denied", "exec: /etc/passwd: Permission denied"),
            ("AWS_SECRET_ACCESS_KEY=wJalrXUtnFEMI", "AWS_SECRET_ACCESS_KEY=[redacted]"),
            ("no offer", "no offer"),
            (
                "Set-Cookie: session=abcdef123456; sid=0123456789ab; Path=/",
                "Set-Cookie: session=[redacted]; sid=[redacted]; Path=/",
            ),
            ("Authorization: token abcdef123", "Authorization: token [redacted]"),
            ("Authorization: Token token=abcdef123", "Authorization: Token token=[redacted]"),
            ("cookies are off in this browser", "cookies are off in this browser"),
            ("saved hf_abcdefghijklmnopqrstuv now", "saved [redacted] now"),
            ("npm_config_user_agent_is_long is set", "npm_config_user_agent_is_long is set"),
            ("refresh 1//0gAbCdEfGhIjKlMnOpQr-St", "refresh [redacted]"),
        ];
        for (line, clean) in cases {
            assert_eq!(redact(line), clean);
        }
    }

    #[test]
    fn a_private_key_goes_from_its_first_to_its_last_line() {
        let said = |lines: &[&str]| -> Vec<String> {
            let mut rows = Rows::default();
            lines.iter().map(|line| rows.redact(line)).collect()
        };
        for (begins, ends) in [
            ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----"),
            ("key: -----BEGIN OPENSSH PRIVATE KEY-----", "-----END OPENSSH PRIVATE KEY-----"),
        ] {
            let lines = [begins, "MIIEvQIBADANBgkq+/", "│ hkiG9w0BAQ== │", ends, "Signed in"];
            assert_eq!(said(&lines), [begins, MARK, "│ [redacted] │", ends, "Signed in"]);
        }
        let whole = r#"{"k":"-----BEGIN RSA PRIVATE KEY-----\nMIIEvQIB\nADAN\n-----END RSA PRIVATE KEY-----\n"}"#;
        let clean =
            r#"{"k":"-----BEGIN RSA PRIVATE KEY-----[redacted]-----END RSA PRIVATE KEY-----\n"}"#;
        assert_eq!(said(&[whole, "after"]), [clean, "after"]);
        let expects = ["expected -----BEGIN PRIVATE KEY-----", "and found nothing", "Nothing"];
        assert_eq!(said(&expects), expects, "a word of an error is none");
    }

    #[test]
    fn a_password_in_an_address_goes() {
        for (line, clean) in [
            (
                "proxy http://ada:hunter2@proxy:3128/ fails",
                "proxy http://ada:[redacted]@proxy:3128/ fails",
            ),
            ("redis://:p@ss@db/0", "redis://:[redacted]@db/0"),
            ("https://host:8443/@scope/pkg", "https://host:8443/@scope/pkg"),
            ("https://ada@host/", "https://ada@host/"),
        ] {
            assert_eq!(redact(line), clean);
        }
    }
}
