//! The shipped providers on what their CLIs really print (seen on 2026-11-25), and CLIs of the tests.

use anteroom_session::PromptReason;

use super::*;

fn provider(name: &str) -> Provider {
    let path = format!("{}/../../providers/{name}.toml", env!("CARGO_MANIFEST_DIR"));
    Provider::parse(name, &std::fs::read_to_string(path).unwrap()).unwrap()
}

/// A rule engine, its terminal, and a clock that moves when the test moves it.
struct Stage {
    rules: RuleEngine,
    terminal: Terminal,
    now: Instant,
}

impl Stage {
    fn of(provider: &Provider, method: Method) -> Self {
        let rules = RuleEngine::new(provider, provider.login_by(method).unwrap()).unwrap();
        Self { rules, terminal: Terminal::default(), now: Instant::now() }
    }

    fn shipped(name: &str, method: Method) -> Self {
        Self::of(&provider(name), method)
    }

    /// A CLI that asks this and is answered so.
    fn asking(screen: &str, keys: &str, more: &str) -> Self {
        let login = format!(
            "login = [{{ method = 'browser', command = ['x'], instructions = 'x', url_from = 'terminal', \
             {more} answers = [{{ screen = '{screen}', type = \"{keys}\" }}] }}]"
        );
        let text = format!(
            "id = 'x'\nname = 'X'\nimage = 'x'\n{login}\negress = {{ allow = [] }}\n\
             [credential]\nfiles = [{{ path = '~/x', required = ['/x'] }}]"
        );
        Self::of(&Provider::parse("x", &text).unwrap(), Method::Browser)
    }

    fn writes(&mut self, text: &str) -> Vec<Action> {
        self.terminal.feed(text.replace('\n', "\r\n").as_bytes());
        self.rules.see(&self.terminal, self.now)
    }

    /// Time passes, as the runner lets it.
    fn passes(&mut self, milliseconds: u64) -> Vec<Action> {
        let until = self.now + Duration::from_millis(milliseconds);
        let mut actions = Vec::new();
        while let Some(due) = self.rules.due().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            actions.extend(self.rules.rest(&self.terminal, self.now));
            assert!(self.rules.due().is_none_or(|next| next > self.now), "it goes on for ever");
        }
        self.now = until;
        actions
    }

    fn opened(&mut self, url: &str) -> Vec<Action> {
        self.rules.opened(url.to_owned(), &self.terminal)
    }

    fn brings(&mut self, code: &str) -> Result<Vec<Action>, CodeRefused> {
        self.rules.enter_code(code, &self.terminal, self.now)
    }
}

fn page(url: &str) -> Action {
    Action::Await(Prompt::Page { url: url.into(), code: None })
}

fn answered(question: &str, keys: &str) -> [Action; 2] {
    [Action::Answered { question: question.into(), again: false }, Action::Type(keys.into())]
}

fn again(question: &str, keys: &str) -> [Action; 2] {
    [Action::Answered { question: question.into(), again: true }, Action::Type(keys.into())]
}

const CLAUDE: &str = "Opening browser to sign in…\nIf the browser didn't open, visit:\n\
    \x1b]8;;https://claude.ai/oauth/authorize?z-n3Q\x07\x1b[94mhttps://claude.ai/oauth/authorize?z-n3Q\
    \x1b[39m\x1b]8;;\x07\nPaste code here if prompted > ";

#[test]
fn claude_code_by_a_pasted_code() {
    let mut claude = Stage::shipped("claude_code", Method::PasteCode);
    assert_eq!(claude.writes(CLAUDE), [page("https://claude.ai/oauth/authorize?z-n3Q")]);
    assert_eq!(claude.passes(60_000), []);
    assert_eq!(claude.brings("abc"), Err(CodeRefused::WrongForm));
    for hidden in ["a\x1b[A#b", "a\u{202e}#b", "a#\u{2028}b", "a#\u{200b}b"] {
        assert_eq!(claude.brings(hidden), Err(CodeRefused::Malformed));
    }
    let typed = [Action::Type("abc#def".into()), Action::Type("\r".into()), Action::CodeEntered];
    assert_eq!(claude.brings(" abc#def\n").unwrap(), typed);
    let refused = "abc#def\nThat doesn't look like the full code. Copy all of it, including the # \
                   in the middle.\nPaste code here if prompted > ";
    assert!(
        matches!(&claude.writes(refused)[..], [Action::Notify(says)] if says.contains("paste it again"))
    );
    assert_eq!(claude.writes(""), []);
    assert!(matches!(&claude.writes(refused)[..], [Action::Notify(_)]), "a second time");
    assert_eq!(claude.passes(60_000), [], "where it takes the code is no news");
}

