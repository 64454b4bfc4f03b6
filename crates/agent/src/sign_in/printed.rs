//! Credentials that a CLI prints and keeps in no file. They are read here, in the guest: what the
//! terminal shows from their beginning on is passed neither to the host nor to a log.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use anteroom_guest_protocol::{PrintedSpec, TERMINAL_COLUMNS, TERMINAL_ROWS};
use anyhow::{Context, Result};
use regex::Regex;
use tokio::sync::watch;

use crate::credential::bundle::BundledFile;

/// How long nothing is written after a secret has begun until it counts as whole.
pub const WHOLE: Duration = Duration::from_millis(500);

/// Rows that a secret goes over at most.
const MAX_ROWS: usize = 12;

/// How far from the last column a program may end a row that it goes on in the next one.
const MARGIN: usize = 8;

/// From so many columns on a row may be one that a program has broken for a narrower terminal.
const WIDE: usize = 60;

/// Borders that programs draw around what they say.
const BORDER: [char; 8] = ['│', '┃', '║', '|', '╎', '┆', '▌', '▐'];

/// What is looked for on the terminal. Cheap to clone.
#[derive(Clone)]
pub struct Printed {
    wanted: Rc<Vec<Wanted>>,
    screen: Rc<RefCell<vt100::Parser>>,
    found: watch::Sender<Vec<Option<String>>>,
}

struct Wanted {
    path: String,
    begins: String,
    whole: Regex,
}

impl Printed {
    /// What a provider names.
    pub fn new(specs: &[PrintedSpec]) -> Result<Self> {
        let wanted = specs.iter().map(|spec| {
            let begins = regex::escape(&spec.begins);
            let whole = Regex::new(&format!("^{begins}(?:{})", spec.rest)).with_context(|| {
                format!("the pattern for {} is not a valid regular expression", spec.path)
            })?;
            Ok(Wanted { path: spec.path.clone(), begins: spec.begins.clone(), whole })
        });
        let wanted: Vec<Wanted> = wanted.collect::<Result<_>>()?;
        let found = watch::channel(vec![None; wanted.len()]).0;
        let size = |n| std::num::NonZeroU16::new(n).unwrap_or(std::num::NonZeroU16::MIN);
        let screen = vt100::Parser::new(size(TERMINAL_ROWS), size(TERMINAL_COLUMNS), 0);
        Ok(Self { wanted: Rc::new(wanted), screen: Rc::new(RefCell::new(screen)), found })
    }

    /// Whether nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.wanted.is_empty()
    }

    /// The CLI wrote this; whether a secret has begun on the screen.
    pub fn see(&self, bytes: &[u8]) -> bool {
        if self.is_empty() {
            return false;
        }
        let mut screen = self.screen.borrow_mut();
        screen.process(bytes);
        let rows = rows(screen.screen());
        self.wanted
            .iter()
            .any(|wanted| (0..rows.len()).any(|n| wanted.begins_on(&rows, n).is_some()))
    }

    /// What is whole on the screen now; each secret is kept, the last one of its kind.
    pub fn take(&self) -> Vec<String> {
        let rows = rows(self.screen.borrow().screen());
        let secrets = self.wanted.iter().map(|wanted| wanted.on(&rows));
        let secrets: Vec<Option<String>> = secrets.collect();
        self.found.send_modify(|found| {
            for (found, now) in found.iter_mut().zip(&secrets) {
                if now.is_some() {
                    found.clone_from(now);
                }
            }
        });
        secrets.into_iter().flatten().collect()
    }

    /// Returns when each was found.
    pub async fn all_found(&self) {
        // Its sender lives as long as this.
        let _ = self.found.subscribe().wait_for(|found| found.iter().all(Option::is_some)).await;
    }

    /// Their files, or the path of the first that was not printed.
    pub fn files(&self) -> Result<Vec<BundledFile>, String> {
        let found = self.found.borrow();
        let files = self.wanted.iter().zip(found.iter()).map(|(wanted, secret)| {
            let secret = secret.as_ref().ok_or_else(|| wanted.path.clone())?;
            let content = format!("{secret}\n").into_bytes();
            Ok(BundledFile { path: wanted.path.clone(), mode: 0o600, content })
        });
        files.collect()
    }
}

impl Wanted {
    /// The lowest one on these rows.
    fn on(&self, rows: &[(String, bool)]) -> Option<String> {
        (0..rows.len()).rev().find_map(|n| {
            let (first, at) = self.begins_on(rows, n)?;
            self.from(&first, rows, at)
        })
    }

    /// Where a secret begins on row `n`: what stands there from its beginning on, and on which row that
    /// ends, which is the next one where the beginning itself goes over two.
    fn begins_on(&self, rows: &[(String, bool)], n: usize) -> Option<(String, usize)> {
        let (row, wrapped) = &rows[n];
        if let Some(at) = row.rfind(&self.begins) {
            return Some((row[at..].to_owned(), n));
        }
        let (next, _) = rows.get(n + 1).filter(|_| *wrapped || row.chars().count() >= WIDE)?;
        let row = inner(row);
        let both = format!("{row}{}", inner(next));
        let at = both.rfind(&self.begins).filter(|at| *at < row.len())?;
        Some((both[at..].to_owned(), n + 1))
    }

