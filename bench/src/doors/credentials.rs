//! What a hostile sandbox seals, and what comes of it where its credential is opened: by the program that
//! users run, with a controller's own key.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anteroom_session::{OpenableBy, SessionId};
use anteroom_vault::{ControllerKey, Declared, Statement, create_identity};
use anyhow::{Context, Result, anyhow};

use super::{Outcome, Tries};

const DECLARED: &str = ".tool/auth.json";

/// An owner's machine, and a controller's state folder.
struct World {
    folder: tempfile::TempDir,
    anteroom: PathBuf,
    key: ControllerKey,
    recipient: String,
}

/// A sealed credential and its envelope.
struct Sealed {
    bytes: Vec<u8>,
    envelope: Vec<u8>,
}

/// Makes the attacks.
pub fn attack(anteroom: &Path, tries: &mut Tries) -> Result<()> {
    let world = World::new(anteroom)?;
    world.control()?;
    names(&world, tries)?;
    kinds(&world, tries)?;
    envelopes(&world, tries)?;
    homes(&world, tries)?;
    modes(&world, tries)?;
    race(&world, tries)
}

/// Files that a login shell, a desktop or sshd acts on, and ways to spell them.
fn names(world: &World, tries: &mut Tries) -> Result<()> {
    for name in [
        ".bash_profile",
        ".ssh/authorized_keys",
        ".config/autostart/x.desktop",
        ".local/bin/ls",
        ".tool/AUTH.json",
        "./.tool/auth.json",
        ".tool//auth.json",
        ".tool/../.bashrc",
        "../outside",
        "/etc/anteroom-was-here",
        ".tool/auth.json/../../.profile",
    ] {
        let sealed = world.seal(&[file(DECLARED), entry(name, b'0', 0o755, b"id\n")])?;
        world.record(tries, &format!("a file {name} beside the credential"), &sealed)?;
    }
    let loud = ".tool/\u{1b}]0;owned\u{7}\u{1b}[2J";
    let sealed = world.seal(&[file(loud)])?;
    for list in [true, false] {
        let output = world.open(&sealed, list)?;
        let said = [output.stdout, output.stderr].concat();
        let outcome = match said.contains(&0x1b) || said.contains(&0x07) {
            true => Outcome::Passed("an escape sequence reached the terminal".to_owned()),
            false => Outcome::Refused,
        };
        let how = if list { "listed" } else { "opened" };
        tries.record(&format!("a name with escape sequences, {how}"), outcome);
    }
    Ok(())
}

/// Entries that are more than a file.
fn kinds(world: &World, tries: &mut Tries) -> Result<()> {
    let auth = || file(DECLARED);
    let link = |name: &str, kind| linked(name, kind, "../../outside");
    for (what, entries) in [
        ("a symbolic link, then a file through it", vec![link(".tool", b'2'), auth()]),
        ("a symbolic link in the file's place, then the file", vec![link(DECLARED, b'2'), auth()]),
        ("a hard link", vec![linked(DECLARED, b'1', "/etc/passwd")]),
        ("a device", vec![entry(DECLARED, b'3', 0o666, b"")]),
        ("a FIFO", vec![entry(DECLARED, b'6', 0o666, b"")]),
        ("a folder with everybody's rights", vec![entry(".tool/", b'5', 0o4777, b""), auth()]),
        (
            "a PAX header with another path",
            vec![entry("PaxHeaders/x", b'x', 0o600, b"23 path=.bash_profile12\n"), auth()],
        ),
        (
            "a global PAX header",
            vec![entry("PaxHeaders/g", b'g', 0o600, b"23 path=.bash_profile12\n"), auth()],
        ),
        ("a GNU long name", vec![entry("././@LongLink", b'L', 0, b".bash_profile\0"), auth()]),
        ("a GNU sparse file", vec![entry(DECLARED, b'S', 0o600, b"")]),
        ("the same file twice", vec![auth(), auth()]),
    ] {
        world.record(tries, what, &world.seal(&entries)?)?;
    }
    Ok(())
}