#[test]
fn claude_code_in_the_browser_takes_what_it_opens_and_not_what_it_prints() {
    let mut claude = Stage::shipped("claude_code", Method::Browser);
    let url = "https://claude.com/cai/oauth/authorize?redirect_uri=http%3A%2F%2Flocalhost";
    assert_eq!(claude.opened("https://evil.test/"), [Action::Ignored("https://evil.test/".into())]);
    assert_eq!(claude.opened(url), [Action::OpenSignInPage(url.into()), page(url)]);
    // It offers to take a code too, which nobody has to bring in this way.
    assert_eq!(claude.writes(CLAUDE), []);
    assert_eq!(claude.passes(60_000), []);
    assert_eq!(claude.brings("a#b"), Err(CodeRefused::NotTaken));
}

#[test]
fn a_code_that_comes_early_waits_until_the_screen_is_still() {
    let mut gemini = Stage::shipped("gemini_cli", Method::PasteCode);
    assert_eq!(gemini.brings("4/0Ab").unwrap(), []);
    assert_eq!(gemini.writes("Enter the authorization "), []);
    assert_eq!(gemini.passes(1000), []);
    assert_eq!(gemini.writes("code: "), []);
    assert_eq!(gemini.passes(399), []);
    let typed = [Action::Type("4/0Ab".into()), Action::Type("\r".into()), Action::CodeEntered];
    assert_eq!(gemini.passes(1), typed);
    assert_eq!(gemini.passes(14_999), []);
    assert_eq!(gemini.passes(60_000), [Action::Notify(CODE_NOT_TAKEN.into())], "and is typed once");
    // What the tool shows of it, or what it says, was heard.
    let mut gemini = Stage::shipped("gemini_cli", Method::PasteCode);
    gemini.writes("Enter the authorization code: ");
    gemini.brings("4/0Ab").unwrap();
    gemini.passes(400);
    gemini.writes("4/0Ab");
    assert_eq!(gemini.passes(60_000), []);
}

#[test]
fn a_question_that_comes_with_the_address_leads_the_end_user_to_it() {
    let text = "id = 'x'\nname = 'X'\nimage = 'x'\negress = { allow = [] }\n\
                [credential]\nfiles = [{ path = '~/x', required = ['/x'] }]\n\
                [[login]]\nmethod = 'device_code'\ncommand = ['x']\ninstructions = 'x'\n\
                url_pattern = 'https://a\\.test/'\ncode_pattern = 'code: (\\w+)'\n";
    let prints = "Your code: AB12\nPress Enter to open https://a.test/device in your browser... ";
    let awaited = Prompt::Page { url: "https://a.test/device".into(), code: Some("AB12".into()) };
    let mut asks = Stage::of(&Provider::parse("x", text).unwrap(), Method::DeviceCode);
    assert_eq!(asks.writes(prints), [Action::Await(awaited.clone())]);
    let actions = asks.passes(2000);
    assert!(matches!(&actions[..], [Action::Await(Prompt::Terminal { .. })]), "{actions:?}");
    assert_eq!(asks.passes(60_000), []);
    // One that is answered is not the end user's.
    let answers = "[[login.answers]]\nscreen = 'Press Enter to open'\ntype = \"\\r\"\n";
    let answered = Provider::parse("x", &format!("{text}{answers}")).unwrap();
    let mut asks = Stage::of(&answered, Method::DeviceCode);
    assert_eq!(asks.writes(prints), [Action::Await(awaited)]);
    let actions = asks.passes(60_000);
    assert!(!actions.iter().any(|action| matches!(action, Action::Await(_))), "{actions:?}");
}

