//! A real `anteroom serve` on free ports, with its state in a folder that goes with it.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anteroom_testkit::{Controller, fake_guest};
use serde_json::Value;

pub use anteroom_testkit::{Answer, SILENT, eventually, eventually_within};

/// A CLI that signs nobody in: it has its credential at once.
pub const SIGNS_IN: &str = r#"xdg-open http://127.0.0.1:9/sign-in; mkdir -p ~/.demo-login; echo '{"access_token":"a","refresh_token":"b"}' > ~/.demo-login/credentials.json; exec sleep 1000"#;

/// A controller of one test.
pub struct Server {
    controller: Controller,
    setup: Setup,
    folder: tempfile::TempDir,
    /// `http://127.0.0.1:port`.
    pub url: String,
    /// An API key.
    pub key: String,
}

/// How a controller is started.
pub struct Setup {
    sandboxes: Capacity,
    options: Vec<String>,
    environment: Vec<(String, String)>,
    disk_mebibytes: Option<u32>,
    open_files: Option<u32>,
    capabilities: Option<&'static str>,
}

/// What the sandboxes of a controller are.
enum Capacity {
    /// A program with this text on this host, for what can be seen from outside.
    FakeGuest(String),
    /// The agent that the binary carries, on this host.
    Host,
    /// Virtual machines of the demo's golden image, which must be there: `cargo xtask test` builds it.
    Qemu,
}

impl Setup {
    /// Sandboxes that are a fake guest.
    pub fn fake_guest(script: &str) -> Self {
        Self::of(Capacity::FakeGuest(script.to_owned()))
    }

    /// Sandboxes that are the real agent on this host.
    pub fn host() -> Self {
        Self::of(Capacity::Host)
    }

    /// Sandboxes that are VMs.
    pub fn machines() -> Self {
        Self::of(Capacity::Qemu)
    }

    fn of(sandboxes: Capacity) -> Self {
        let (options, environment) = (Vec::new(), Vec::new());
        Self {
            sandboxes,
            options,
            environment,
            disk_mebibytes: None,
            open_files: None,
            capabilities: None,
        }
    }

    /// With a further option of `serve`.
    pub fn option(mut self, option: &str) -> Self {
        self.options.push(option.to_owned());
        self
    }

    /// With a variable in its environment.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// With `FAILPOINTS` set to `fault` until it is started again.
    #[cfg(feature = "fail-points")]
    pub fn fault(self, fault: &str) -> Self {
        self.env("FAILPOINTS", fault)
    }

    /// With its state on a disk of its own of `mebibytes`, seen by the controller alone.
    pub fn disk(mut self, mebibytes: u32) -> Self {
        self.disk_mebibytes = Some(mebibytes);
        self
    }

    /// With at most so many open files.
    pub fn open_files(mut self, most: u32) -> Self {
        self.open_files = Some(most);
        self
    }

    /// As root with these capabilities alone, in setpriv(1)'s words.
    pub fn capabilities(mut self, some: &'static str) -> Self {
        self.capabilities = Some(some);
        self
    }

    /// Starts it.
    pub fn start(self) -> Server {
        Server::start_in(new_folder(), self)
    }

    /// The same with the demo provider running `command` (a shell line) as its CLI, which has
    /// `url_timeout_seconds` to give an address.
    pub fn start_with_cli(self, command: &str, url_timeout_seconds: u64) -> Server {
        let demo = std::fs::read_to_string(concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../providers/demo.toml"
        ))
        .unwrap();
        let command = serde_json::json!(["sh", "-c", command]).to_string();
        let demo = demo.replace(r#"["demo-login", "login"]"#, &command).replace(
            "url_timeout_seconds = 120",
            &format!("url_timeout_seconds = {url_timeout_seconds}"),
        );
        self.start_with_provider(&demo)
    }

    /// The same with this provider file.
    pub fn start_with_provider(self, provider: &str) -> Server {
        let folder = new_folder();
        let providers = folder.path().join("providers");
        std::fs::create_dir(&providers).unwrap();
        std::fs::write(providers.join("demo.toml"), provider).unwrap();
        Server::start_in(folder, self)
    }
}

/// The guest runs as another user when the tests run as root.
fn new_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    set_mode(folder.path(), 0o755);
    folder
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

impl Server {
    /// Starts one whose sandboxes are the program `script` on this host.
    pub fn with_fake_guest(script: &str) -> Self {
        Setup::fake_guest(script).start()
    }

    /// The same with further options of `serve`.
    pub fn with_options(script: &str, options: &[&str]) -> Self {
        let setup = Setup::fake_guest(script);
        options.iter().fold(setup, |setup, option| setup.option(option)).start()
    }