/// The controller's word, replaced.
fn envelopes(world: &World, tries: &mut Tries) -> Result<()> {
    let (one, other) = (world.seal(&[file(DECLARED)])?, world.seal(&[file(DECLARED)])?);
    let of = |bytes: &Sealed, envelope: &[u8]| Sealed {
        bytes: bytes.bytes.clone(),
        envelope: envelope.to_vec(),
    };
    world.record(tries, "the envelope of another session", &of(&one, &other.envelope))?;
    world.record(
        tries,
        "the bytes of another credential of the same provider",
        &of(&other, &one.envelope),
    )?;
    let hostile = world.seal_as(&[file(".bash_profile")], DECLARED, &world.key)?;
    let text = String::from_utf8(hostile.envelope.clone())?;
    let mut json: serde_json::Value = serde_json::from_str(&text)?;
    let payload = json["payload"].as_str().context("an envelope has a payload")?;
    let payload = String::from_utf8(decode(payload)?)?.replace(DECLARED, ".bash_profile");
    json["payload"] = encode(payload.as_bytes()).into();
    world.record(tries, "a changed envelope", &of(&hostile, json.to_string().as_bytes()))?;
    let stranger = ControllerKey::open(&world.folder.path().join("stranger.pem"))?;
    let signed = world.seal_as(&[file(".bash_profile")], ".bash_profile", &stranger)?;
    world.record(tries, "an envelope signed with another key", &signed)?;
    world.record(tries, "an empty object in place of an envelope", &of(&one, b"{}"))?;
    let unsealed = Sealed { bytes: b"age-encryption.org/v1\n".to_vec(), envelope: one.envelope };
    world.record(tries, "bytes that are not an age file", &unsealed)
}

/// Links that are in the home already.
fn homes(world: &World, tries: &mut Tries) -> Result<()> {
    let sealed = world.seal(&[file(DECLARED)])?;
    let outside = world.folder.path().join("outside");
    for (what, link) in [("folder", ".tool"), ("file", DECLARED)] {
        world.empty_home()?;
        let link = world.home().join(link);
        if let Some(folder) = link.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::os::unix::fs::symlink(&outside, link)?;
        world.open(&sealed, false)?;
        tries.record(&format!("a {what} that is a link out of the home"), world.outside());
        let _ = std::fs::remove_dir_all(&outside);
        std::fs::create_dir(&outside)?;
    }
    Ok(())
}

/// The declared file itself, to be run by everybody as its owner.
fn modes(world: &World, tries: &mut Tries) -> Result<()> {
    use std::os::unix::fs::PermissionsExt;
    for mode in [0o4755, 0o777] {
        world.empty_home()?;
        let sealed = world.seal(&[entry(DECLARED, b'0', mode, b"{}")])?;
        world.open(&sealed, false)?;
        let found = std::fs::metadata(world.home().join(DECLARED))?.permissions().mode() & 0o7777;
        let outcome = match found {
            0o600 => Outcome::Refused,
            found => Outcome::Passed(format!("it has the mode {found:o}")),
        };
        tries.record(&format!("a credential with the mode {mode:o}"), outcome);
    }
    Ok(())
}

/// Somebody swaps the folder for a link while the credential is opened.
fn race(world: &World, tries: &mut Tries) -> Result<()> {
    let sealed = world.seal(&[file(DECLARED)])?;
    world.empty_home()?;
    let (folder, aside) = (world.home().join(".tool"), world.home().join(".aside"));
    std::fs::create_dir(&folder)?;
    let outside = world.folder.path().join("outside");
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let swapper = std::thread::spawn(move || {
        while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
            let _ = std::fs::rename(&folder, &aside);
            let _ = std::os::unix::fs::symlink(&outside, &folder);
            let _ = std::fs::remove_file(&folder);
            let _ = std::fs::rename(&aside, &folder);
        }
    });
    for _ in 0..20 {
        world.open(&sealed, false)?;
    }
    drop(stop);
    swapper.join().map_err(|_| anyhow!("swapping links failed"))?;
    tries.record("a race with a link, 20 times", world.outside());
    Ok(())
}

impl World {
    fn new(anteroom: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("xtask-doors-").tempdir()?;
        let key = ControllerKey::open(&folder.path().join("state/vault/controller.pem"))?;
        let recipient = create_identity(&folder.path().join("identity.txt"))?;
        std::fs::create_dir(folder.path().join("outside"))?;
        Ok(Self { folder, anteroom: anteroom.to_owned(), key, recipient })
    }

    fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    fn empty_home(&self) -> Result<()> {
        let _ = std::fs::remove_dir_all(self.home());
        Ok(std::fs::create_dir(self.home())?)
    }

