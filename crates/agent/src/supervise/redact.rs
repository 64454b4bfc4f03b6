//! Secrets in what programs print, replaced before a line leaves the guest: by the name before them,
//! or by the form that their issuers give them. What has neither is not recognised.

/// What stands in a secret's place.
pub const MARK: &str = "[redacted]";

/// Ends of names whose value is a secret, in lower case.
const NAMES: [&str; 13] = [
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
];

/// Words before a secret, with only space between.
const SCHEMES: [&str; 2] = ["bearer", "basic"];

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

/// The shortest value taken for a secret, in bytes: after a name, and by its form.
const AFTER_NAME: usize = 6;
const BY_FORM: usize = 20;

/// The line without what is recognised as a secret.
pub fn redact(line: &str) -> String {
    let mut clean = String::with_capacity(line.len());
    let mut expects = Expects::Nothing;
    let (mut rest, mut unexpected) = (line, false);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_ascii_alphanumeric() || "-_.~+/".contains(c);
        let in_word = is_word(first);
        let end = rest.find(|c| is_word(c) != in_word).unwrap_or(rest.len());
        let (part, after) = rest.split_at(end);
        rest = after;
        if !in_word {
            if expects == Expects::Assignment && part.contains([':', '=']) {
                expects = Expects::Value;
            }
            clean.push_str(part);
            continue;
        }
        let by_name = expects == Expects::Value && part.len() >= AFTER_NAME;
        let by_form = part.len() >= BY_FORM && FORMS.iter().any(|form| part.starts_with(form));
        let lower = part.to_ascii_lowercase();
        let after_unexpected = std::mem::replace(&mut unexpected, lower == "unexpected");
        if SCHEMES.contains(&lower.as_str()) {
            expects = Expects::Value;
            clean.push_str(part);
        } else if by_name || by_form {
            expects = Expects::Nothing;
            clean.push_str(MARK);
        } else {
            // A parser's token is none to keep, and /etc/passwd is a file.
            let names = NAMES.iter().any(|name| lower.ends_with(name))
                && !after_unexpected
                && !lower.contains('/');
            expects = if names { Expects::Assignment } else { Expects::Nothing };
            clean.push_str(part);
        }
    }
    clean
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
        ];
        for (line, clean) in cases {
            assert_eq!(redact(line), clean);
        }
    }
}
