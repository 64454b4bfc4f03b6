//! Secrets that the host typed into the CLI's terminal, which shows what is typed: they are kept out
//! of logs.

use std::cell::RefCell;
use std::rc::Rc;

/// What stands in a secret's place.
const MARK: &str = "[redacted]";

/// So many first characters of a secret are taken for it: a terminal may show it cut.
const BEGINNING: usize = 6;

/// Secrets that are kept; the oldest goes.
const MAX_SECRETS: usize = 32;

/// The secrets of a session. Cheap to clone.
#[derive(Clone, Default)]
pub struct Secrets(Rc<RefCell<Vec<String>>>);

impl Secrets {
    /// From now on this one is not logged.
    pub fn add(&self, secret: String) {
        let mut secrets = self.0.borrow_mut();
        if secrets.len() == MAX_SECRETS {
            secrets.remove(0);
        }
        secrets.push(secret);
    }

    /// The line without them.
    pub fn redact(&self, line: &str) -> String {
        let mut line = line.to_owned();
        for secret in self.0.borrow().iter().filter(|secret| !secret.is_empty()) {
            line = line.replace(secret.as_str(), MARK);
            let beginning: String = secret.chars().take(BEGINNING).collect();
            if let Some(at) = line.find(&beginning) {
                let after = line[at..].find(char::is_whitespace).map_or(line.len(), |n| at + n);
                line.replace_range(at..after, MARK);
            }
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_or_cut_they_are_not_there() {
        let secrets = Secrets::default();
        assert_eq!(secrets.redact("code > abcdefgh#123"), "code > abcdefgh#123");
        secrets.add("abcdefgh#123".into());
        assert_eq!(secrets.redact("code > abcdefgh#123 ok"), "code > [redacted] ok");
        assert_eq!(secrets.redact("code > abcdefg"), "code > [redacted]");
    }
}