    /// That an honest credential does come out: else every attack would be refused.
    fn control(&self) -> Result<()> {
        self.empty_home()?;
        let output = self.open(&self.seal(&[file(DECLARED)])?, false)?;
        let there = self.home().join(DECLARED).is_file();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        there.then_some(()).with_context(|| format!("an honest credential was refused: {said}"))
    }

    fn seal(&self, entries: &[Vec<u8>]) -> Result<Sealed> {
        self.seal_as(entries, DECLARED, &self.key)
    }

    fn seal_as(&self, entries: &[Vec<u8>], path: &str, key: &ControllerKey) -> Result<Sealed> {
        let recipient: age::x25519::Recipient =
            self.recipient.parse().map_err(|cause| anyhow!("no recipient: {cause}"))?;
        let bytes = age::encrypt(&recipient, &[entries.concat(), vec![0; 1024]].concat())?;
        let statement = Statement {
            session: SessionId::generate(),
            provider: "demo".parse()?,
            sha256: Statement::digest(&bytes),
            recipient: self.recipient.clone(),
            openable_by: OpenableBy::Caller,
            declared: vec![Declared::File { path: path.to_owned() }],
        };
        Ok(Sealed { bytes, envelope: statement.sign(key)?.into_bytes() })
    }

    fn open(&self, sealed: &Sealed, list: bool) -> Result<Output> {
        let folder = self.folder.path();
        let path = folder.join("credential.age");
        std::fs::write(&path, &sealed.bytes)?;
        std::fs::write(folder.join("credential.age.envelope.json"), &sealed.envelope)?;
        let mut open = Command::new(&self.anteroom);
        open.args(["credentials", "open"]).arg(path);
        open.arg("-i")
            .arg(folder.join("identity.txt"))
            .arg("--state-dir")
            .arg(folder.join("state"));
        match list {
            true => open.arg("--list"),
            false => open.arg("--force").arg("--home").arg(self.home()),
        };
        let output = open.env("XDG_DATA_HOME", folder.join("data")).output()?;
        Ok(output)
    }

    /// Opens it in an empty home: nothing may be there then, nor outside.
    fn record(&self, tries: &mut Tries, what: &str, sealed: &Sealed) -> Result<()> {
        self.empty_home()?;
        let output = self.open(sealed, false)?;
        let left: Vec<_> = std::fs::read_dir(self.home())?.flatten().collect();
        let outcome = match self.outside() {
            Outcome::Refused if output.status.success() => {
                Outcome::Passed("it was opened".to_owned())
            }
            Outcome::Refused if !left.is_empty() => {
                Outcome::Passed(format!("the home holds {:?}", left[0].file_name()))
            }
            outcome => outcome,
        };
        tries.record(what, outcome);
        Ok(())
    }

    fn outside(&self) -> Outcome {
        let outside = self.folder.path().join("outside");
        let found = std::fs::read_dir(&outside).into_iter().flatten().flatten().next();
        match found {
            Some(found) => {
                Outcome::Passed(format!("{} is outside the home", found.path().display()))
            }
            None if !outside.is_dir() => Outcome::Passed("what is outside was changed".to_owned()),
            None => Outcome::Refused,
        }
    }
}

fn file(name: &str) -> Vec<u8> {
    entry(name, b'0', 0o600, b"{}")
}

fn entry(name: &str, kind: u8, mode: u32, content: &[u8]) -> Vec<u8> {
    raw(name, kind, mode, content, "")
}

fn linked(name: &str, kind: u8, target: &str) -> Vec<u8> {
    raw(name, kind, 0o777, b"", target)
}

/// A tar entry as somebody wrote it by hand: the crate refuses to write some of these.
fn raw(name: &str, kind: u8, mode: u32, content: &[u8], target: &str) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    let old = header.as_old_mut();
    old.linkflag = [kind];
    old.name[..name.len()].copy_from_slice(name.as_bytes());
    old.linkname[..target.len()].copy_from_slice(target.as_bytes());
    header.set_cksum();
    let mut bytes = [header.as_bytes(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn decode(base64: &str) -> Result<Vec<u8>> {
    use base64::Engine;
    Ok(base64::engine::general_purpose::STANDARD.decode(base64)?)
}

fn encode(bytes: &[u8]) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}