#[test]
fn of_codes_that_wait_the_newest_is_typed_and_no_other_is_lost_unsaid() {
    let mut gemini = Stage::shipped("gemini_cli", Method::PasteCode);
    assert_eq!(gemini.brings("4/0Typo").unwrap(), []);
    assert_eq!(gemini.brings("4/0Ab").unwrap(), [Action::CodeReplaced]);
    assert_eq!(gemini.brings(" 4/0Ab").unwrap(), [], "the same one again");
    gemini.writes("Enter the authorization code: ");
    let typed =
        |code: &str| [Action::Type(code.into()), Action::Type("\r".into()), Action::CodeEntered];
    assert_eq!(gemini.passes(400), typed("4/0Ab"));
    // The tool looks at it, and throws away what is typed meanwhile.
    assert_eq!(gemini.brings("4/0Second").unwrap(), []);
    assert_eq!(gemini.writes("4/0Ab\n"), []);
    assert_eq!(gemini.passes(3000), []);
    gemini.writes("Invalid code.\nEnter the authorization code: ");
    assert_eq!(gemini.passes(399), []);
    assert_eq!(gemini.passes(1), typed("4/0Second"));
    // One that does not ask anew asks by standing there.
    assert_eq!(gemini.brings("4/0Third").unwrap(), []);
    assert_eq!(gemini.passes(3999), []);
    assert_eq!(gemini.passes(1), typed("4/0Third"));
}

#[test]
fn a_code_is_typed_beside_a_screen_that_is_never_still() {
    let mut gemini = Stage::shipped("gemini_cli", Method::PasteCode);
    gemini.writes("Enter the authorization code: ");
    let mut actions = gemini.brings("4/0Ab").unwrap();
    for n in 0..60 {
        actions.extend(gemini.passes(100));
        actions.extend(gemini.writes(&format!("\x1b[s\x1b[5;1H{n}\x1b[u")));
    }
    assert!(actions.contains(&Action::CodeEntered), "{actions:?}");
}

#[test]
fn github_by_its_code() {
    let mut gh = Stage::shipped("gh", Method::DeviceCode);
    assert_eq!(gh.writes("? Authenticate Git with your GitHub credentials? (Y/n) \x1b[6n"), []);
    assert_eq!(gh.terminal.take_answers(), "\x1b[1;56R", "it asks where the cursor is");
    let git = answered("? Authenticate Git with your GitHub credentials? (Y/n)", "n\r");
    assert_eq!(gh.passes(400), git);
    gh.writes("\r\x1b[2K? Authenticate Git with your GitHub credentials? No\n");
    assert_eq!(gh.writes("! First copy your one-time code: 12AB-34CD\n"), []);
    assert_eq!(gh.writes("Press Enter to open github.com in your browser... "), []);
    let enter = answered("Press Enter to open github.com in your browser...", "\r");
    assert_eq!(gh.passes(400), enter);
    let url = "https://github.com/login/device";
    let awaited = Prompt::Page { url: url.into(), code: Some("12AB-34CD".into()) };
    assert_eq!(gh.opened(url), [Action::Await(awaited)]);
    assert_eq!(gh.passes(60_000), [], "it went on: nothing is typed once more, nothing asked");
}

#[test]
fn github_copilot_by_its_code_and_never_without_a_keyring() {
    let mut copilot = Stage::shipped("copilot_cli", Method::DeviceCode);
    let url = "https://github.com/login/device";
    let awaited = Prompt::Page { url: url.into(), code: Some("WXYZ-1234".into()) };
    let prints = format!("To authenticate, visit {url} and enter code WXYZ-1234\nWaiting…\n");
    assert_eq!(copilot.writes(&prints), [Action::Await(awaited)]);
    let asks = "System keychain unavailable. Store token in plaintext config file? (y/N) ";
    let actions = copilot.writes(asks);
    assert!(
        matches!(&actions[..], [Action::End(over)] if over.says.contains("keyring")),
        "{actions:?}"
    );
}

#[test]
fn what_no_rule_knows_is_shown() {
    let mut codex = Stage::shipped("codex", Method::Browser);
    assert_eq!(codex.rules.stuck(&codex.terminal), []);
    codex.writes("Choose a theme:\n\n> dark\n");
    let screen = vec!["Choose a theme:".to_owned(), "> dark".to_owned()];
    let prompt = Prompt::Terminal { screen, reason: PromptReason::Unknown };
    assert_eq!(codex.rules.stuck(&codex.terminal), [Action::Await(prompt)]);
    assert_eq!(codex.rules.stuck(&codex.terminal), []);
}

