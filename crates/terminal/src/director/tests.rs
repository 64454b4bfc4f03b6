//! The shipped providers on what their CLIs really print (seen on 2026-11-25).

use super::*;

fn provider(name: &str) -> Provider {
    let path = format!("{}/../../providers/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    Provider::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap()
}

fn director(name: &str, method: Method) -> Director {
    let provider = provider(name);
    let login = provider.login.iter().find(|login| login.method == method).unwrap();
    Director::new(&provider, login).unwrap()
}

fn page(url: &str) -> Act {
    Act::Await(Prompt::Page { url: url.into(), code: None })
}

const CLAUDE: &str = "Opening browser to sign in…\r\nIf the browser didn't open, visit:\r\n\
    \x1b]8;;https://claude.ai/oauth/authorize?z-n3Q\x07\x1b[94mhttps://claude.ai/oauth/authorize?z-n3Q\
    \x1b[39m\x1b]8;;\x07\r\nPaste code here if prompted > ";

#[test]
fn claude_code_by_a_pasted_code() {
    let mut director = director("claude_code", Method::PasteCode);
    let mut terminal = Terminal::default();
    terminal.feed(CLAUDE.as_bytes());
    assert_eq!(director.see(&terminal), [page("https://claude.ai/oauth/authorize?z-n3Q")]);
    assert_eq!(director.see(&terminal), []);
    assert_eq!(director.enter_code("abc", &terminal), Err(CodeRefused::WrongForm));
    assert_eq!(director.enter_code("a\x1b[A#b", &terminal), Err(CodeRefused::Malformed));
    let typed = [Act::Type("abc#def".into()), Act::Type("\r".into()), Act::CodeEntered];
    assert_eq!(director.enter_code(" abc#def\n", &terminal).unwrap(), typed);
    let refused = "abc#def\r\nThat doesn't look like the full code. Copy all of it, including the # \
                   in the middle.\r\nPaste code here if prompted > ";
    terminal.feed(refused.as_bytes());
    assert!(
        matches!(&director.see(&terminal)[..], [Act::Say(says)] if says.contains("paste it again"))
    );
    assert_eq!(director.see(&terminal), []);
    terminal.feed(refused.as_bytes());
    assert!(matches!(&director.see(&terminal)[..], [Act::Say(_)]), "a second time");
}

#[test]
fn claude_code_in_the_browser_takes_what_it_opens_and_not_what_it_prints() {
    let mut director = director("claude_code", Method::Browser);
    let mut terminal = Terminal::default();
    terminal.feed(CLAUDE.as_bytes());
    assert_eq!(director.see(&terminal), []);
    let url = "https://claude.com/cai/oauth/authorize?redirect_uri=http%3A%2F%2Flocalhost";
    let other = "https://evil.test/".to_owned();
    assert_eq!(director.opened(other.clone(), &terminal), [Act::Ignored(other)]);
    assert_eq!(director.opened(url.into(), &terminal), [Act::Open(url.into()), page(url)]);
    assert_eq!(director.enter_code("a#b", &terminal), Err(CodeRefused::NotTaken));
}

#[test]
fn a_code_that_comes_early_waits() {
    let mut director = director("gemini_cli", Method::PasteCode);
    let mut terminal = Terminal::default();
    assert_eq!(director.enter_code("4/0Ab", &terminal).unwrap(), []);
    terminal.feed(b"Enter the authorization code: ");
    let typed = [Act::Type("4/0Ab".into()), Act::Type("\r".into()), Act::CodeEntered];
    assert_eq!(director.see(&terminal), typed);
    assert_eq!(director.see(&terminal), [], "and is typed once");
}

#[test]
fn github_by_its_code() {
    let mut director = director("gh", Method::DeviceCode);
    let mut terminal = Terminal::default();
    terminal.feed(b"? Authenticate Git with your GitHub credentials? (Y/n) \x1b[6n");
    assert_eq!(terminal.take_answers(), "\x1b[1;56R", "it asks where the cursor is");
    let answered =
        |question: &str, keys: &str| [Act::Answered(question.into()), Act::Type(keys.into())];
    let git = answered("? Authenticate Git with your GitHub credentials? (Y/n)", "n\r");
    assert_eq!(director.see(&terminal), git);
    terminal.feed(b"\r\x1b[2K? Authenticate Git with your GitHub credentials? No\r\n");
    terminal.feed(b"! First copy your one-time code: 12AB-34CD\r\n");
    assert_eq!(director.see(&terminal), []);
    terminal.feed(b"Press Enter to open github.com in your browser... ");
    let enter = answered("Press Enter to open github.com in your browser...", "\r");
    assert_eq!(director.see(&terminal), enter);
    let url = "https://github.com/login/device";
    let awaited = Prompt::Page { url: url.into(), code: Some("12AB-34CD".into()) };
    assert_eq!(director.opened(url.into(), &terminal), [Act::Await(awaited)]);
}

#[test]
fn what_no_rule_knows_is_shown() {
    let mut director = director("codex", Method::Browser);
    let mut terminal = Terminal::default();
    assert_eq!(director.stuck(&terminal), []);
    terminal.feed(b"Choose a theme:\r\n\r\n> dark\r\n");
    let screen = vec!["Choose a theme:".to_owned(), "> dark".to_owned()];
    assert_eq!(director.stuck(&terminal), [Act::Await(Prompt::Terminal { screen })]);
    assert_eq!(director.stuck(&terminal), []);
}