    /// The same with a state folder that was there before, open to all.
    pub fn in_an_open_folder(script: &str) -> Self {
        let folder = new_folder();
        std::fs::create_dir(folder.path().join("state")).unwrap();
        set_mode(&folder.path().join("state"), 0o755);
        Self::start_in(folder, Setup::fake_guest(script))
    }

    /// Starts one whose sandboxes are the real agent on this host, with the demo provider running
    /// `command` (a shell line) as its CLI, which has 3 s to give an address.
    pub fn with_cli(command: &str) -> Self {
        Setup::host().start_with_cli(command, 3)
    }

    /// The same, and the CLI has all the time.
    pub fn with_patient_cli(command: &str) -> Self {
        Setup::host().start_with_cli(command, 600)
    }

    /// Starts one whose sandboxes are VMs.
    pub fn with_machines() -> Self {
        Setup::machines().start()
    }

    fn start_in(folder: tempfile::TempDir, setup: Setup) -> Self {
        if let Capacity::FakeGuest(script) = &setup.sandboxes {
            fake_guest(folder.path(), script).unwrap();
        }
        if setup.disk_mebibytes.is_some() {
            std::fs::create_dir(folder.path().join("state")).unwrap();
        }
        let controller = setup.start_controller(folder.path());
        let (url, key) = (controller.url().to_owned(), controller.key().to_owned());
        Self { controller, setup, folder, url, key }
    }

    /// Kills the controller without a word.
    pub fn kill(&mut self) {
        self.controller.kill().unwrap();
    }

    /// Kills the controller without a word and starts another on the same state.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        self.setup.environment.retain(|(name, _)| name != "FAILPOINTS");
        self.controller = self.setup.start_controller(self.folder.path());
        self.url = self.controller.url().to_owned();
        self.key = self.controller.key().to_owned();
    }

    /// Whether the controller has ended by itself.
    #[cfg(feature = "fail-points")]
    pub fn has_ended(&mut self) -> bool {
        self.controller.has_ended().unwrap()
    }

    /// Asks the controller to stop.
    pub fn terminate(&self) {
        self.controller.terminate().unwrap();
    }

    /// Waits until it has stopped.
    pub fn wait_until_stopped(&mut self) {
        self.controller.wait().unwrap();
    }

    /// A POST that may find nobody.
    pub fn try_post(&self, path: &str, body: &str) -> Option<Answer> {
        self.controller.post(path, body).ok()
    }

    /// A GET that may find nobody.
    pub fn try_get(&self, path: &str) -> Option<Answer> {
        self.controller.get(path).ok()
    }

    /// What the controller said on its standard error.
    pub fn log(&self) -> String {
        self.controller.log()
    }

    /// Where its state is.
    pub fn state_dir(&self) -> PathBuf {
        self.controller.state_dir()
    }

    /// The controller's process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.controller.pid()).unwrap()
    }

    /// Where its state is, also when it is on a disk that only the controller sees.
    pub fn state_dir_inside(&self) -> PathBuf {
        let inside = format!("/proc/{}/root{}", self.pid(), self.state_dir().display());
        // One that has ended sees nothing, and had no disk of its own.
        Some(PathBuf::from(inside)).filter(|path| path.exists()).unwrap_or(self.state_dir())
    }

    /// Runs a statement on the controller's database.
    pub fn sql(&self, statement: &str) {
        sql(&self.state_dir().join("anteroom.db"), statement);
    }

    /// The first value of a query on the controller's database, wherever that is; empty when there is
    /// none.
    pub fn stored(&self, query: &str) -> String {
        // SQLite goes by the path that the kernel gives a file, which is not ours to open.
        let copy = tempfile::tempdir().unwrap();
        for name in ["anteroom.db", "anteroom.db-wal"] {
            let _ = std::fs::copy(self.state_dir_inside().join(name), copy.path().join(name));
        }
        sql(&copy.path().join("anteroom.db"), query)
    }

    /// A GET with the API key.
    pub fn get(&self, path: &str) -> Answer {
        self.controller.get(path).unwrap()
    }

    /// A GET with these headers only.
    pub fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.controller.get_with(path, headers).unwrap()
    }

    /// The bytes of a GET.
    pub fn bytes(&self, path: &str) -> Vec<u8> {
        self.get(path).expect(200).unwrap().bytes
    }

    /// A session's sealed credential and its envelope as files in a folder, by `credentials get`.
    pub fn sealed(&self, id: &str, folder: &Path) -> PathBuf {
        let file = folder.join("sealed.age");
        let mut get = anteroom(folder);
        get.args(["credentials", "get", id, "--url", &self.url, "--api-key", &self.key]);
        let got = get.arg("-o").arg(&file).output().unwrap();
        assert!(got.status.success(), "{got:?}");
        file
    }

    /// A POST with the API key and a body as it is.
    pub fn post(&self, path: &str, body: &str) -> Answer {
        self.controller.post(path, body).unwrap()
    }

    /// A POST with these headers only.
    pub fn post_with(&self, path: &str, body: &str, headers: &[(&str, &str)]) -> Answer {
        self.controller.post_with(path, body, headers).unwrap()
    }

    /// A DELETE with the API key.
    pub fn delete(&self, path: &str) -> Answer {
        self.controller.delete(path).unwrap()
    }

    /// Starts a session of the demo provider.
    pub fn start_session(&self) -> Value {
        let answer = self.post("/api/auth/start", r#"{"provider":"demo"}"#);
        assert_eq!(answer.status, 201, "{}", answer.body);
        answer.body
    }

    /// The same; its id.
    pub fn started(&self) -> String {
        self.start_session()["sessionId"].as_str().unwrap().to_owned()
    }

    /// The session once `done` holds for it.
    pub fn session_when(&self, id: &str, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || {
            let session = self.get(&format!("/api/auth/session/{id}")).body;
            done(&session).then_some(session)
        })
    }

    /// The session once its sandbox is gone; nothing may be left of it.
    pub fn torn_down(&self, id: &str) -> Value {
        let session =
            self.session_when(id, "the sandbox is torn down", |s| s["teardown"] == "torn_down");
        assert_eq!(session["leftovers"], Value::Array(vec![]), "{session}");
        assert_eq!(processes_of(id), Vec::<i32>::new());
        session
    }
}

