use std::path::Path;

use anteroom_guest_protocol::{Completeness, CredentialFileSpec};

use super::super::bundle::archive;
use super::super::missing::Missing;
use super::super::seal::seal;
use super::*;
use crate::guest::GuestKind;

fn watched(folder: &Path, files: &[(&str, Completeness, bool)]) -> Watched {
    let guest = Guest {
        kind: GuestKind::Host,
        home: folder.to_path_buf(),
        runtime: folder.to_path_buf(),
        preferences: std::sync::Arc::default(),
    };
    let files = files.iter().map(|(path, complete, optional)| CredentialFileSpec {
        path: (*path).to_owned(),
        complete: complete.clone(),
        optional: *optional,
        max_bytes: 100,
    });
    let files = files.collect();
    let spec = CredentialSpec {
        files,
        keyring: vec![],
        printed: vec![],
        awaits_screen: false,
        status: None,
    };
    Watched::new(&spec, &guest).unwrap()
}

fn names(watched: &Watched) -> Vec<String> {
    match watched.look() {
        Look::Complete(files) => files.into_iter().map(|file| file.path).collect(),
        other => panic!("{other:?}"),
    }
}

fn json() -> Completeness {
    Completeness::Json { pointers: vec!["/tokens/access".into()] }
}

#[test]
fn only_a_whole_file_with_every_field_is_complete() {
    let folder = tempfile::tempdir().unwrap();
    let watched = watched(folder.path(), &[("auth.json", json(), false)]);
    let cases: [(&str, bool); 5] = [
        ("", false),
        (r#"{"tokens":{"access":"a""#, false),
        (r#"{"tokens":{"access":""}}"#, false),
        (r#"{"tokens":{}}"#, false),
        (r#"{"tokens":{"access":"a"}}"#, true),
    ];
    let none = Missing::File { name: "auth.json".into() };
    assert_eq!(watched.look(), Look::Incomplete(none));
    for (content, complete) in cases {
        std::fs::write(folder.path().join("auth.json"), content).unwrap();
        assert_eq!(matches!(watched.look(), Look::Complete(_)), complete, "{content}");
    }
}

#[test]
fn several_files_are_one_credential_with_their_modes() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let text = Completeness::Text { patterns: vec![r"(?m)^\s+oauth_token: \S+".into()] };
    let any = Completeness::Json { pointers: vec![] };
    let files = [(".a/hosts.yml", text, false), (".b.json", any, true)];
    let watched = watched(folder.path(), &files);
    std::fs::create_dir(folder.path().join(".a")).unwrap();
    let path = folder.path().join(".a/hosts.yml");
    std::fs::write(&path, "github.com:\n    user: ada\n").unwrap();
    let Look::Incomplete(missing) = watched.look() else { panic!() };
    let said = missing.after_success(None);
    assert!(said.contains("~/.a/hosts.yml exists, but nothing in it matches"), "{said}");
    assert!(!said.contains("keyring"), "nobody looked: {said}");
    std::fs::write(&path, "github.com:\n    oauth_token: gho_x\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    let Look::Complete(found) = watched.look() else { panic!() };
    assert_eq!((found.len(), found[0].mode), (1, 0o640));
    std::fs::write(folder.path().join(".b.json"), "{}").unwrap();
    let Look::Complete(found) = watched.look() else { panic!() };
    let bytes = archive(&found).unwrap();
    assert_eq!(bytes, archive(&found).unwrap());
    let mut archive = tar::Archive::new(&bytes[..]);
    let names = archive.entries().unwrap().map(|e| e.unwrap().path().unwrap().into_owned());
    assert_eq!(names.collect::<Vec<_>>(), [Path::new(".a/hosts.yml"), Path::new(".b.json")]);
}

#[test]
fn a_path_that_only_an_extension_of_the_archive_could_hold_is_refused_by_its_name() {
    let folder = tempfile::tempdir().unwrap();
    for (name, fits) in [("n".repeat(100), true), ("n".repeat(101), false)] {
        let path = format!("{}/{name}", "d".repeat(100));
        let watched = watched(folder.path(), &[(&path, json(), false)]);
        std::fs::create_dir_all(folder.path().join("d".repeat(100))).unwrap();
        std::fs::write(folder.path().join(&path), r#"{"tokens":{"access":"x"}}"#).unwrap();
        match watched.look() {
            Look::Complete(found) if fits => {
                let bytes = archive(&found).unwrap();
                let mut archive = tar::Archive::new(&bytes[..]);
                let mut entries = archive.entries().unwrap().raw(true);
                let entry = entries.next().unwrap().unwrap();
                assert_eq!(entry.path_bytes(), path.as_bytes());
            }
            Look::Refused(cause) if !fits => assert!(cause.contains(&name), "{cause}"),
            look => panic!("{look:?}"),
        }
    }
}

#[test]
fn what_is_there_and_not_as_it_should_be_is_not_reported_as_missing() {
    let folder = tempfile::tempdir().unwrap();
    let complete = Completeness::Json { pointers: vec!["/a".into()] };
    let watched = watched(folder.path(), &[("c.json", complete, false)]);
    let said = || {
        let Look::Incomplete(missing) = watched.look() else { panic!() };
        missing.after_success(None)
    };
    assert!(said().contains("~/c.json does not exist"), "{}", said());
    for (content, what) in [
        (r#"{"b":1}"#, "exists, but has no /a"),
        (r#"{"a":null}"#, "exists, but has no /a"),
        (r#"{"a":12}"#, "exists, but its /a is not a string"),
        (r#"{"a":""}"#, "exists, but its /a is empty"),
    ] {
        std::fs::write(folder.path().join("c.json"), content).unwrap();
        assert!(said().contains(what), "{}", said());
    }
    std::fs::remove_file(folder.path().join("c.json")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("c.json")).unwrap();
    assert!(said().contains("exists, but cannot be opened"), "{}", said());
}

#[test]
fn bytes_that_came_after_the_turn_began_are_the_tool_s_own_news() {
    let folder = tempfile::tempdir().unwrap();
    let watched = watched(folder.path(), &[("s.db", Completeness::Binary {}, false)]);
    std::fs::write(folder.path().join("s.db"), "opened").unwrap();
    assert!(!watched.counts(&watched.look()), "nobody's turn has begun");
    watched.turn_begins();
    assert!(!watched.counts(&watched.look()));
    std::fs::write(folder.path().join("s.db"), "signed in").unwrap();
    assert!(watched.counts(&watched.look()));
}

#[test]
fn a_byte_order_mark_is_passed_over_and_kept() {
    let folder = tempfile::tempdir().unwrap();
    let text = Completeness::Text { patterns: vec!["^token=.".into()] };
    let watched = watched(folder.path(), &[("a.json", json(), false), ("b", text, false)]);
    let (json, text) = (r#"{"tokens":{"access":"ä"}}"#, "token=ä");
    let utf_8 = |text: &str| [&[0xef, 0xbb, 0xbf], text.as_bytes()].concat();
    let utf_16 = |text: &str, bytes: fn(u16) -> [u8; 2]| -> Vec<u8> {
        "\u{feff}".encode_utf16().chain(text.encode_utf16()).flat_map(bytes).collect()
    };
    type Form<'a> = &'a dyn Fn(&str) -> Vec<u8>;
    let forms: [Form; 4] = [
        &|text| text.as_bytes().to_vec(),
        &utf_8,
        &|text| utf_16(text, u16::to_le_bytes),
        &|text| utf_16(text, u16::to_be_bytes),
    ];
    for form in forms {
        std::fs::write(folder.path().join("a.json"), form(json)).unwrap();
        std::fs::write(folder.path().join("b"), form(text)).unwrap();
        let Look::Complete(found) = watched.look() else { panic!("{:?}", form(json)) };
        assert_eq!(found[0].content, form(json));
        assert_eq!(found[1].content, form(text));
    }
    for (broken, what) in [
        (&b"\xef\xbb\xbf{"[..], "is not valid JSON (line 1, column 1)"),
        (b"\xff\xfe{", "is not UTF-8 or UTF-16 text"),
        (b"SQLite format 3\0\xff", "is not UTF-8 or UTF-16 text"),
        (b"", "is empty"),
    ] {
        std::fs::write(folder.path().join("a.json"), broken).unwrap();
        let name = "a.json".to_owned();
        let missing = Missing::Content { name, what: what.to_owned() };
        assert_eq!(watched.look(), Look::Incomplete(missing));
    }
}

#[test]
fn a_database_is_taken_with_what_is_kept_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    let watched = watched(folder.path(), &[("t/a.db", Completeness::Binary {}, false)]);
    std::fs::create_dir(folder.path().join("t")).unwrap();
    std::fs::write(folder.path().join("t/a.db-wal"), "frames").unwrap();
    let none = Missing::File { name: "t/a.db".into() };
    assert_eq!(watched.look(), Look::Incomplete(none), "a log without its database");
    std::fs::write(folder.path().join("t/a.db"), b"SQLite format 3\0\xff").unwrap();
    std::fs::write(folder.path().join("t/a.db-shm"), "").unwrap();
    std::fs::write(folder.path().join("t/other"), "x").unwrap();
    assert_eq!(names(&watched), ["t/a.db", "t/a.db-wal"]);
    std::fs::remove_file(folder.path().join("t/a.db-wal")).unwrap();
    let journal = folder.path().join("t/a.db-journal");
    std::fs::write(&journal, "pages").unwrap();
    assert_eq!(names(&watched), ["t/a.db", "t/a.db-journal"]);
    std::fs::write(&journal, b"name\xd9\xd5\x05\xf9\x20\xa1\x63\xd7").unwrap();
    assert!(matches!(watched.look(), Look::Refused(cause) if cause.contains("a.db-journal")));
    std::fs::remove_file(journal).unwrap();
    std::os::unix::fs::symlink("/etc/hostname", folder.path().join("t/a.db-wal")).unwrap();
    assert!(matches!(watched.look(), Look::Refused(_)));
}

#[test]
fn a_name_that_is_known_afterwards_is_found_by_its_pattern() {
    let folder = tempfile::tempdir().unwrap();
    let declared = [("t/token-*.json", json(), false), ("t/x*", Completeness::Binary {}, true)];
    let watched = watched(folder.path(), &declared);
    let none = Missing::File { name: "t/token-*.json".into() };
    assert_eq!(watched.look(), Look::Incomplete(none.clone()));
    std::fs::create_dir(folder.path().join("t")).unwrap();
    std::fs::write(folder.path().join("t/token-.json"), "{}").unwrap();
    assert_eq!(watched.look(), Look::Incomplete(none), "nothing stands for the *");
    std::fs::write(folder.path().join("t/token-client.json"), "{}").unwrap();
    let Look::Incomplete(missing) = watched.look() else { panic!() };
    let said = missing.after_success(None);
    assert!(said.contains("~/t/token-client.json exists, but has no /tokens/access"), "{said}");
    let whole = r#"{"tokens":{"access":"a"}}"#;
    std::fs::write(folder.path().join("t/token-3f.json"), whole).unwrap();
    assert_eq!(names(&watched), ["t/token-3f.json"], "another is called alike");
    for name in ["t/xa", "t/xa-wal", "t/token-4f.json"] {
        std::fs::write(folder.path().join(name), whole).unwrap();
    }
    let all = ["t/token-3f.json", "t/token-4f.json", "t/xa", "t/xa-wal"];
    assert_eq!(names(&watched), all);
}

#[tokio::test]
async fn a_database_that_was_there_before_the_end_user_s_turn_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let watched = watched(folder.path(), &[("a.db", Completeness::Binary {}, false)]);
    std::fs::write(folder.path().join("a.db"), "no token yet").unwrap();
    watched.turn_begins();
    let soon = Duration::from_secs(1);
    assert!(tokio::time::timeout(soon, watched.until_stable()).await.is_err());
    std::fs::write(folder.path().join("a.db"), "a token").unwrap();
    watched.turn_begins();
    watched.until_stable().await.unwrap();
}

#[tokio::test]
async fn what_a_tool_writes_before_its_address_is_no_sign_in() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.json");
    let write = |token: &str| {
        std::fs::write(&path, format!(r#"{{"tokens":{{"access":"{token}"}}}}"#)).unwrap();
    };
    let soon = Duration::from_secs(1);
    let of_nobody = watched(folder.path(), &[("auth.json", json(), false)]);
    write("of the device");
    of_nobody.until_stable().await.unwrap();
    assert!(of_nobody.counts(&of_nobody.look()), "no address was given");
    let late = watched(folder.path(), &[("auth.json", json(), false)]);
    late.address_shown();
    assert!(late.counts(&late.look()), "the address may be of anything");
    write("of ada");
    late.turn_began();
    assert!(late.counts(&late.look()), "written before the host had read the address");
    late.until_stable().await.unwrap();
    let quick = watched(folder.path(), &[("auth.json", json(), false)]);
    quick.turn_began();
    assert!(!quick.counts(&quick.look()));
    assert!(tokio::time::timeout(soon, quick.until_stable()).await.is_err());
    write("of eve");
    quick.until_stable().await.unwrap();
}

#[test]
fn links_pipes_and_large_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("auth.json");
    let watched = watched(
        folder.path(),
        &[("auth.json", json(), false), (".linked/x/auth.json", json(), true)],
    );
    let refused = |watched: &Watched| match watched.look() {
        Look::Refused(cause) => cause,
        other => panic!("{other:?}"),
    };
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    assert!(refused(&watched).ends_with("is a symbolic link"));
    std::fs::remove_file(&path).unwrap();
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    assert!(refused(&watched).ends_with("is not a regular file"));
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, vec![b' '; 101]).unwrap();
    assert!(refused(&watched).ends_with("has 101 bytes; at most 100 are allowed"));
    std::fs::write(&path, r#"{"tokens":{"access":"a"}}"#).unwrap();
    std::os::unix::fs::symlink("/tmp", folder.path().join(".linked")).unwrap();
    assert!(refused(&watched).contains("is behind a symbolic link"));
}

#[test]
fn what_is_sealed_opens_with_the_identity_alone() {
    let identity = age::x25519::Identity::generate();
    let sealed = seal(b"secret", &identity.to_public().to_string()).unwrap();
    assert_eq!(age::decrypt(&identity, &sealed).unwrap(), b"secret");
    assert!(age::decrypt(&age::x25519::Identity::generate(), &sealed).is_err());
    assert!(seal(b"secret", "age1nonsense").is_err());
}
