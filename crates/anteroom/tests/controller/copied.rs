//! Controllers on copies of a state folder: what a controller that runs has is no leftover.

use std::path::Path;
use std::process::Command;

use anteroom_testkit::{Controller, fake_guest};
use anyhow::Result;

use crate::support::{SILENT, Server, eventually, processes_of};

/// Starts a controller whose state is in `folder`.
fn controller_in(folder: &Path) -> Result<Controller> {
    let guest = fake_guest(folder, SILENT)?;
    let mut serve = Command::new(env!("CARGO_BIN_EXE_anteroom"));
    serve.args(["serve", "--driver", "host", "--agent"]).arg(guest);
    Controller::start(serve, folder)
}

/// Has cp(1) or mv(1) take the state there.
fn bring(how: &[&str], state_dir: &Path, folder: &Path) {
    let brought = Command::new(how[0]).args(&how[1..]).arg(state_dir).arg(folder).status().unwrap();
    assert!(brought.success());
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

/// A session of the first controller, once it has processes.
fn running(server: &Server) -> String {
    let id = server.started();
    let is_booting = |session: &serde_json::Value| session["state"] == "booting";
    server.session_when(&id, "its sandbox boots", is_booting);
    eventually("it has processes", || (!processes_of(&id).is_empty()).then_some(()));
    id
}

#[test]
fn a_controller_on_a_copy_of_the_state_of_one_that_runs_is_refused_and_ends_nothing_of_it() {
    let mut server = Server::with_fake_guest(SILENT);
    let id = running(&server);
    let copy = folder();
    bring(&["cp", "-a"], &server.state_dir(), copy.path());
    let message = controller_in(copy.path()).err().unwrap().to_string();
    let said = format!(
        "{} is a copy of the state folder of a controller that is running (process {})",
        copy.path().join("state").display(),
        server.pid()
    );
    assert!(message.contains(&said), "{message}");
    assert!(message.contains("stop that controller first, or choose another folder"), "{message}");
    assert_ne!(processes_of(&id), Vec::<i32>::new());
    assert_eq!(server.get(&format!("/api/auth/session/{id}")).body["state"], "booting");
    // The first is killed: what it left is everybody's who has its state.
    server.kill();
    let mut second = controller_in(copy.path()).unwrap();
    let session = ended(&second, &id);
    assert_eq!(session["reason"]["code"], "controller_stopped", "{session}");
    assert_eq!(processes_of(&id), Vec::<i32>::new());
    second.stop().unwrap();
}

#[test]
fn a_state_folder_that_is_moved_when_its_controller_is_dead_is_cleaned_up() {
    let mut server = Server::with_fake_guest(SILENT);
    let id = running(&server);
    server.kill();
    let moved = folder();
    bring(&["mv"], &server.state_dir(), moved.path());
    let mut second = controller_in(moved.path()).unwrap();
    assert_eq!(ended(&second, &id)["reason"]["code"], "controller_stopped");
    assert_eq!(processes_of(&id), Vec::<i32>::new());
    second.stop().unwrap();
}

/// The session once it is torn down.
fn ended(controller: &Controller, id: &str) -> serde_json::Value {
    eventually("the session is torn down", || {
        let session = controller.get(&format!("/api/auth/session/{id}")).unwrap().body;
        (session["teardown"] == "torn_down").then_some(session)
    })
}