#[test]
fn an_address_that_no_pattern_takes_is_what_is_wrong() {
    let mut codex = Stage::shipped("codex", Method::Browser);
    codex.writes("Visit https://elsewhere.test/a?x=1\n");
    let shown = "https://elsewhere.test/a?x=1".to_owned();
    let actions = codex.rules.stuck(&codex.terminal);
    assert_eq!(actions[0], Action::Ignored(shown.clone()));
    let Action::Await(Prompt::Terminal { reason, .. }) = &actions[1] else { panic!("{actions:?}") };
    assert_eq!(reason, &PromptReason::AddressIgnored { url: shown });
    // One that it opened, with nothing on its screen.
    let mut codex = Stage::shipped("codex", Method::Browser);
    codex.opened("https://evil.test/");
    assert_eq!(codex.rules.stuck(&codex.terminal), []);
    assert_eq!(codex.rules.ignored(), Some("https://evil.test/"));
}

#[test]
fn an_answer_waits_until_the_screen_is_still_and_no_longer_than_it_must() {
    let mut tool = Stage::asking("Shall I", "y\\r", "quiet_ms = 500,");
    assert_eq!(tool.writes("Shall I? "), []);
    for _ in 0..3 {
        assert_eq!(tool.passes(300), []);
        assert_eq!(tool.writes("."), []);
    }
    assert_eq!(tool.passes(499), []);
    assert_eq!(tool.passes(1), answered("Shall I? ...", "y\r"));
    // A clock beside the question never stands still.
    let mut tool = Stage::asking("Shall I", "y\\r", "quiet_ms = 500,");
    tool.writes("Shall I? ");
    let mut actions = Vec::new();
    for n in 0..60 {
        actions.extend(tool.passes(100));
        actions.extend(tool.writes(&format!("\x1b[s\x1b[5;1H{n}\x1b[u")));
    }
    assert_eq!(actions, answered("Shall I?", "y\r"));
}

#[test]
fn a_question_that_stands_on_is_answered_once_more_and_then_the_end_users_as_an_answered_one() {
    // Thrown away without a trace, and after the terminal has shown what was typed.
    for shown in ["", "y\n"] {
        let mut tool = Stage::asking("Shall I", "y\\r", "");
        tool.writes("Shall I? ");
        assert_eq!(tool.passes(400), answered("Shall I?", "y\r"));
        assert_eq!(tool.writes(shown), []);
        assert_eq!(tool.passes(3999), []);
        assert_eq!(tool.passes(1), again("Shall I?", "y\r"));
        assert_eq!(tool.passes(600_000), [], "no third time");
        let [Action::Await(Prompt::Terminal { reason, .. })] =
            &tool.rules.stuck(&tool.terminal)[..]
        else {
            panic!()
        };
        assert_eq!(reason, &PromptReason::Answered { question: "Shall I?".into() });
    }
}

#[test]
fn what_a_tool_does_with_an_answer_is_seen() {
    for reaction in ["y\nThank you.", "\r\x1b[2K? Shall I? Yes", "\x1b[2J\x1b[HNext: "] {
        let mut tool = Stage::asking("Shall I", "y\\r", "");
        tool.writes("Shall I? ");
        tool.passes(400);
        tool.writes(reaction);
        assert_eq!(tool.passes(60_000), [], "{reaction:?}");
        let actions = tool.rules.stuck(&tool.terminal);
        let [Action::Await(Prompt::Terminal { reason, .. })] = &actions[..] else { panic!() };
        assert_eq!(reason, &PromptReason::Unknown, "{reaction:?}");
    }
    let mut tool = Stage::asking("Shall I", "y\\r", "");
    tool.writes("Shall I? \x1b[2J");
    assert_eq!(tool.passes(60_000), [], "it was gone before it was answered");
}

#[test]
fn a_tool_that_may_not_be_answered_twice_is_not() {
    let mut tool = Stage::asking(
        "Shall I",
        "y\\r\", again = false, times = 2 }, { screen = 'No', type = \"n",
        "",
    );
    tool.writes("Shall I? ");
    assert_eq!(tool.passes(60_000), answered("Shall I?", "y\r"));
    tool.writes("\x1b[2J\x1b[HShall I? ");
    assert_eq!(tool.passes(60_000), [], "it never left the screen in between");
    tool.writes("\x1b[2J\x1b[H");
    tool.writes("Shall I? ");
    assert_eq!(tool.passes(60_000), answered("Shall I?", "y\r"), "it came a second time");
}

