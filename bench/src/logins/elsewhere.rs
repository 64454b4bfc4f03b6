//! At its owner's: whether what came out of a sandbox is what the CLI wrote there, and works on this
//! machine, in another home.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use base64::Engine;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::mock_idp::MockIdp;
use super::{Cli, VerifiedBy};
use crate::identity::Identity;
use anteroom_testkit::Sealed;
use xtask::shell;

/// How long a CLI may take over a call.
const CALL: &str = "60";

/// A desktop of the owner's, whose keyring is unlocked; runs the arguments there.
const DESKTOP: &str = r#"
printf password | gnome-keyring-daemon --unlock --components=secrets > "$HOME.keyring.log" 2>&1
exec "$0" "$@" < /dev/null
"#;

/// Who issued the credential, and what was logged of its making.
pub struct Issuer<'a> {
    pub mock_idp: &'a MockIdp,
    pub log: &'a str,
}

/// Whether the bundle is what the CLI wrote, and the CLI takes it in another home, on this machine.
pub fn works(
    anteroom: &Path,
    cli: &Cli,
    sealed: &Sealed,
    identity: &Identity,
    issuer: &Issuer<'_>,
) -> Result<bool> {
    let folder = tempfile::Builder::new().prefix("xtask-home-").tempdir()?;
    let home = folder.path().join("home");
    std::fs::create_dir(&home)?;
    let mut open = identity.restoring(anteroom, folder.path(), sealed)?;
    if matches!(cli.verified_by, VerifiedBy::Calls(_)) {
        open = on_a_desktop(&open, &home);
    }
    shell::output(&mut open)?;
    let content = std::fs::read(home.join(cli.file)).context("the bundle lacks its file")?;
    let digest = hex::encode(Sha256::digest(&content));
    // One that goes on has no last word; its tokens are those that were issued.
    let by_token =
        matches!(cli.verified_by, VerifiedBy::Token) && issued(&content, issuer.mock_idp);
    let same = issuer.log.contains(&digest) || by_token;
    if !same {
        eprintln!("{}: the file in the bundle is another one than the CLI's", cli.provider);
    }
    let program = |name: &str| unpack(cli.provider, name, folder.path()).map(Command::new);
    let works = match cli.verified_by {
        VerifiedBy::Says { question: [name, arguments @ ..], answer } => {
            says(program(name)?.args(arguments), &home, answer)?
        }
        VerifiedBy::Calls([name, arguments @ ..]) => {
            calls_with_it(program(name)?.args(arguments), &home, issuer.mock_idp)?
        }
        _ => true,
    };
    Ok(same && works)
}

fn says(asked: &mut Command, home: &Path, answer: &str) -> Result<bool> {
    let asked = asked.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin");
    let said = asked.output().context("asking the CLI on this machine failed")?;
    let said = [said.stdout, said.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if !said.contains(answer) {
        eprintln!("on this machine it says: {}", said.trim());
    }
    Ok(said.contains(answer))
}

/// Whether a CLI calls with a token that was issued, on a desktop whose keyring alone has it.
fn calls_with_it(cli: &Command, home: &Path, mock_idp: &MockIdp) -> Result<bool> {
    let before = mock_idp.used().len();
    let mut bounded = Command::new("timeout");
    bounded.arg(CALL).arg(cli.get_program()).args(cli.get_args());
    let mut desktop = on_a_desktop(&bounded, home);
    mock_idp.lead(&mut desktop);
    let said = desktop.output().context("starting a desktop session failed")?;
    let issued = mock_idp.issued();
    let found = mock_idp.used()[before..].iter().any(|used| issued.contains(used));
    if !found {
        let said = [said.stdout, said.stderr].concat();
        eprintln!("on this machine it says: {}", String::from_utf8_lossy(&said).trim());
    }
    Ok(found)
}

/// A command in a desktop session whose home this is.
fn on_a_desktop(command: &Command, home: &Path) -> Command {
    let mut desktop = Command::new("dbus-run-session");
    desktop.args(["--", "sh", "-c", DESKTOP]).arg(command.get_program()).args(command.get_args());
    desktop.env_clear().env("HOME", home).env("PATH", "/usr/bin:/bin");
    desktop.env("XDG_RUNTIME_DIR", home.with_file_name("run"));
    desktop
}

/// Whether the refresh token of a JSON file, or the token that is the file, is one that the mock identity provider issued.
fn issued(content: &[u8], mock_idp: &MockIdp) -> bool {
    let json: Value = serde_json::from_slice(content).unwrap_or_default();
    // A file without JSON is the token itself.
    let whole = std::str::from_utf8(content).unwrap_or_default().trim();
    let token = json["refresh_token"].as_str().unwrap_or(whole);
    mock_idp.issued().contains(&hex::encode(Sha256::digest(token)))
}

/// Where Anteroom keeps the packages that recipes name.
fn package_cache() -> PathBuf {
    let own = std::env::home_dir().unwrap_or_default().join(".cache/anteroom");
    let usual = PathBuf::from("/var/cache/anteroom");
    let cache = std::env::var_os("XDG_CACHE_HOME").map(|base| PathBuf::from(base).join("anteroom"));
    let places = [cache, Some(usual), Some(own)].into_iter().flatten();
    let mut archives = places.map(|place| place.join("archives"));
    archives.find(|archives| archives.is_dir()).unwrap_or_default()
}

/// The CLI's program for this machine: from the npm package that the image was made of.
fn unpack(provider: &str, program: &str, folder: &Path) -> Result<PathBuf> {
    let path = shell::root().join(format!("providers/{provider}.toml"));
    let file: toml::Table = std::fs::read_to_string(path)?.parse()?;
    let packages = file.get("install").and_then(|install| install.get("npm")?.as_array());
    let first = packages.and_then(|packages| packages.first()?.get("integrity")?.as_str());
    let integrity = first.and_then(|integrity| integrity.strip_prefix("sha512-"));
    let integrity = integrity.with_context(|| format!("{provider} has no npm package"))?;
    let digest = base64::engine::general_purpose::STANDARD.decode(integrity)?;
    let package = package_cache().join(format!("{}.tgz", hex::encode(digest)));
    let into = folder.join("program");
    std::fs::create_dir(&into)?;
    shell::run(Command::new("tar").arg("-xf").arg(package).arg("-C").arg(&into))?;
    let mut find = Command::new("find");
    find.arg(&into).args(["-type", "f", "-name", program, "-perm", "-u+x"]);
    let found = shell::output(&mut find)?;
    let first = found.lines().next().with_context(|| format!("{program} is not in its package"))?;
    Ok(first.into())
}
