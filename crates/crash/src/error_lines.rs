//! Which of a program's last lines says why it ended: seldom the last, which is a hint, or the path of a
//! log file in a sandbox that is gone.

use std::sync::LazyLock;

use regex::Regex;

use super::lines;

/// Marks and words by which tools and the runtimes they are made with begin an error.
const ERROR: &str = r"(?x)
    ^[\s│┃|]*(?:✘|✖|✗|❌|⨯|×\s)
  | \[\s*(?i:error|fatal|critical)\s*\]
  | ^\W*(?:\S{1,40}:\s+)?(?i:fatal\ error|error|fatal|critical|panic)(?:\[\w+\]|\s\[?\w+\]?)?\s*:
  | ^\W*(?:ERROR|FATAL|CRITICAL)\b
  | ^npm\ (?:ERR!|error)
  | ^\W*(?:Uncaught\s+)?(?:[A-Za-z_][\w.]*)?(?:Error|Exception)(?:\s[\[(]\w+[\])])?:
  | \blevel=(?:error|fatal)\b
  | ^E:\s";

/// Words of a failure, where no line begins as an error does.
const FAILURE: &str = r"(?ix)\b(?: fail(?:ed|ure|s)? | denied | expired | timed\ out | timeout
  | unauthori[sz]ed | forbidden | invalid | refused | rejected | aborted | cancell?ed
  | could\ not | couldn.t | cannot | can.t | unable\ to | not\ (?:allowed|permitted|eligible|supported|found)
  | gave\ up | no\ longer )\b";

