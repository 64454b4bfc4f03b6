//! One thing has one name: docs/glossary.md says which, and this holds code and pages to it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::Command;
use std::sync::LazyLock;

/// What may be written although a banned word is in it, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("/home/person", "the home of the image's unprivileged account"),
    ("\"person\"", "that account's name, as provider files and recipes write it"),
    ("`person`", "the same, on a page"),
    ("root or person", "the same, in the message about a wrong owner"),
    ("feature-words", "QMP's name of the property"),
    ("\\\"person\\", "the same, in a literal"),
    ("person:x:1000:", "its entries in /etc/passwd and /etc/group"),
    ("audio:x:29:person", "its membership in a group"),
    ("/bin/bash person", "the same, where the image creates it"),
    ("\"troubles\"", "what issues and scripts call a benchmark"),
];

/// Files that quote others or are not ours to word.
const NOT_OURS: &[&str] =
    &["docs/glossary.md", "crates/anteroom/tests/glossary.rs", "fuzz/corpus/", "fuzz/seeds/"];

#[test]
fn one_thing_has_one_name() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let rules = rules_of(&std::fs::read_to_string(root.join("docs/glossary.md")).unwrap());
    let listed = Command::new("git").current_dir(&root).args(["ls-files", "-z"]).output().unwrap();
    let names = String::from_utf8(listed.stdout).unwrap();
    let mut found = Vec::new();
    for name in names.split_terminator('\0') {
        let skipped = NOT_OURS.iter().any(|prefix| name.starts_with(prefix));
        let Some(kind) = Kind::of(name).filter(|_| !skipped) else { continue };
        // Deleted and not committed yet.
        let Ok(text) = std::fs::read_to_string(root.join(name)) else { continue };
        for (line, rule) in offences(&text, kind, &rules) {
            found.push(format!(
                "{name}:{line}: `{}`: write {}",
                rule.banned.join(" "),
                rule.instead
            ));
        }
    }
    assert!(found.is_empty(), "see docs/glossary.md:\n{}", found.join("\n"));
}

#[test]
fn words_are_found_however_they_are_written() {
    let page = "| term | what | not |\n| --- | --- | --- |\n| sandbox | a VM | `room`, `rooms` |\n\
                | end user | who | `person` |\n| demux | it | `front door` |\n\
                | label | text | `words` *(identifiers)* |\n\n\
                | not | write |\n| --- | --- |\n| `is none` | \"is not valid\" |\n";
    let rules = rules_of(page);
    let lines = |text: &str, kind| -> Vec<(usize, String)> {
        let all = offences(text, kind, &rules);
        all.into_iter().map(|(line, rule)| (line, rule.banned.join(" "))).collect()
    };
    let code = "fn to_room(FrontDoor: u8) {}\n// in words: a\n// front\n// door\nlet words = \"words\";\n\
                \"it is \\\n none\"; '\"'; mushroom!(\"/home/person person\")";
    let expected = [(1, "room"), (1, "front door"), (3, "front door"), (5, "words")];
    let more = [(6, "is none"), (7, "person")];
    let expected: Vec<_> =
        expected.iter().chain(&more).map(|(line, word)| (*line, (*word).to_owned())).collect();
    assert_eq!(lines(code, Kind::Rust), expected);
    let script = "const endWords = 'a \"room\"'; // Room's\n`${rooms} b`";
    let expected = [(1, "words"), (1, "room"), (1, "room"), (2, "rooms")];
    assert_eq!(lines(script, Kind::Script), expected.map(|(line, word)| (line, word.to_owned())));
    assert_eq!(lines("Some words.\nA front-door.", Kind::Text), [(2, "front door".to_owned())]);
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Rust,
    Script,
    /// Nothing in it counts as an identifier.
    Text,
}

impl Kind {
    fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')?.1 {
            "rs" => Some(Self::Rust),
            "ts" | "mjs" => Some(Self::Script),
            "md" | "toml" | "html" => Some(Self::Text),
            _ => None,
        }
    }
}

