//! `cargo xtask bench boots`: whether VMs boot while every core is busy.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;
use xtask::{interrupt, shell};

use crate::demo::{TTL_SECONDS, keep_logs};
use crate::identity::new_identity;
use crate::provider::OpenIdProvider;
use crate::server::Server;

/// Boots with every core busy; the last line says how many stalled and how long the others took.
pub fn bench(anteroom: &Path, boots: usize) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-bench-").tempdir()?;
    let provider = OpenIdProvider::start(folder.path())?;
    let mut server = Server::start(anteroom, folder.path(), &provider, "qemu", &[])?;
    let identity = new_identity(folder.path())?;
    let busy = BusyCores::start();
    let mut took = Vec::new();
    for boot in 1..=boots {
        interrupt::check()?;
        let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
        // Longer than the runner waits: it has more to say about a hang.
        let reached = server.wait_until_agent(&session.id, Duration::from_secs(180));
        server.cancel(&session.id)?;
        server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
        match &reached {
            Ok(millis) => eprintln!("boot {boot}: agent after {millis} ms"),
            Err(error) => {
                let kept = shell::root().join(format!("target/demo/hang-{boot}"));
                keep_logs(&folder.path().join("state/logs").join(&session.id), &kept)?;
                eprintln!("boot {boot}: {error:#}; its logs are in {}", kept.display());
            }
        }
        took.extend(reached);
    }
    drop(busy);
    server.stop()?;
    took.sort_unstable();
    let at = |index: usize| took.get(index).copied();
    println!(
        "{}",
        serde_json::json!({
            "boots": boots, "hangs": boots - took.len(), "busy_cores": BusyCores::count(),
            "agent_ms": { "median": at(took.len() / 2), "min": at(0), "max": took.last() },
        })
    );
    Ok(())
}

/// A thread a core that does nothing but turn, until dropped.
struct BusyCores(std::sync::Arc<std::sync::atomic::AtomicBool>);

impl BusyCores {
    fn count() -> usize {
        std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
    }

    fn start() -> Self {
        let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        for _ in 0..Self::count() {
            let stop = stop.clone();
            std::thread::spawn(move || {
                while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
        Self(stop)
    }
}

impl Drop for BusyCores {
    fn drop(&mut self) {
        self.0.store(true, std::sync::atomic::Ordering::Relaxed);
    }
}