    /// The secret that begins with `first` on row `n`. It goes on where the terminal itself goes on, where
    /// a row is full, and where a wide row ends early and what stands below it is no word of a language;
    /// where that is not the whole, also below any other row.
    fn from(&self, first: &str, rows: &[(String, bool)], n: usize) -> Option<String> {
        let mut text = inner(first).to_owned();
        let mut whole = None;
        for at in n..rows.len().min(n + MAX_ROWS) {
            let (row, wrapped) = &rows[at];
            whole = self.whole.find(&text).map(|hit| hit.as_str().to_owned()).or(whole);
            let ends_here = whole.as_ref().is_some_and(|whole| whole.len() < text.len());
            let width = row.trim_end().chars().count();
            let full = width + MARGIN >= usize::from(TERMINAL_COLUMNS);
            let Some((next, _)) = rows.get(at + 1) else { break };
            let next = inner(next);
            let goes_on = *wrapped || full || (width >= WIDE && is_no_word(next));
            if ends_here
                || next.is_empty()
                || next.contains(char::is_whitespace)
                || (whole.is_some() && !goes_on)
            {
                break;
            }
            let longer = format!("{text}{next}");
            let found = self.whole.find(&longer).map_or(0, |hit| hit.end());
            // What is below a whole secret is no part of it, unless all of it may be.
            if whole.is_some()
                && !full
                && !*wrapped
                && longer[found..].contains(char::is_alphanumeric)
            {
                break;
            }
            text = longer;
        }
        self.whole.find(&text).map(|hit| hit.as_str().to_owned()).or(whole)
    }
}

/// The screen's rows, each with whether the terminal itself goes on in the next one.
fn rows(screen: &vt100::Screen) -> Vec<(String, bool)> {
    let wrapped = (0..TERMINAL_ROWS).map(|row| screen.row_wrapped(row));
    screen.rows(0, TERMINAL_COLUMNS).zip(wrapped).collect()
}

/// Whether letters and digits are mixed as in a secret, and not as in a word.
fn is_no_word(text: &str) -> bool {
    let is_word = |part: &str| {
        let mut letters = part.chars();
        letters.next().is_some_and(char::is_alphabetic) && letters.all(char::is_lowercase)
    };
    let is_plain = text.split(['-', '_']).all(is_word);
    let is_loud = text.len() > 3 && text.chars().all(|c| c.is_ascii_uppercase());
    if is_plain || is_loud || !text.contains(char::is_alphanumeric) {
        return false;
    }
    let mut rest = text.chars();
    rest.next();
    rest.any(|c| c.is_ascii_uppercase())
        || text.chars().any(|c| c.is_ascii_digit() || matches!(c, '_' | '-'))
}

/// A row without borders and blanks around it.
fn inner(row: &str) -> &str {
    row.trim_matches(|c: char| c.is_whitespace() || BORDER.contains(&c))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "sk-ant-oat01-";

    fn printed() -> Printed {
        let spec = PrintedSpec {
            path: ".claude/token".into(),
            begins: TOKEN.into(),
            rest: "[A-Za-z0-9_-]{60,}".into(),
        };
        Printed::new(&[spec]).unwrap()
    }

    fn found(text: &str) -> Option<String> {
        let printed = printed();
        printed.see(text.replace('\n', "\r\n").as_bytes());
        printed.take().pop()
    }

    #[test]
    fn a_secret_is_whole_however_its_rows_were_broken() {
        let token = format!("{TOKEN}{}", "aB3_-".repeat(30));
        let (first, rest) = token.split_at(118);
        let cut = |at: usize| format!("{}\n{}", &token[..at], &token[at..]);
        for shown in [
            format!("Your token:\n\n{token}\n\nKeep it."),
            format!("Your token:\n\n {first}\n {rest}\n\nKeep it."),
            format!("│ {} │\n│ {} │\n│ Keep it │", &token[..110], &token[110..]),
            format!("export TOKEN={token}\nKeep it."),
            cut(60),
            cut(80),
        ] {
            assert_eq!(found(&shown), Some(token.clone()), "{shown}");
        }
        let short = format!("{TOKEN}{}", "x".repeat(60));
        assert_eq!(
            found(&format!("{short}\nDone\n")),
            Some(short.clone()),
            "a word below is no part of it"
        );
        let eighty = format!("{TOKEN}{}", "aB3_-".repeat(14))[..80].to_owned();
        for below in ["Done", "DONE", "v2.1.0", "Store-it-safely", "-----", "https://x.test/9"] {
            assert_eq!(found(&format!("{eighty}\n{below}")), Some(eighty.clone()), "{below}");
        }
        assert_eq!(found(&format!("{short} and more")), Some(short));
        assert_eq!(found(&format!("{TOKEN}abc\n\nnot whole")), None);
    }

    #[test]
    fn a_beginning_that_goes_over_two_rows_is_seen() {
        let token = format!("{TOKEN}{}", "aB3_-".repeat(20));
        for (before, shown) in [
            ("x".repeat(114) + "=", token.clone()),
            ("x".repeat(75), format!("{}\n{}", &token[..5], &token[5..])),
        ] {
            assert_eq!(found(&format!("{before}{shown}\n\nKeep it.")), Some(token.clone()));
        }
        let printed = printed();
        assert!(printed.see(format!("{}={token}", "x".repeat(114)).as_bytes()));
    }

    #[test]
    fn its_beginning_is_seen_before_its_end() {
        let printed = printed();
        assert!(!printed.see(b"Your token: sk-ant-"));
        assert!(printed.see(b"oat01-abc"));
        assert!(printed.take().is_empty());
        assert_eq!(printed.files(), Err(".claude/token".into()));
        assert!(printed.see(&[b'd'; 60]));
        assert_eq!(printed.take().len(), 1);
        let files = printed.files().unwrap();
        assert_eq!((files[0].mode, files[0].content.last()), (0o600, Some(&b'\n')));
        assert!(!printed.see(b"\x1b[2J\x1b[Hgone"));
        assert!(printed.files().is_ok(), "what was found stays found");
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_panic_it(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..800)) {
            let printed = printed();
            printed.see(b"sk-ant-oat01-");
            printed.see(&bytes);
            printed.take();
        }
    }
}