/// What to do next, and where more stands: no reason.
const HINT: &str = r"(?ix)
    ^\W*(?:npm\ (?:ERR!|error)\s+)?(?:hint|note|tip|info|usage|docs?|documentation|help|debug|warn(?:ing)?)\b\s*:
  | ^\W*(?:npm\ (?:ERR!|error)\s+)?(?:see|for\ (?:more|help|details|further)|run|try|use|set|add|visit|learn\ more|read\ more
      |if\ (?:you|this)|please\ (?:report|file|open|see|visit|check)|to\ report|report\ (?:this|it)|need\ help
      |node\.js\ v\d+|bun\ v\d+|a\ complete\ log|flags|options|commands)\b
  | \b(?:logs?|details?|output|report)\b.{0,60}\b(?:written|found|saved|available|stored|located)\b
  | \b(?:written|saved|logged)\ to\b | ^\W*(?:full|debug|complete)?\s*logs?\s*(?:file|at|in)?\s*:
  | ^npm\ (?:ERR!|error)\s+(?:code|errno|syscall|path|cwd)\b | ^npm\ (?:ERR!|error)\s*$
  | ^\W*(?:https?://|~?/)\S*\W*$ | --(?:help|verbose|debug)\b | ^\s+at\s | ^\W*$
  | ^\W*(?:crash\ dump\ is\ being\ written|execution\ halted|calls:|in\ expression\ starting\ at|did\ you\ mean
      |raised\ at\s|called\ from\s|backtrace\ omitted|more\ details|you\ can)\b
  | ^\S*env:\ use\ - | `\+RTS\b | could\ not\ create\ the\ java\ virtual | \ program\ will\ exit\.$
  | ^[a-z][a-z0-9]{1,3}\s+0x[0-9a-f]+$";

#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static PATTERNS: LazyLock<[Regex; 3]> =
    LazyLock::new(|| [ERROR, FAILURE, HINT].map(|pattern| Regex::new(pattern).unwrap()));

/// At most this many meaningful lines below the one that says why: good-byes, and what is closed.
const NEAR: usize = 5;

/// Most lines that belong to one which ends in a colon.
const LISTED: usize = 3;

/// Whether a line begins as an error does.
pub fn is_error(line: &str) -> bool {
    let [error, _, hint] = &*PATTERNS;
    error.is_match(line) && !hint.is_match(line)
}

/// Whether a line says what to do next, or where more stands.
pub fn is_hint(line: &str) -> bool {
    PATTERNS[2].is_match(line)
}

/// The line that says why, with what it lists below itself.
pub fn message(lines: &[String]) -> Option<String> {
    let at = says_why(lines)?;
    let mut message = lines[at].trim().to_owned();
    let lists = lines[at].trim_end().ends_with(':');
    let below = lines[at + 1..].iter().take_while(|line| lists && !is_hint(line));
    for line in below.take(LISTED) {
        message = format!("{message} {}", line.trim());
    }
    Some(message)
}

/// The place of the line that says why, if one says more than the last.
fn says_why(lines: &[String]) -> Option<usize> {
    let [error, failure, hint] = &*PATTERNS;
    // What a program went on for long after is not why it ended.
    let reports = |line: &String| lines::is_meaningful(line) && !hint.is_match(line);
    let is_near = |at: &usize| lines[at + 1..].iter().filter(|line| reports(line)).count() <= NEAR;
    let meaningful = |pattern: &Regex| {
        let found = lines.iter().rposition(|line| pattern.is_match(line) && !hint.is_match(line));
        found.filter(is_near)
    };
    meaningful(error)
        .or_else(|| meaningful(failure))
        .or_else(|| lines.iter().rposition(reports))
        .or_else(|| lines.iter().rposition(|line| !hint.is_match(line)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_that_says_why_is_found_among_hints_and_paths() {
        for (lines, why) in [
            (
                "✘ [ERROR] Timed out waiting for authorization code, please try again.\n\n\
                 🪵  Logs were written to \"/home/person/.config/.wrangler/logs/wrangler.log\"",
                "✘ [ERROR] Timed out waiting for authorization code, please try again.",
            ),
            (
                "npm ERR! code E401\nnpm ERR! Incorrect or missing password.\nnpm ERR!\n\
                 npm ERR! A complete log of this run can be found in: /home/person/.npm/_logs/x.log",
                "npm ERR! Incorrect or missing password.",
            ),
            (
                "error: unexpected argument '--web' found\n\n  tip: a similar argument exists: '--wed'\n\n\
                 Usage: acme login [OPTIONS]\n\nFor more information, try '--help'.",
                "error: unexpected argument '--web' found",
            ),
            (
                "usage: acme [-h] {login}\nacme: error: argument command: invalid choice: 'logon'",
                "acme: error: argument command: invalid choice: 'logon'",
            ),
            (
                "Traceback (most recent call last):\n  File \"/usr/bin/acme\", line 3, in main\n    go()\n\
                 acme.errors.LoginError: the code is too old",
                "acme.errors.LoginError: the code is too old",
            ),
            (
                "fatal: could not read Username for 'https://x': terminal prompts disabled\n\
                 hint: run git config",
                "fatal: could not read Username for 'https://x': terminal prompts disabled",
            ),
            (
                "✖ Sign-in was refused\n  Debug log: /tmp/acme/debug.log\nhttps://acme.test/help",
                "✖ Sign-in was refused",
            ),
            (
                "Error: device authorization failed\nUsage:\n  acme login [flags]\n\nFlags:\n  -h, --help   help",
                "Error: device authorization failed",
            ),
            (
                "TypeError [ERR_X]: bad\n    at f (/x.js:1:2)\n\nNode.js v22.1.0",
                "TypeError [ERR_X]: bad",
            ),
            (
                "time=1 level=error msg=\"no such account\"\nSee https://acme.test",
                "time=1 level=error msg=\"no such account\"",
            ),
            ("[ERROR] token endpoint said 403\nBye.", "[ERROR] token endpoint said 403"),
            ("The code has expired.\nGoodbye!", "The code has expired."),
            ("I have no idea\nRun acme login again", "I have no idea"),
            ("Opening browser\nI have no idea", "I have no idea"),
            ("error: no plugin, going on\na\nb\nc\nd\ne\nno offer", "no offer"),
            ("error: no account\nclosing a\nclosing b\nbye", "error: no account"),
        ] {
            let lines: Vec<String> = lines.lines().map(str::to_owned).collect();
            assert_eq!(says_why(&lines).map(|at| lines[at].as_str()), Some(why));
        }
        assert_eq!(says_why(&[]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_lines_panic_it(lines in proptest::collection::vec(".{0,80}", 0..12)) {
            let at = says_why(&lines);
            proptest::prop_assert!(at.is_none_or(|at| at < lines.len()));
        }
    }
}
