//! What hostile guests sealed, and what comes of it.

use age::secrecy::ExposeSecret;
use age::x25519::Identity;
use anteroom_guest_protocol::keyring_entry;
use anteroom_session::{OpenableBy, SessionId};
use proptest::prelude::*;

use super::*;
use crate::envelope::Declared;
use crate::{ControllerKey, PublicKey};

/// A controller and an owner.
struct World {
    key: ControllerKey,
    identity: Identity,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = ControllerKey::open(&folder.path().join("key.pem")).unwrap();
        Self { key, identity: Identity::generate() }
    }

    fn seal(&self, archive: &[u8]) -> Vec<u8> {
        age::encrypt(&self.identity.to_public(), archive).unwrap()
    }

    fn statement(&self, sealed: &[u8], declared: Vec<Declared>) -> Statement {
        Statement {
            session: SessionId::generate(),
            provider: "demo".parse().unwrap(),
            sha256: Statement::digest(sealed),
            recipient: self.identity.to_public().to_string(),
            openable_by: OpenableBy::Caller,
            declared,
        }
    }

    fn envelope(&self, statement: &Statement) -> Envelope {
        let trusted: [PublicKey; 1] = [self.key.public().clone()];
        let json = statement.sign(&self.key).unwrap();
        Envelope::verify(json.as_bytes(), &trusted).unwrap()
    }

    fn open(&self, archive: &[u8]) -> Result<Bundle, BundleError> {
        let sealed = self.seal(archive);
        let envelope = self.envelope(&self.statement(&sealed, declared()));
        open_bundle(&sealed, self.identity.to_string().expose_secret(), &envelope)
    }
}

fn declared() -> Vec<Declared> {
    let attributes = [("service", "acme"), ("username", "*")];
    let attributes = attributes.map(|(name, value)| (name.to_owned(), value.to_owned()));
    vec![
        Declared::File { path: ".tool/auth.json".into() },
        Declared::Files { pattern: ".tool/cache/*.json".into() },
        Declared::File { path: ".tool/keys.db".into() },
        Declared::File { path: ".tool/keys.db-journal".into() },
        Declared::KeyringSecret { label: "Acme".into(), attributes: attributes.into() },
    ]
}