#[test]
fn a_question_that_comes_beside_its_answered_one_is_another() {
    let reported = PromptReason::Answered { question: "Shall I?".into() };
    for times in [1, 2] {
        let keys = format!("y\\r\", times = {times} }}, {{ screen = 'No', type = \"n");
        let mut tool = Stage::asking("Shall I", &keys, "");
        tool.writes("Shall I? ");
        assert_eq!(tool.passes(400), answered("Shall I?", "y\r"));
        tool.writes("y\nShall I? ");
        let actions = tool.passes(60_000);
        let [Action::Await(Prompt::Terminal { reason, .. })] =
            &tool.rules.stuck(&tool.terminal)[..]
        else {
            panic!()
        };
        assert_eq!(*reason, reported);
        match times {
            1 => assert_eq!(actions, [], "it has one answer"),
            _ => assert_eq!(actions[..2], answered("Shall I?", "y\r")),
        }
    }
}

#[test]
fn a_question_that_is_drawn_anew_is_answered_once_more_and_reported_as_answered() {
    let reported = PromptReason::Answered { question: "Shall I?".into() };
    let mut tool = Stage::asking("Shall I", "y\\r", "");
    tool.writes("Shall I? ");
    assert_eq!(tool.passes(400), answered("Shall I?", "y\r"));
    tool.writes("y\n");
    tool.passes(600);
    tool.writes("\x1b[2J\x1b[H");
    tool.passes(200);
    tool.writes("Shall I? ");
    assert_eq!(tool.passes(60_000), again("Shall I?", "y\r"));
    // Each second, in its place.
    let mut tool = Stage::asking("Shall I", "y\\r", "");
    tool.writes("Shall I? ");
    let mut actions = Vec::new();
    for _ in 0..30 {
        actions.extend(tool.passes(1000));
        actions.extend(tool.writes("\r\x1b[2K"));
        actions.extend(tool.passes(20));
        actions.extend(tool.writes("Shall I? "));
    }
    assert_eq!(actions, [answered("Shall I?", "y\r"), again("Shall I?", "y\r")].concat());
    let [Action::Await(Prompt::Terminal { reason, .. })] = &tool.rules.stuck(&tool.terminal)[..]
    else {
        panic!()
    };
    assert_eq!(*reason, reported);
    // What it shows for long meanwhile says that it took its answer.
    let mut tool = Stage::asking("Shall I", "y\\r", "");
    tool.writes("Shall I? ");
    tool.passes(400);
    tool.writes("\x1b[2J\x1b[HOne moment");
    tool.passes(10_000);
    tool.writes("\x1b[2J\x1b[HShall I? ");
    assert_eq!(tool.passes(60_000), []);
}

#[test]
fn a_question_that_stands_on_beside_a_spinner_or_a_clock_is_answered_once_more() {
    let reported = PromptReason::Answered { question: "Shall I?".into() };
    for (place, clock) in [("1;60H", ""), ("5;1H", " of 299 s")] {
        let mut tool = Stage::asking("Shall I", "y\\r", "");
        tool.writes("Shall I? ");
        let mut actions = Vec::new();
        for n in 0..300 {
            let picture = ["|", "/", "-", "\\"][n % 4];
            actions.extend(tool.writes(&format!("\x1b7\x1b[{place}{picture}{clock}\x1b8")));
            if n == 60 {
                actions.extend(tool.writes("y\n"));
            }
            actions.extend(tool.passes(100));
        }
        let twice = [answered("Shall I?", "y\r"), again("Shall I?", "y\r")].concat();
        assert_eq!(actions, twice, "{place}");
        let [Action::Await(Prompt::Terminal { reason, .. })] =
            &tool.rules.stuck(&tool.terminal)[..]
        else {
            panic!()
        };
        assert_eq!(*reason, reported);
    }
}

