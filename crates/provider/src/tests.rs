//! The shipped files; mistakes, and the places that are reported for them.

use anteroom_session::Start;
use proptest::prelude::*;

use super::*;

const DEMO: &str = include_str!("../../../providers/demo.toml");

fn error(text: &str) -> String {
    Provider::parse("x.toml", text).unwrap_err().to_string()
}

#[test]
fn the_shipped_providers_are_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../providers");
    let mut ids = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let text = std::fs::read_to_string(&path).unwrap();
        let provider = Provider::parse(&path.to_string_lossy(), &text).unwrap();
        assert_eq!(path.file_stem().unwrap().to_str(), Some(provider.id.as_str()));
        let written = toml::to_string(&provider).unwrap();
        assert_eq!(Provider::parse("again", &written).unwrap(), provider);
        ids.push(provider.id.to_string());
    }
    ids.sort();
    let shipped =
        ["claude_code", "claude_setup_token", "codex", "copilot_cli", "demo", "gemini_cli", "gh"];
    assert_eq!(ids, shipped);
}

#[test]
fn a_wrong_value_names_file_line_and_key() {
    let text = DEMO.replace("~/.demo-login", "../.demo-login");
    let line = text.lines().position(|line| line.contains("../.demo-login")).unwrap() + 1;
    assert_eq!(
        error(&text),
        format!(
            "the provider file x.toml, line {line}: credential.files[0].path must start with ~/ and \
             not contain .."
        )
    );
    let text =
        format!("{DEMO}\n[[login]]\nmethod = 'paste_code'\ncommand = ['a']\ninstructions = ''\n");
    let line = text.lines().count() - 3;
    assert_eq!(
        error(&text),
        format!(
            "the provider file x.toml, line {line}: login[1].code_prompt is missing; paste_code needs \
             a pattern for the screen on which the tool accepts the code"
        )
    );
}

#[test]
fn a_wrong_form_names_line_and_key() {
    let text = DEMO.replace("image =", "imago =");
    let error = Provider::parse("x.toml", &text).unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    assert!(source.contains("line 6") && source.contains("imago"), "{source}");
}

#[test]
fn a_tool_is_started_at_once_or_when_the_end_user_comes() {
    let start = |word: &str| {
        let with = format!("method = \"browser\"\nstart = \"{word}\"");
        Provider::parse("x.toml", &DEMO.replace("method = \"browser\"", &with))
    };
    let when = |provider: Provider| provider.login[0].start;
    assert_eq!(when(Provider::parse("x.toml", DEMO).unwrap()), Start::AtOnce);
    assert_eq!(when(start("at_once").unwrap()), Start::AtOnce);
    assert_eq!(when(start("when_the_end_user_comes").unwrap()), Start::WhenTheEndUserComes);
    let error = start("later").unwrap_err();
    let source = std::error::Error::source(&error).unwrap().to_string();
    for reported in ["later", "at_once", "when_the_end_user_comes", "line 10"] {
        assert!(source.contains(reported), "{source}");
    }
}

#[test]
fn unknown_fields_are_refused() {
    assert!(Provider::parse("x", &format!("{DEMO}\n[surprise]\na = 1\n")).is_err());
}

