//! What is missing of a credential, in sentences.

use std::collections::BTreeMap;

/// Why a credential is not complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// A file is not there.
    File {
        /// Its path in the home, as it is declared.
        name: String,
    },
    /// It is there, and something is not right with its content.
    Content {
        /// Its path in the home.
        name: String,
        /// What, as it follows "exists, but": "has no /token".
        what: String,
    },
    /// A secret is not in the keyring.
    Secret {
        /// By which it is meant.
        attributes: BTreeMap<String, String>,
    },
}

impl Missing {
    /// Describes a CLI that exited with status 0 after `said`. Where else its secret is was not seen; if
    /// it reports an error, nobody need look for it.
    pub fn after_success(&self, said: Option<&str>) -> String {
        let (what, find_out) = self.what();
        let last_line = quoted(said);
        if said.is_some_and(anteroom_crash::is_error) {
            return format!("the tool exited with status 0, but {what}{last_line}");
        }
        format!(
            "the tool exited with status 0, but {what}{last_line}; find out {find_out}, and correct the provider file"
        )
    }

    /// What is missing, and what would help.
    fn what(&self) -> (String, &'static str) {
        const WHERE: &str = "where it keeps its credential";
        match self {
            Self::File { name } => (format!("~/{name} does not exist"), WHERE),
            Self::Secret { attributes } => {
                let pairs: Vec<_> =
                    attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
                let what = format!(
                    "the keyring's files hold no secret with {} that can be read without a password (secrets in the collection `session` are never written to a file)",
                    pairs.join(", ")
                );
                (what, WHERE)
            }
            Self::Content { name, what } => {
                (format!("~/{name} exists, but {what}"), "what it writes to which file")
            }
        }
    }
}

/// What a tool said, at the end of a sentence on it.
pub fn quoted(said: Option<&str>) -> String {
    said.map_or_else(String::new, |said| format!("; it said \"{said}\""))
}