/// A file that takes all space on the controller's own disk.
pub struct Fill(PathBuf);

impl Fill {
    /// Takes it.
    pub fn up(server: &Server) -> Self {
        let path = server.state_dir_inside().join("fill");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[0; 65_536]).is_ok() {}
        while file.write_all(&[0; 4096]).is_ok() {}
        Self(path)
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn sql(database: &Path, statement: &str) -> String {
    let script = "import sqlite3, sys\n\
                  with sqlite3.connect(sys.argv[1], timeout=10) as db:\n\
                  \x20 row = db.execute(sys.argv[2]).fetchone()\n\
                  \x20 print('' if row is None else row[0])";
    let mut python = Command::new("python3");
    let output = python.args(["-c", script]).arg(database).arg(statement).output().unwrap();
    assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

impl Setup {
    fn start_controller(&self, folder: &Path) -> Controller {
        let mut command = self.program(folder);
        command.arg("serve");
        match &self.sandboxes {
            Capacity::FakeGuest(_) => {
                command.args(["--driver", "host", "--agent"]).arg(folder.join("fake-guest"))
            }
            Capacity::Host => command.args(["--driver", "host"]),
            Capacity::Qemu => command.args(["--driver", "qemu"]),
        };
        let providers = folder.join("providers");
        if providers.exists() {
            command.arg("--providers").arg(providers);
        }
        command.args(&self.options).args(["--min-ttl-seconds", "1"]);
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        Controller::start(command, folder).unwrap()
    }

    fn program(&self, folder: &Path) -> Command {
        let anteroom = env!("CARGO_BIN_EXE_anteroom");
        if let Some(mebibytes) = self.disk_mebibytes {
            let script =
                r#"mount -t tmpfs -o mode=0700,size="$0"m none "$1" && shift && exec "$@""#;
            let mut command = own_mounts();
            command.args(["sh", "-c", script, &mebibytes.to_string()]);
            command.arg(folder.join("state")).arg(anteroom);
            return command;
        }
        if let Some(most) = self.open_files {
            let mut command = Command::new("sh");
            command.args(["-c", r#"ulimit -n "$0" && exec "$@""#, &most.to_string(), anteroom]);
            return command;
        }
        if let Some(some) = self.capabilities {
            let mut command = Command::new("setpriv");
            command.args(["--inh-caps", "-all", "--bounding-set"]).args([some, anteroom]);
            return command;
        }
        Command::new(anteroom)
    }
}

/// The command line, on a machine whose user keeps their things in `folder`.
pub fn anteroom(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_anteroom"));
    command.env("XDG_DATA_HOME", folder.join("data")).env("XDG_STATE_HOME", folder.join("state"));
    command
}

/// Processes that carry a session's id in their environment, or were pointed into its folder.
pub fn processes_of(id: &str) -> Vec<i32> {
    let all = anteroom_testkit::processes::of_session(id).unwrap();
    all.into_iter().map(|(pid, _)| i32::try_from(pid).unwrap()).collect()
}

/// Every file below a folder.
pub fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_in(&path)) } else { files.push(path) }
    }
    files
}

/// `unshare` with a mount namespace of its own, which goes with it.
pub fn own_mounts() -> Command {
    let mut command = Command::new("unshare");
    if !nix::unistd::geteuid().is_root() {
        command.args(["--map-current-user", "--keep-caps"]);
    }
    command.arg("--mount");
    command
}
