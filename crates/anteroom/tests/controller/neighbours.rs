//! Sessions beside one another on one machine, and a process of somebody else's beside them.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use crate::ends::runner_and_sandbox;
use crate::support::{SILENT, Server, Setup, eventually};

const NOBODY: u64 = 65534;

/// What is tried of a process: `all`, or names of the script's.
fn attack(user: u64, attempts: &str, pids: &[i32]) -> Value {
    let mut python = Command::new("python3");
    python.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/../../bench/attacks/neighbours.py"));
    python.args([user.to_string(), attempts.to_owned()]);
    let output = python.args(pids.iter().map(ToString::to_string)).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runner and sandbox of a session that is confined, and its user.
fn confined(server: &Server, id: &str) -> ([i32; 2], u64, Value) {
    let session = server.session_when(id, "the session is confined", |session| {
        assert_eq!(session["reason"], Value::Null, "{session}");
        !session["confinement"].is_null()
    });
    let (runner, sandbox) = runner_and_sandbox(server, id);
    let confinement = session["confinement"].clone();
    ([runner, sandbox], confinement["runner"]["uid"].as_u64().unwrap(), confinement)
}

/// Two sessions of a controller, each confined as reported, neither within reach of the other.
fn two(server: &Server) -> [(String, [i32; 2], Value); 2] {
    let ids = [server.started(), server.started()];
    let [first, second] = ids.clone().map(|id| confined(server, &id));
    assert_ne!(first.1, second.1, "a user each");
    let none = Value::Array(Vec::new());
    assert_eq!(attack(first.1, "all", &second.0), none, "the first session against the second");
    assert_eq!(attack(second.1, "all", &first.0), none, "the second session against the first");
    for (pids, user, confinement) in [&first, &second] {
        assert_eq!(attack(NOBODY, "all", pids), none, "nobody against a session");
        // A sandbox that breaks out of its VMM is still not its runner.
        let looks = "memory,memory across,environment,addresses,descriptors,files,trace";
        assert_eq!(attack(*user, looks, &pids[..1]), none, "a session's user against its runner");
        for process in ["sandbox", "runner"] {
            let held = &confinement[process];
            assert_eq!((&held["uid"], &held["gid"]), (&(*user).into(), &(*user).into()), "{held}");
            assert_eq!(held["hasCapabilities"], false, "{held}");
            assert_eq!(held["hasGroups"], false, "{held}");
        }
        assert_eq!(confinement["runner"]["noNewPrivileges"], true);
        assert_eq!(confinement["runner"]["filtersSystemCalls"], true);
    }
    let [one, other] = ids;
    [(one, first.0, first.2), (other, second.0, second.2)]
}

fn end(server: &Server, ids: &[&str]) {
    for id in ids {
        server.post(&format!("/api/auth/session/{id}/cancel"), "");
    }
    for id in ids {
        assert_eq!(server.torn_down(id)["leftovers"], Value::Array(Vec::new()));
        // Nor does it miss what it gave up.
        let logs = server.get(&format!("/api/auth/session/{id}/logs")).body;
        assert!(!logs.as_str().unwrap().contains("panicked"), "{logs}");
    }
}

/// Everything here is another user's to try, and only root is every user.
fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

#[test]
fn neither_sessions_nor_nobody_read_signal_or_trace_a_session() {
    if !is_root() {
        return;
    }
    let server = Server::with_fake_guest(SILENT);
    let [(one, ..), (other, ..)] = two(&server);
    end(&server, &[&one, &other]);
}

#[test]
fn what_a_session_leaves_where_everybody_may_write_goes_with_it() {
    if !is_root() {
        return;
    }
    let [file, tree] = ["/tmp", "/dev/shm"]
        .map(|folder| Path::new(folder).join(format!("left-by-a-session-{}", std::process::id())));
    let script = format!(
        "#!/bin/sh\nmkdir {tree} && echo x > {tree}/deep && echo x > {file}\nexec sleep 1000\n",
        tree = tree.display(),
        file = file.display()
    );
    let server = Server::with_fake_guest(&script);
    let id = server.started();
    eventually("it is there", || file.exists().then_some(()));
    server.delete(&format!("/api/auth/session/{id}"));
    server.torn_down(&id);
    assert!(!file.exists() && !tree.exists());
    assert!(server.log().contains("had left outside its folder"), "{}", server.log());
}

/// What Docker gives a container's root by default.
const IN_A_CONTAINER: &str = "-all,+chown,+dac_override,+fowner,+fsetid,+kill,+net_raw,+setgid,\
                              +setuid,+setpcap,+net_bind_service,+sys_chroot,+mknod,\
                              +audit_write,+setfcap";

#[test]
fn where_less_is_offered_the_session_has_what_there_is_and_says_the_rest() {
    if !is_root() {
        return;
    }
    let server = Setup::fake_guest(SILENT).capabilities(IN_A_CONTAINER).start();
    let [(one, _, confinement), (other, ..)] = two(&server);
    let missing = confinement["missing"][0].as_str().unwrap();
    assert!(missing.starts_with("namespaces of its own (Operation not permitted"), "{missing}");
    end(&server, &[&one, &other]);
}

#[test]
fn a_virtual_machine_has_a_file_tree_namespaces_and_a_cgroup_of_its_own() {
    if !is_root() {
        return;
    }
    let server = Server::with_machines();
    let [(one, [_, qemu], confinement), (other, ..)] = two(&server);
    let sandbox = &confinement["sandbox"];
    assert_eq!(sandbox["noNewPrivileges"], true);
    assert_eq!(sandbox["filtersSystemCalls"], true);
    assert_eq!(sandbox["namespaces"], serde_json::json!(["mnt", "net", "ipc", "pid", "uts"]));
    assert_eq!(sandbox["cgroup"], format!("/anteroom/{one}"));
    assert_eq!(confinement["missing"], Value::Array(Vec::new()));

    let root = Path::new("/proc").join(qemu.to_string()).join("root");
    let names = |folder: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    let system = ["bin", "dev", "etc", "lib", "lib64", "opt", "proc"];
    let other_names: Vec<_> =
        names(&root).into_iter().filter(|name| !system.contains(&name.as_str())).collect();
    assert_eq!(other_names, ["usr"], "and nothing of anybody's");
    assert_eq!(names(&root.join("dev")), ["null", "random", "urandom", "zero"]);
    // It is the only process that it sees, and has no network but a loopback.
    let seen = names(&root.join("proc"));
    let seen: Vec<_> = seen.iter().filter(|name| name.parse::<u32>().is_ok()).collect();
    assert_eq!(seen, ["1"]);
    let network = std::fs::read_to_string(format!("/proc/{qemu}/net/dev")).unwrap();
    assert_eq!(network.lines().filter(|line| line.contains(':')).count(), 1, "{network}");
    // Ours, and QEMU's own.
    let status = std::fs::read_to_string(format!("/proc/{qemu}/status")).unwrap();
    assert!(status.contains("Seccomp_filters:\t2\n"), "{status}");
    let limits = std::fs::read_to_string(format!("/proc/{qemu}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
    assert!(core.split_whitespace().nth(4) == Some("0"), "{core}");
    end(&server, &[&one, &other]);
}