#[test]
fn a_question_after_the_turn_leads_to_the_terminal_and_back() {
    let mut tool = Stage::asking("Shall I", "y\\r", "");
    let url = "https://a.test/x";
    assert_eq!(
        tool.writes(&format!("Open {url}\n")),
        [Action::OpenSignInPage(url.into()), page(url)]
    );
    assert_eq!(tool.passes(60_000), []);
    tool.writes("Signed in as ada.\n");
    assert_eq!(tool.passes(60_000), [], "news is no question");
    tool.writes("Store the token in a plain file? y/N ");
    assert_eq!(tool.passes(1999), []);
    let actions = tool.passes(1);
    let [Action::Await(Prompt::Terminal { screen, reason: PromptReason::Unknown })] = &actions[..]
    else {
        panic!("{actions:?}")
    };
    assert_eq!(screen.last().unwrap(), "Store the token in a plain file? y/N");
    tool.writes("y");
    assert_eq!(tool.passes(60_000), [], "the end user is answering");
    tool.writes("\nWaiting for the server.\n");
    assert_eq!(tool.passes(2000), [page(url)]);
    // One that a rule knows is answered by it.
    tool.writes("Shall I? ");
    assert_eq!(tool.passes(400), answered("Shall I?", "y\r"));
    tool.writes("y\nPassword: ");
    let actions = tool.passes(60_000);
    assert!(matches!(&actions[..], [Action::Await(Prompt::Terminal { .. })]), "{actions:?}");
}

#[test]
fn a_question_beside_a_clock_leads_to_the_terminal_once() {
    let mut tool = Stage::asking("Shall I", "y\\r", "");
    tool.writes("Open https://a.test/x\n");
    tool.passes(10_000);
    tool.writes("Overwrite? [y/N] ");
    let mut actions = Vec::new();
    for n in 0..60 {
        actions.extend(tool.writes(&format!("\x1b7\x1b[9;1Hexpires in {} s \x1b8", 299 - n)));
        actions.extend(tool.passes(1000));
        if n == 20 {
            actions.extend(tool.writes("n"));
        }
    }
    let [Action::Await(Prompt::Terminal { reason: PromptReason::Unknown, .. })] = &actions[..]
    else {
        panic!("{actions:?}")
    };
}

#[test]
fn an_answer_after_the_turn_that_is_not_taken_is_reported_as_answered() {
    let mut tool = Stage::asking("Shall I", "y\\r", "");
    tool.writes("Open https://a.test/x\n");
    tool.writes("Shall I? ");
    let actions = tool.passes(60_000);
    let reported = PromptReason::Answered { question: "Shall I?".into() };
    let (typed, led) = actions.split_at(4);
    assert_eq!(typed, [answered("Shall I?", "y\r"), again("Shall I?", "y\r")].concat());
    assert!(
        matches!(led, [Action::Await(Prompt::Terminal { reason, .. })] if *reason == reported),
        "{led:?}"
    );
}

#[test]
fn a_screen_that_ends_a_sign_in_is_reported_with_its_line_and_what_the_operator_may_do() {
    let text = std::fs::read_to_string(format!(
        "{}/../../providers/demo.toml",
        env!("CARGO_MANIFEST_DIR")
    ));
    let text = format!(
        "{}\n[[screens]]\nscreen = 'not from here'\nsays = 'No.'\noperator = 'Move.'\nends = true\n",
        text.unwrap()
    );
    let mut tool = Stage::of(&Provider::parse("x", &text).unwrap(), Method::Browser);
    let over = Over {
        says: "No.".into(),
        operator: Some("Move.".into()),
        line: "Error: not from here".into(),
    };
    assert_eq!(tool.writes("a\nError: not from here\nb"), [Action::End(over)]);
}

#[test]
fn a_refusal_for_the_country_is_recognised_in_each_company_s_message() {
    for (name, method, line) in [
        ("codex", Method::Browser, "Country, region, or territory not supported"),
        ("codex", Method::Browser, "Codex isn't available in your country."),
        ("gemini_cli", Method::PasteCode, "User location is not supported for the API use."),
        ("gemini_cli", Method::PasteCode, "it is not currently available in your location."),
        ("claude_code", Method::PasteCode, "Claude Code is not available in your region"),
        ("claude_code", Method::PasteCode, "Couldn't log in: unsupported_country_region_territory"),
        ("claude_code", Method::PasteCode, "App unavailable in region"),
        ("claude_setup_token", Method::PasteCode, "Claude is not available in your country"),
    ] {
        let mut tool = Stage::shipped(name, method);
        let actions = tool.writes(&format!("{line}\n"));
        let Some(Action::End(over)) = actions.first() else {
            panic!("{name}: {line}: {actions:?}")
        };
        assert!(over.says.contains("connection comes from"), "{}", over.says);
        assert!(over.operator.is_some(), "{name}: {line}");
    }
}