/// An entry as somebody wrote it by hand: the crate refuses to write what it should refuse to read.
fn entry(name: &str, kind: u8, mode: u32, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_mode(mode);
    header.set_size(content.len() as u64);
    header.as_old_mut().linkflag = [kind];
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_link_name("elsewhere").unwrap();
    header.set_cksum();
    let mut bytes = [header.as_bytes(), content].concat();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn archive(entries: &[Vec<u8>]) -> Vec<u8> {
    [entries.concat(), vec![0; 1024]].concat()
}

fn file(name: &str) -> Vec<u8> {
    entry(name, b'0', 0o600, b"{}")
}

fn refusal(result: Result<Bundle, BundleError>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn what_is_declared_comes_out() {
    let world = World::new();
    let item = KeyringItem {
        attributes: [("service", "acme"), ("username", "ada")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
        secret_base64: STANDARD.encode([0, 255, 1]),
        content_type: "text/plain".into(),
    };
    let json = serde_json::to_vec(&item).unwrap();
    let entries = [
        file(".tool/auth.json"),
        entry(".tool/cache/0f.json", b'0', 0o4777, &[0xef, 0xbb, 0xbf, 0, 255]),
        entry(&keyring_entry(0), b'0', 0o600, &json),
    ];
    let bundle = world.open(&archive(&entries)).unwrap();
    assert_eq!(bundle.files.len(), 2);
    assert_eq!(bundle.files[1].content, [0xef, 0xbb, 0xbf, 0, 255]);
    assert_eq!(
        (bundle.secrets[0].label.as_str(), &bundle.secrets[0].secret[..]),
        ("Acme", &[0, 255, 1][..])
    );
}

#[test]
fn names_that_are_not_declared_are_refused_by_name() {
    let world = World::new();
    for name in [
        ".bash_profile",
        ".ssh/authorized_keys",
        ".config/autostart/x.desktop",
        ".local/bin/ls",
        ".tool/AUTH.json",
        "./.tool/auth.json",
        ".tool/./auth.json",
        ".tool//auth.json",
        ".tool/x/../auth.json",
        "../home/.tool/auth.json",
        "/root/.tool/auth.json",
        ".tool/auth.json/",
        ".tool/cache/x/y.json",
        ".tool/cache/.json",
        ".anteroom/keyring/99.json",
        ".anteroom/keyring/x",
    ] {
        let refused = refusal(world.open(&archive(&[file(".tool/auth.json"), file(name)])));
        assert!(refused.contains(name) && refused.contains("undeclared"), "{refused}");
    }
    let refused = refusal(world.open(&archive(&[file(".a\u{1b}]0;x\u{7}"), file(".\u{202e}b")])));
    assert!(refused.contains(r".a\u{1b}]0;x\u{7}, .\u{202e}b"), "{refused}");
}

#[test]
fn other_kinds_of_entries_are_refused() {
    let world = World::new();
    let long = b".bash_profile\0";
    let pax = b"28 path=.ssh/authorized_keys\n";
    let sparse = b"30 GNU.sparse.name=.bashrc\n";
    let cases: [(&str, Vec<Vec<u8>>); 12] = [
        ("a link", vec![entry(".tool/auth.json", b'1', 0o600, b"")]),
        ("a link", vec![entry(".tool/auth.json", b'2', 0o600, b""), file(".tool/auth.json")]),
        ("a link", vec![entry(".tool", b'2', 0o600, b""), file(".tool/auth.json")]),
        ("not a regular file", vec![entry(".tool/auth.json", b'3', 0o600, b"")]),
        ("not a regular file", vec![entry(".tool/auth.json", b'4', 0o600, b"")]),
        ("a folder", vec![entry(".tool/", b'5', 0o4777, b"")]),
        ("not a regular file", vec![entry(".tool/auth.json", b'6', 0o600, b"")]),
        (
            "not a regular file",
            vec![entry("././@LongLink", b'L', 0, long), file(".tool/auth.json")],
        ),
        (
            "not a regular file",
            vec![entry("././@LongLink", b'K', 0, long), file(".tool/auth.json")],
        ),
        (
            "not a regular file",
            vec![entry("PaxHeaders/x", b'x', 0o600, pax), file(".tool/auth.json")],
        ),
        (
            "not a regular file",
            vec![entry("PaxHeaders/x", b'g', 0o600, sparse), file(".tool/auth.json")],
        ),
        ("not a regular file", vec![entry(".tool/auth.json", b'S', 0o600, b"")]),
    ];
    for (message, entries) in cases {
        let refused = refusal(world.open(&archive(&entries)));
        assert!(refused.contains(message), "{refused}");
    }
}

#[test]
fn twice_too_many_cut_off_and_empty_are_refused() {
    let world = World::new();
    let auth = file(".tool/auth.json");
    let many: Vec<_> = (0..=64).map(|n| file(&format!(".tool/cache/{n}.json"))).collect();
    let mut cut = entry(".tool/auth.json", b'0', 0o600, &[b'x'; 600]);
    cut.truncate(700);
    for (message, bytes) in [
        ("twice", archive(&[auth.clone(), auth.clone()])),
        ("more than 64", archive(&many)),
        ("cut off", cut),
        ("empty", archive(&[])),
        ("empty", Vec::new()),
    ] {
        let refused = refusal(world.open(&bytes));
        assert!(refused.contains(message), "{message}: {refused}");
    }
}

#[test]
fn secrets_that_other_programs_would_find_are_refused() {
    let world = World::new();
    let open = |pairs: &[(&str, &str)], times: usize| {
        let attributes = pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let content_type = "text/plain".to_owned();
        let item = KeyringItem { attributes, secret_base64: String::new(), content_type };
        let json = serde_json::to_vec(&item).unwrap();
        let entries: Vec<_> =
            (0..times).map(|n| entry(&keyring_entry(n), b'0', 0o600, &json)).collect();
        world.open(&archive(&entries))
    };
    let ada = [("service", "acme"), ("username", "ada")];
    assert_eq!(open(&ada, 1).unwrap().secrets.len(), 1);
    assert!(refusal(open(&ada, 2)).contains("the same attributes"));
    let refused = refusal(open(&[ada[0], ada[1], ("application", "chrome\u{7}")], 1));
    assert!(refused.contains(r"application=chrome\u{7} service=acme"), "{refused}");
    assert!(open(&[("service", "other"), ("username", "ada")], 1).is_err());
}

#[test]
fn an_envelope_is_of_its_own_bytes_and_recipient() {
    let world = World::new();
    let text = world.identity.to_string();
    let sealed = world.seal(&archive(&[file(".tool/auth.json")]));
    let statement = world.statement(&sealed, declared());
    let own = world.envelope(&statement);
    open_bundle(&sealed, text.expose_secret(), &own).unwrap();

    // The same files of another sign-in, sealed to the same key.
    let replaced = world.seal(&archive(&[file(".tool/auth.json")]));
    let refused = refusal(open_bundle(&replaced, text.expose_secret(), &own));
    assert!(refused.contains("does not belong to this file"), "{refused}");
    let other = Identity::generate().to_string();
    let refused = refusal(open_bundle(&sealed, other.expose_secret(), &own));
    assert!(refused.contains("it is sealed to age1"), "{refused}");
    let for_other = Statement { recipient: "age1x".into(), ..statement };
    let refused = refusal(open_bundle(&sealed, text.expose_secret(), &world.envelope(&for_other)));
    assert!(refused.contains("it is sealed to age1x"), "{refused}");
    assert!(open_bundle(&sealed, "nonsense", &own).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic_and_none_bring_out_what_is_not_declared(
        bytes in proptest::collection::vec(any::<u8>(), 0..2048),
        at in 0usize..512,
        with in any::<u8>(),
    ) {
        let mut changed = archive(&[file(".tool/auth.json"), file(".tool/cache/1.json")]);
        changed[at] = with;
        for bytes in [bytes, changed] {
            for entry in entries(&bytes).unwrap_or_default() {
                prop_assert!(bytes.len() >= entry.content.len());
            }
        }
    }
}

/// As SQLite 3.40 was seen to do with it: it removed the victim.
#[test]
fn a_journal_that_has_sqlite_remove_another_file_is_refused() {
    let world = World::new();
    let magic = [0xd9, 0xd5, 0x05, 0xf9, 0x20, 0xa1, 0x63, 0xd7];
    let victim = b"/home/ada/.ssh/id_ed25519";
    let sum: u32 = victim.iter().map(|byte| u32::from(*byte)).sum();
    let length = u32::try_from(victim.len()).unwrap();
    let plain = [&magic[..], &[0; 504]].concat();
    let hostile = [&plain[..], victim, &length.to_be_bytes(), &sum.to_be_bytes(), &magic].concat();
    let with = |journal: &[u8]| {
        world.open(&archive(&[
            file(".tool/keys.db"),
            entry(".tool/keys.db-journal", b'0', 0o600, journal),
        ]))
    };
    assert_eq!(with(&plain).unwrap().files.len(), 2);
    let refused = refusal(with(&hostile));
    assert!(refused.contains("which SQLite would remove"), "{refused}");
}