#[test]
fn what_could_not_work_is_refused() {
    let command = |toml: &str| DEMO.replace(r#"["demo-login", "login"]"#, toml);
    let variable = |toml: &str| DEMO.replace("[login.env]", &format!("[login.env]\n{toml}"));
    let login =
        |toml: &str| DEMO.replace("method = \"browser\"", &format!("method = \"browser\"\n{toml}"));
    let owner = format!("{DEMO}\n[[files]]\npath = '/a'\nowner = 'nobody'\ncontent = ''\n");
    let integrity = format!("sha512-{}==", "A".repeat(86));
    let npm = |name: &str| {
        format!("{DEMO}\n[[install.npm]]\npackage = '{name}'\nintegrity = '{integrity}'\n")
    };
    let debian = |name: &str| format!("{DEMO}\n[install]\npackages = ['{name}']\n");
    let python = |name: &str| format!("{DEMO}\n[install]\npypi = ['{name}']\n");
    for (text, key) in [
        (command("[]"), "login[0].command"),
        (command(r#"[""]"#), "login[0].command"),
        (command(r#"["a", "\u0000"]"#), "login[0].command"),
        (variable(r#""" = "x""#), "login[0].env"),
        (variable(r#""A=B" = "x""#), "login[0].env"),
        (variable(r#"A = "\u0000""#), "login[0].env"),
        (login("url_pattern = '('"), "login[0].url_pattern"),
        (login("code_pattern = '(a)'"), "login[0].code_pattern"),
        (login("code_form = 'a'"), "login[0].code_form"),
        (login("callback_ports = [0]"), "login[0].callback_ports"),
        (login(r"url_pattern = '\w{900}{900}'"), "login[0].url_pattern"),
        (login("answers = [{ screen = 'a', type = 'n\\r' }]"), "login[0].answers[0].type"),
        (login("url_pattern = ''"), "login[0].url_pattern"),
        (login("url_pattern = '.*'"), "login[0].url_pattern"),
        (DEMO.replace("Anteroom demo CLI", " "), "name"),
        (npm("@a/b"), "install.npm"),
        (npm("a;b@1"), "install.npm"),
        (npm("a@1.0.0").replace("sha512-", "sha1-"), "`npm view a@1.0.0 dist.integrity` prints"),
        (npm("a@1.0.0").replace(&integrity, "sha512-…"), "must be sha512- and 88 characters"),
        (npm("a@1.0.0").replace("AA==", "=="), "install.npm[0]"),
        (debian("a;b"), "install.packages[0]"),
        (python("a==1.0.0"), "install.pypi"),
        (python("a==1.0.0 --hash=sha256:…"), "`pip hash WHEEL` prints"),
        (debian("a=1@sha256:…"), "`apt-cache show` prints"),
        (DEMO.replace("[\"accounts.", "[\"https://accounts."), "egress.allow[0]"),
        (owner, "files[0].owner"),
    ] {
        let error = error(&text);
        assert!(error.contains(key), "{error}");
    }
    assert!(Provider::parse("x", &npm("@a/b@1.0.0")).is_ok());
}

#[test]
fn an_entry_of_the_list_that_is_refused_all_the_same_is_reported() {
    let allow = |hosts: &str| DEMO.replace("\"accounts.anteroom.test\"", hosts);
    let line = 1 + DEMO.lines().position(|line| line.starts_with("allow")).unwrap();
    for never in [
        "'192.0.2.1'",
        "'10.0.0.1:8443'",
        "'localhost'",
        "'LocalHost:8080'",
        "'idp.internal'",
        "'printer.local'",
        "'*.local'",
        "'intranet'",
        "'0x7f.1'",
    ] {
        let error = error(&allow(&format!("'a.example', {never}")));
        assert!(error.contains(&format!("line {line}: egress.allow[1] is \"")), "{error}");
        let map = "[[egress.map]]";
        assert!(error.contains(map), "what to do: {error}");
    }
    for good in ["'a.example', '*.example.com', 'notlocal.test'", "'*.com'", "'x.notinternal.test'"]
    {
        Provider::parse("x", &allow(good)).unwrap();
    }
    let mapped = |host: &str, entry: &str| {
        let map = format!("[[egress.map]]\nhost = '{host}'\nto = '127.0.0.1:9'\n");
        Provider::parse("x", &format!("{}\n{map}", allow(&format!("'{entry}'"))))
    };
    mapped("idp.internal", "idp.internal").unwrap();
    mapped("a.idp.internal", "*.idp.internal").unwrap();
    assert!(mapped("idp.internal", "other.internal").is_err());
    assert!(mapped("xidp.internal", "idp.internal").is_err());
}

#[test]
fn what_a_credential_may_be_named_by() {
    let file = |path: &str, more: &str| {
        let text = DEMO.replace("~/.demo-login/credentials.json", path);
        text.replace("required = [\"/access_token\", \"/refresh_token\"]", more)
    };
    let required = "required = ['/a']";
    let secret = |toml: &str| format!("{DEMO}\n[[credential.keyring]]\nlabel = 'Acme'\n{toml}\n");
    for good in [
        file("~/.a/*.json", required),
        file("~/.a/t*", "format = 'binary'"),
        secret("attributes = { service = 'acme', username = '*' }"),
    ] {
        Provider::parse("x", &good).unwrap();
    }
    for (text, key) in [
        (file("~/.a/*/b.json", required), "credential.files[0].path may have at most one *"),
        (file("~/.a/*-*", required), "credential.files[0].path may have at most one *"),
        (file("~/.a/*", required), "credential.files[0].path would match every file"),
        (file("~/.anteroom/keyring/0.json", required), "credential.files[0].path is in"),
        (
            file("~/.a/b", &format!("format = 'binary'\n{required}")),
            "files[0].required is only for",
        ),
        (secret("attributes = { service = '*' }"), "credential.keyring[0].attributes must have"),
        (secret("attributes = {}"), "credential.keyring[0].attributes must have"),
    ] {
        assert!(error(&text).contains(key), "{}", error(&text));
    }
}

#[test]
fn terms_say_what_was_read_and_when() {
    let terms = |page: &str, read: &str| {
        let table = format!("[terms]\npage = '{page}'\nread = '{read}'\ncustody = 'vault'\n");
        format!("{DEMO}\n{table}")
    };
    let page = "https://example.com/terms";
    Provider::parse("x", &terms(page, "2026-11-27")).unwrap();
    assert!(error(&terms("http://example.com", "2026-11-27")).contains("terms.page must be"));
    for odd in ["", "yesterday", "2026-13-01", "2026-1-1", "2026-11-27T00:00:00Z", "27-11-2026"] {
        assert!(error(&terms(page, odd)).contains("terms.read must be"), "{odd}");
    }
}

#[test]
fn all_mistakes_of_a_file_are_reported_by_their_lines() {
    let text = DEMO.replace("Anteroom demo CLI", " ").replace("~/.demo-login", "/.demo-login");
    let text = format!("{text}extra_ca_pem = 'nonsense'\n");
    let (_, mistakes) = Provider::parse_all("x.toml", &text).unwrap();
    let reported: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    let keys = [": name is", "credential.files[0].path", "egress.extra_ca_pem contains no"];
    assert_eq!(reported.len(), keys.len(), "{reported:?}");
    assert!(
        keys.iter().zip(&reported).all(|(key, reported)| reported.contains(key)),
        "{reported:?}"
    );
    assert_eq!(error(&text), reported[0]);
}

#[test]
fn what_is_wrong_with_a_certificate_is_reported_in_plain_text() {
    let reported = |pem: &str| error(&format!("{DEMO}extra_ca_pem = \"\"\"\n{pem}\"\"\"\n"));
    for (pem, message) in [
        ("-----BEGIN CERTIFICATE-----\nAAAA\n", "has no -----END CERTIFICATE----- line"),
        ("-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----\n", "not valid base64"),
        ("  -----BEGIN CERTIFICATE-----\n", "start of a line"),
    ] {
        assert!(reported(pem).contains(message), "{}", reported(pem));
    }
}

#[test]
fn packages_have_their_exact_versions() {
    use install::{is_npm_package, is_pypi_package};
    for good in ["a@1.0.0", "@a/b@1.0.0", "a@1.0.0-beta.1", "a.b-c_d@10.0.0+x"] {
        assert!(is_npm_package(good), "{good}");
    }
    for bad in [
        "",
        "a",
        "@a/b",
        "a@latest",
        "-a@1.0.0",
        "a@^1.0.0",
        "a@1",
        "a@1.x",
        "./a@1.0.0",
        "a/b@1.0.0",
        "a/../../etc@1.0.0",
        "https://a@1.0.0",
        "@a@1.0.0",
        "@a/b/c@1.0.0",
    ] {
        assert!(!is_npm_package(bad), "{bad}");
    }
    let hash = format!("--hash=sha256:{}", "0".repeat(64));
    for good in ["a==1.0.0", "a_b[x,y]==1.2.0", "a==2024.1.post1", "a==1!2.0+local"] {
        assert!(!is_pypi_package(good), "{good} has no hash");
        assert!(is_pypi_package(&format!("{good} {hash}")), "{good}");
        assert!(is_pypi_package(&format!("{good} {hash} {hash}")), "{good}");
    }
    assert!(!is_pypi_package(&format!("a==1 {hash} --index-url=x")));
    assert!(!is_pypi_package("a==1 --hash=sha256:0"));
    for bad in [
        "",
        "a",
        "a>=1",
        "-r==1",
        "a==x",
        "a==1.*",
        "a==1,<2",
        "a @ file:///b==1",
        "./a==1",
        "a[==1",
        "a[x==1",
        "a[-x]==1",
    ] {
        assert!(!is_pypi_package(&format!("{bad} {hash}")), "{bad}");
    }
}

#[test]
fn debian_packages_may_have_version_and_digest() {
    use install::DebianPackage;
    let digest = "0".repeat(64);
    let pinned = format!("gh=2.23.0+dfsg1-1+b4@sha256:{digest}");
    assert_eq!(
        DebianPackage::parse(&pinned),
        Some(DebianPackage {
            name: "gh",
            version: Some("2.23.0+dfsg1-1+b4"),
            sha256: Some(&digest)
        })
    );
    for good in ["g++", "libc6:amd64", "a=1:2.3~rc1-4"] {
        assert!(DebianPackage::parse(good).is_some(), "{good}");
    }
    let no_version = format!("a@sha256:{digest}");
    for bad in
        ["", "-a", "a-", "a;b", "a b", "a=", "a=1@sha256:0", "?x", "a/b", "a=1 2", &no_version]
    {
        assert_eq!(DebianPackage::parse(bad), None, "{bad}");
    }
}

#[test]
fn a_mistake_quotes_a_bounded_part_of_the_file() {
    let long = "x".repeat(900_000);
    let form = [
        format!("# one\n{long}"),
        format!("id = \"x\"\n  name = [{long}]"),
        format!("{DEMO}\n[{long}]"),
        DEMO.replace("id = \"demo\"", &format!("id = \"{long}\"")),
    ];
    for text in form {
        let Err(ProviderError::Syntax { source, .. }) = Provider::parse("x", &text) else {
            panic!("it is not of this form")
        };
        let said = source.to_string();
        assert!(said.len() < 2000 && said.contains("TOML parse error at line "), "{said:.300}");
    }
    let value = error(&DEMO.replace("image = \"", &format!("image = \"{long}")));
    assert!(value.len() < 2000 && value.contains("image is "), "{value:.300}");
    let short = Provider::parse("x", "id = nonsense").unwrap_err();
    let ProviderError::Syntax { source, .. } = short else { panic!("{short}") };
    assert!(source.to_string().contains("1 | id = nonsense"), "{source}");
}

#[test]
fn files_do_not_lie_in_each_other() {
    let file = |path: &str| format!("[[files]]\npath = '{path}'\ncontent = ''\n");
    let text = format!("{DEMO}\n{}{}", file("~/.a/b"), file("~/.a"));
    assert!(error(&text).contains("files[1].path and ~/.a/b conflict"), "{}", error(&text));
    let reported =
        Provider::parse_all("x", &format!("{DEMO}\n{}", file("/a").repeat(200))).unwrap().1;
    assert_eq!(reported.len(), 199, "one for each that is named again");
    let beside = format!("{DEMO}\n{}{}", file("~/.a/b"), file("~/.a/bc"));
    assert!(Provider::parse("x", &beside).is_ok());
}

#[test]
fn guest_paths() {
    assert!(is_guest_path("~/.codex/auth.json") && is_guest_path("/etc/x"));
    for bad in ["", "/", "~/", "x", "~", "/a/../b", "/a//b", "/a\0", "/a/./b"] {
        assert!(!is_guest_path(bad), "{bad:?}");
    }
}

#[test]
fn the_schema_in_the_repository_is_this_one() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference/provider.schema.json");
    let schema = serde_json::to_string_pretty(&Provider::schema()).unwrap() + "\n";
    if std::env::var_os("ANTEROOM_WRITE_SCHEMA").is_some() {
        std::fs::write(&path, &schema).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(path).unwrap_or_default(),
        schema,
        "write it again with ANTEROOM_WRITE_SCHEMA=1 cargo test -p anteroom-provider"
    );
}

proptest! {
    #[test]
    fn no_text_panics_the_parser(text in ".{0,400}") {
        let _ = Provider::parse("x", &text);
    }
}
