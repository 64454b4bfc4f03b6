//! The session bus that starts the keyring, for a tool that keeps its secret there.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::file;
use crate::guest::{Guest, RUNTIME};
use crate::supervise::{self, Launch, Readiness, ServiceSpec};

/// How long the bus may take.
const READY: Duration = Duration::from_secs(60);

/// How often is looked for its socket.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// The session bus of a sandbox.
#[derive(Clone)]
pub struct Bus(PathBuf);

impl Bus {
    /// Where programs look for it that have no address of one.
    pub fn of(guest: &Guest) -> Self {
        Self(guest.home.join(RUNTIME).join("bus"))
    }

    /// For `DBUS_SESSION_BUS_ADDRESS`.
    pub fn address(&self) -> String {
        format!("unix:path={}", self.0.display())
    }

    /// The bus as a service, with a keyring that asks nobody for a password.
    pub fn spec(&self, guest: &Guest, display: &str) -> ServiceSpec {
        let (bus, guest, display) = (self.clone(), guest.clone(), display.to_owned());
        ServiceSpec::new("keyring", "the keyring", move || {
            file::lay(&guest.home, &[], &guest).context("laying out the keyring failed")?;
            // It is the bus that starts it, when somebody asks.
            supervise::check(&guest.command("gnome-keyring-daemon"))?;
            let probe = Box::pin(bus.clone().ready());
            let asked = "the socket of its bus".to_owned();
            let readiness = Some(Readiness { asked, deadline: READY, probe });
            Ok(Launch { command: bus.command(&guest, &display), readiness, watchdog: None })
        })
    }

    /// The command that is the bus. It starts the keyring, as another user's programs are started.
    fn command(&self, guest: &Guest, display: &str) -> Command {
        let mut command = guest.command("dbus-daemon");
        command.args(["--session", "--nofork", "--nopidfile", "--nosyslog", "--address"]);
        command.arg(self.address()).env("DISPLAY", display);
        command.env_remove("DBUS_SESSION_BUS_ADDRESS");
        command
    }

    /// Returns when programs can connect.
    async fn ready(self) -> Result<()> {
        while !self.0.exists() {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}

/// The bus of a session: Debian's own listens in /tmp, where its socket stays when it is killed. This
/// one does in `XDG_RUNTIME_DIR`, which is in the home and goes with it.
const SESSION: &str = r#"<busconfig>
  <type>session</type>
  <keep_umask/>
  <listen>unix:runtime=yes</listen>
  <auth>EXTERNAL</auth>
  <standard_session_servicedirs/>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
  <limit name="service_start_timeout">120000</limit>
</busconfig>
"#;

/// A command, to be run in `home`, in a session of its own, with a bus, and so with the keyring of that
/// home.
pub fn with_a_session(home: &Path, command: &[String], guest: &Guest) -> Result<Vec<String>> {
    let folder = home.join(RUNTIME);
    fs::create_dir(&folder)?;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))?;
    guest.give_to_end_user(&folder)?;
    let bus = folder.join("bus.conf");
    fs::write(&bus, SESSION)?;
    guest.give_to_end_user(&bus)?;
    let config = format!("--config-file={RUNTIME}/bus.conf");
    let before = ["dbus-run-session".to_owned(), config, "--".to_owned()];
    Ok(before.into_iter().chain(command.iter().cloned()).collect())
}
