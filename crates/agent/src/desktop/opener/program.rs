//! The program that stands in for browsers and their openers: it hands the URL to the agent and exits.
//!
//! Whatever way a program has of opening an address ends here: by one of [`NAMES`] on its PATH, by
//! `BROWSER`, or by the desktop's default for web pages ([`super::desktop_entry`]).

use std::ffi::OsStr;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result};

use super::asked_default;
use super::names::{self, NAMES, REAL_BROWSER_ENV, SOCKET};
use crate::guest::OPENERS;

/// The longest URL taken, in bytes.
pub const MAX_URL: u64 = 8 * 1024;

/// Whether the agent was started under an opener's name.
pub fn is_opener(program: &str) -> bool {
    names::all().any(|name| name == name_of(program))
}

/// The opener's main function: writes the address among its arguments to the agent's socket, or says
/// which browser is the default. Asked for something else, as its version, the program of that name
/// answers, where there is one.
pub fn hand_over(program: &str, arguments: &[String]) -> ExitCode {
    let opens = NAMES.contains(&name_of(program));
    let done = if let Some(url) = address(arguments).filter(|_| opens) {
        report_agent(&url)
    } else if let Some(answer) = asked_default::answer(name_of(program), arguments) {
        writeln!(std::io::stdout(), "{answer}").context("writing the answer failed")
    } else {
        run_real(program, arguments)
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("opening the browser failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn name_of(program: &str) -> &str {
    Path::new(program).file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The first web address among the arguments of a browser or opener.
fn address(arguments: &[String]) -> Option<String> {
    arguments.iter().find_map(|argument| {
        // `--app=` of Chromium and its kin.
        sign_in_url(argument.strip_prefix("--app=").unwrap_or(argument))
    })
}

fn report_agent(url: &str) -> Result<()> {
    // Beside the agent itself, wherever that is: what starts us may have emptied the environment.
    let agent = std::env::current_exe().context("finding the agent failed")?;
    let mut agent = UnixStream::connect(agent.with_file_name(SOCKET))
        .context("the agent does not listen for addresses")?;
    agent.write_all(url.as_bytes())?;
    agent.shutdown(std::net::Shutdown::Write)?;
    // Until the agent closes: then it has the URL, even if the CLI ends at once.
    agent.read_to_end(&mut Vec::new())?;
    Ok(())
}

/// Becomes the program of the same name that comes after ours in PATH.
fn run_real(program: &str, arguments: &[String]) -> Result<()> {
    let name = name_of(program);
    let agent = std::env::current_exe().context("finding the agent failed")?;
    let path = std::env::var_os("PATH").unwrap_or_default();
    let real = behind(name.as_ref(), &path, &agent.with_file_name(OPENERS)).with_context(|| {
        let arguments = arguments.join(" ");
        format!("there is no http or https address in {arguments}, and no other {name} in PATH")
    })?;
    let error = Command::new(&real).args(arguments).env(REAL_BROWSER_ENV, "1").exec();
    Err(error).with_context(|| format!("starting {} failed", real.display()))
}

/// The program of this name in PATH without the folder of openers.
pub fn behind(name: &OsStr, path: &OsStr, openers: &Path) -> Option<PathBuf> {
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
            && !path.canonicalize().is_ok_and(|real| real.parent() == openers.parent())
    };
    std::env::split_paths(path)
        .filter(|folder| folder != openers)
        .map(|folder| folder.join(name))
        .find(|path| runs(path))
}

/// `text` as a URL that a browser may be sent to.
pub fn sign_in_url(text: &str) -> Option<String> {
    let text = text.trim();
    let fits = u64::try_from(text.len()).is_ok_and(|length| length <= MAX_URL);
    let url = url::Url::parse(text).ok().filter(|_| fits)?;
    matches!(url.scheme(), "http" | "https").then(|| url.into())
}

#[cfg(test)]
mod tests {
    use super::super::names::BROWSER;
    use super::*;

    #[test]
    fn only_web_addresses_are_taken() {
        assert_eq!(sign_in_url(" https://x.test/a?b=c\n").as_deref(), Some("https://x.test/a?b=c"));
        for bad in ["file:///etc/passwd", "javascript:alert(1)", "chrome://settings", "x", ""] {
            assert_eq!(sign_in_url(bad), None, "{bad}");
        }
        assert_eq!(sign_in_url(&format!("https://x.test/{}", "a".repeat(9000))), None);
    }

    #[test]
    fn python_waits_for_what_browser_names() {
        let folder = tempfile::tempdir().unwrap();
        for name in NAMES {
            std::os::unix::fs::symlink("/bin/true", folder.path().join(name)).unwrap();
        }
        let kind = |name: &str| {
            let mut python = std::process::Command::new("python3");
            python
                .args(["-c", "import webbrowser; print(type(webbrowser.get()).__name__)"])
                .env("PATH", format!("{}:/usr/bin:/bin", folder.path().display()))
                .env("BROWSER", folder.path().join(name))
                .env("DISPLAY", ":1");
            String::from_utf8(python.output().unwrap().stdout).unwrap().trim().to_owned()
        };
        assert_eq!(kind("xdg-open"), "BackgroundBrowser");
        assert_eq!(kind(BROWSER), "GenericBrowser");
    }

    #[test]
    fn the_address_is_found_as_browsers_and_openers_are_given_it() {
        let found = |line: &str| {
            let arguments: Vec<String> = line.split(' ').map(str::to_owned).collect();
            address(&arguments)
        };
        let page = "https://x.test/a?b=c";
        for line in [
            page,
            &format!("--new-window {page}"),
            &format!("--app={page}"),
            &format!("openURL {page} text/html"),
            &format!("--launch WebBrowser {page}"),
            &format!("-- {page} https://other.test/"),
        ] {
            assert_eq!(found(line).as_deref(), Some(page), "{line}");
        }
        for line in ["", "--version", "file:///etc/passwd", "--proxy-server=http://x.test"] {
            assert_eq!(found(line), None, "{line}");
        }
    }

    #[test]
    fn the_program_behind_is_none_of_ours() {
        let folder = tempfile::tempdir().unwrap();
        let (ours, theirs) = (folder.path().join("run/openers"), folder.path().join("bin"));
        let alternatives = folder.path().join("alternatives");
        for folder in [&ours, &theirs, &alternatives] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let agent = folder.path().join("run/agent");
        std::fs::copy("/bin/true", &agent).unwrap();
        std::os::unix::fs::symlink(&agent, ours.join("chromium")).unwrap();
        std::os::unix::fs::symlink(ours.join("chromium"), alternatives.join("chromium")).unwrap();
        let path = std::env::join_paths([&ours, &alternatives, &theirs]).unwrap();
        let real = || behind(OsStr::new("chromium"), &path, &ours);
        assert_eq!(real(), None);
        std::fs::copy("/bin/true", theirs.join("chromium")).unwrap();
        assert_eq!(real(), Some(theirs.join("chromium")));
    }

    #[test]
    fn browsers_that_programs_ask_for_by_their_names_are_ours() {
        // Those of npm's package `open`, and of channels that people install beside the stable one.
        let names = "google-chrome google-chrome-stable chromium brave-browser brave firefox \
                     microsoft-edge microsoft-edge-dev microsoft-edge-beta brave-browser-stable \
                     firefox-developer-edition firefox-nightly vivaldi-snapshot zen-browser";
        for name in names.split_whitespace() {
            assert!(is_opener(name), "{name}");
        }
    }

    #[test]
    fn the_name_decides() {
        assert!(is_opener("/run/anteroom/openers/xdg-open"));
        assert!(is_opener("/run/anteroom/openers/xdg-settings"));
        assert!(!is_opener("/init"));
    }
}
