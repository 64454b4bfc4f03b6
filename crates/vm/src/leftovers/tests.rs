use std::io::Write;
use std::process::{Command, Stdio};

use super::*;

fn of(name: &SandboxName) -> SandboxIdentity<'_> {
    SandboxIdentity { name, user: None }
}

#[test]
fn a_process_of_the_sandbox_is_found_and_reaped() {
    let name = SandboxName::of_test();
    let mut child = Command::new("cat")
        .env(SANDBOX_ENV, name.as_str())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // A process in the middle of `exec` shows no environment for a moment: this one answers.
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let found = leftovers(of(&name), &[], Path::new("/nowhere"));
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].what.ends_with(": cat "), "{found:?}");
    let other = SandboxName::of_test();
    let pid = i32::try_from(child.id()).unwrap();
    assert_eq!(processes_of(&[of(&other), of(&name)]), [vec![], vec![pid]]);
    let _open = child.stdin.take();
    let waited = std::thread::spawn(move || child.wait().unwrap());
    reap(of(&name));
    waited.join().unwrap();
    assert_eq!(leftovers(of(&name), &[], Path::new("/nowhere")), []);
}

#[test]
fn a_place_that_cannot_be_looked_at_is_said() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let places = [file.path().to_path_buf(), "/nowhere".into()];
    let found = leftovers(of(&SandboxName::of_test()), &places, Path::new("/nowhere"));
    assert_eq!(found.iter().map(|l| l.kind.as_str()).collect::<Vec<_>>(), ["unseen"]);
}

#[test]
fn a_folder_of_the_sandbox_is_found() {
    let name = SandboxName::of_test();
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(name.as_str())).unwrap();
    let found = leftovers(of(&name), &[folder.path().to_path_buf()], Path::new("/nowhere"));
    assert_eq!(found.iter().map(|l| l.kind.as_str()).collect::<Vec<_>>(), ["file"]);
    let kept = folder.path().join(name.as_str());
    assert_eq!(leftovers(of(&name), &[folder.path().to_path_buf()], &kept), []);
}

/// Whatever it did to its environment and its name. Only root starts a process of another user.
#[test]
fn a_process_of_the_sandbox_s_user_is_found_and_reaped() {
    use std::os::unix::process::CommandExt;
    let Some(user) = SessionUser::unused(|_| false) else { return };
    let mut command = Command::new("sleep");
    command.arg("1000").env_clear().uid(user.id()).gid(user.id());
    let Ok(mut child) = command.spawn() else { return };
    let name = SandboxName::of_test();
    let identity = SandboxIdentity { name: &name, user: Some(user) };
    assert_eq!(leftovers(identity, &[], Path::new("/nowhere")).len(), 1);
    let waited = std::thread::spawn(move || child.wait().unwrap());
    reap(identity);
    waited.join().unwrap();
    assert_eq!(leftovers(identity, &[], Path::new("/nowhere")), []);
}

#[test]
fn what_another_user_has_put_under_the_name_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let name = SandboxName::of_test();
    let path = folder.path().join(name.as_str());
    fs::create_dir(&path).unwrap();
    if std::os::unix::fs::chown(&path, Some(65534), None).is_ok() {
        let places = [folder.path().to_path_buf()];
        assert_eq!(leftovers(of(&name), &places, Path::new("/nowhere")), []);
    }
}

/// What runs as the user does so no longer than the test, whatever becomes of that.
struct Killed(SessionUser);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill_all();
    }
}

/// Only root starts a process of another user.
#[test]
fn who_forks_and_ends_for_ever_does_not_get_away() {
    use std::os::unix::process::CommandExt;
    let Some(user) = SessionUser::unused(|_| false) else { return };
    let script = "$SIG{TERM} = $SIG{CHLD} = 'IGNORE'; \
                  for (1..3) { next if fork; setpgrp; while (1) { exit if fork } } print 'x'";
    let mut command = Command::new("perl");
    command.args(["-e", script]).env_clear().uid(user.id()).gid(user.id());
    let _end = Killed(user);
    let Ok(started) = command.stdout(Stdio::null()).status() else { return };
    assert!(started.success());
    let name = SandboxName::of_test();
    let identity = SandboxIdentity { name: &name, user: Some(user) };
    // One look misses who forks and ends.
    while anteroom_confine::processes_of(user).is_empty() {
        std::thread::yield_now();
    }
    reap(identity);
    for _ in 0..20 {
        assert_eq!(leftovers(identity, &[], Path::new("/nowhere")), []);
    }
}

#[test]
fn what_another_user_s_process_says_of_itself_is_not_read() {
    use std::os::unix::process::CommandExt;
    let name = SandboxName::of_test();
    let mut command = Command::new("sleep");
    command.arg("1000").env(SANDBOX_ENV, name.as_str()).uid(65534).gid(65534);
    let Ok(mut child) = command.spawn() else { return };
    assert_eq!(leftovers(of(&name), &[], Path::new("/nowhere")), []);
    child.kill().unwrap();
    child.wait().unwrap();
}