/// A banned phrase, in lower case, one word an element.
struct Rule {
    banned: Vec<String>,
    instead: String,
    /// Whether it is refused in code, and in literals, comments and pages.
    in_code: bool,
    in_text: bool,
}

/// The rows of the tables whose head has a column `not`: each phrase between backquotes in it, and
/// what the first column or the one named `write` has instead.
fn rules_of(page: &str) -> Vec<Rule> {
    let mut rules = Vec::new();
    let mut columns: Option<(usize, usize)> = None;
    for row in page.lines() {
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        if !row.starts_with('|') {
            columns = None;
        } else if let Some((not, write)) = columns {
            let cell = cells[not];
            rules.extend(cell.split('`').skip(1).step_by(2).map(|phrase| Rule {
                banned: phrase.split([' ', '-']).map(str::to_owned).collect(),
                instead: cells[write].to_owned(),
                in_code: write == 0,
                in_text: !cell.contains("*(identifiers)*"),
            }));
        } else if let Some(not) = cells.iter().position(|cell| *cell == "not") {
            columns = Some((not, cells.iter().position(|cell| *cell == "write").unwrap_or(0)));
        }
    }
    assert!(rules.len() > 4, "docs/glossary.md has tables with a column `not`");
    rules
}

/// The lines, counted from 1, and what is wrong in them.
fn offences<'a>(text: &str, kind: Kind, rules: &'a [Rule]) -> Vec<(usize, &'a Rule)> {
    let mut found = Vec::new();
    for (is_code, start, piece) in pieces(text, kind) {
        let mut piece = piece.to_owned();
        for (allowed, _) in EXCEPTIONS {
            piece = piece.replace(allowed, &" ".repeat(allowed.len()));
        }
        let words = words_of(&piece);
        for (at, (place, _)) in words.iter().enumerate() {
            let hits = rules.iter().filter(|rule| {
                let same = words[at..].iter().map(|(_, word)| word).zip(&rule.banned);
                (if is_code { rule.in_code } else { rule.in_text })
                    && same.filter(|(word, banned)| word == banned).count() == rule.banned.len()
            });
            let line = text[..start + place].matches('\n').count() + 1;
            found.extend(hits.map(|rule| (line, rule)));
        }
    }
    found.sort_by_key(|(line, _)| *line);
    found
}

/// Comments (a run of lines is one), literals and the code between them, each with where it begins.
fn pieces(text: &str, kind: Kind) -> Vec<(bool, usize, &str)> {
    let pattern = match kind {
        Kind::Text => return vec![(false, 0, text)],
        Kind::Rust => {
            r###"(?s)(//[^\n]*(\n\s*//[^\n]*)*|/\*.*?\*/|r##".*?"##|r#".*?"#|r".*?"|"([^"\\]|\\.)*")|'(\\.[^']*|[^'\\])'"###
        }
        Kind::Script => {
            r#"(?s)(//[^\n]*(\n\s*//[^\n]*)*|/\*.*?\*/|"([^"\\\n]|\\.)*"|'([^'\\\n]|\\.)*'|`([^`\\]|\\.)*`)"#
        }
    };
    let mut all = Vec::new();
    let mut end = 0;
    for hit in regex::Regex::new(pattern).unwrap().find_iter(text) {
        all.push((true, end, &text[end..hit.start()]));
        all.push((false, hit.start(), hit.as_str()));
        end = hit.end();
    }
    all.push((true, end, &text[end..]));
    all
}

/// Words in lower case with their places, `snake_case` and `CamelCase` taken apart.
/// Escapes of literals are left out.
fn words_of(piece: &str) -> Vec<(usize, String)> {
    static WORD: LazyLock<regex::Regex> =
        LazyLock::new(|| regex::Regex::new(r"\\.|[A-Z]?[a-z]+|[A-Z]+").unwrap());
    let hits = WORD.find_iter(piece).filter(|hit| !hit.as_str().starts_with('\\'));
    hits.map(|hit| (hit.start(), hit.as_str().to_lowercase())).collect()
}
