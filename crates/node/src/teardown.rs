//! The end of a sandbox: what runs is killed, what lies around removed, and then the machine is looked
//! at.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anteroom_guest_link::chain;
use anteroom_node_protocol::SandboxRecord;
use anteroom_runner_protocol::sandbox_name;
use anteroom_session::{DriverKind, Leftover, SessionId};
use anteroom_vm::{NotRemoved, SandboxIdentity, remove_left};

/// How often a sandbox is torn down while something of it is left: what fails once may work again.
const ATTEMPTS: u32 = 3;

/// How long teardown may take: whoever waits for capacity must not wait for ever.
const TEARDOWN: Duration = Duration::from_secs(120);

/// Where things of a session are looked for.
#[derive(Clone, Debug)]
pub struct Places {
    /// Folders that a session's files may be in.
    pub folders: Vec<PathBuf>,
    /// The session's logs, which stay.
    pub logs: PathBuf,
}

/// Kills what still runs of a sandbox, removes what it left, and says what is there all the same. Its
/// runner has ended.
pub async fn tear_down(sandbox: SandboxRecord, places: Places) -> Vec<Leftover> {
    let looked = tokio::task::spawn_blocking(move || {
        let name = sandbox_name(sandbox.session);
        let identity = SandboxIdentity { name: &name, user: sandbox.user };
        let runtime_dir = match sandbox.driver {
            Some(DriverKind::Host | DriverKind::Firecracker) | None => Some(name.runtime_dir()),
            Some(DriverKind::Qemu) => None,
        };
        let mut leftovers = Vec::new();
        for _ in 0..ATTEMPTS {
            anteroom_vm::reap(identity);
            if let Err(error) = remove(sandbox.session, identity, runtime_dir.as_deref()) {
                tracing::error!(session = %sandbox.session, "{}", chain(&error));
            }
            leftovers = anteroom_vm::leftovers(identity, &places.folders, &places.logs);
            if leftovers.is_empty() {
                break;
            }
        }
        leftovers
    });
    // Nothing seen is not nothing there.
    let unseen = |what: &str| vec![Leftover { kind: "unseen".to_owned(), what: what.to_owned() }];
    match tokio::time::timeout(TEARDOWN, looked).await {
        Ok(Ok(leftovers)) => leftovers,
        Ok(Err(_)) => unseen("the check for leftovers failed; see the controller's log"),
        Err(_) => {
            unseen("the check for leftovers did not finish within two minutes, and continues")
        }
    }
}

/// Removes what a driver made outside of its processes, and what those left outside of its folder.
fn remove(
    session: SessionId,
    identity: SandboxIdentity<'_>,
    runtime_dir: Option<&Path>,
) -> Result<(), NotRemoved> {
    let left = remove_left(identity, runtime_dir);
    // Whatever became of that.
    let orphaned_files = identity.user.map(anteroom_vm::remove_orphaned_files);
    left?;
    for path in orphaned_files.transpose()?.unwrap_or_default() {
        tracing::warn!(%session, "removed {path:?}, which a process of the sandbox had left outside its folder");
    }
    Ok(())
}
