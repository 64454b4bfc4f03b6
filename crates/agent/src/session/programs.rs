//! Every program of the guest, stopped and let go on: what runs no instruction draws no random number
//! twice, where a VM is cloned.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::random_state::RandomState;

const ROOT: &str = "/sys/fs/cgroup";

/// The group of those that have no limits of their own.
const OTHERS: &str = "/sys/fs/cgroup/programs";

/// How long they may take to stop.
const FROZEN: Duration = Duration::from_secs(10);

/// How often is looked.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Programs that are stopped.
pub struct FrozenPrograms {
    /// What each would draw numbers from: found here, since nothing of it changes any more, and whoever wakes a
    /// clone waits.
    random_states: Vec<RandomState>,
}

/// Stops every process but this one and the kernel's.
pub fn freeze() -> Result<FrozenPrograms> {
    stop()?;
    let mut random_states = Vec::new();
    for group in groups()? {
        for pid in processes(&group)? {
            random_states.push(RandomState::of(pid)?);
        }
    }
    if let Some(pid) = RandomState::incomplete(&random_states) {
        bail!(
            "the random number generators of the browser's process {pid} were not found (as Chromium 156 \
             keeps them), and Math.random of its page would be the same in all clones"
        );
    }
    Ok(FrozenPrograms { random_states })
}

impl FrozenPrograms {
    /// Has none of them draw a number that another clone's draws. How many states there were.
    pub fn forget_randomness(&self) -> Result<usize> {
        self.random_states.iter().try_fold(0, |states, one| Ok(states + one.forget()?))
    }

    /// Lets them go on.
    pub fn thaw(self) -> Result<()> {
        groups()?.iter().try_for_each(|group| set(group, "0"))
    }
}

fn stop() -> Result<()> {
    fs::create_dir_all(OTHERS).with_context(|| format!("making {OTHERS} failed"))?;
    let until = Instant::now() + FROZEN;
    loop {
        // One that forks meanwhile leaves a child where it was.
        while gather()? {
            late(until, "gathered")?;
        }
        for group in groups()? {
            set(&group, "1")?;
        }
        while !groups()?.iter().all(|group| is_frozen(group)) {
            late(until, "stopped")?;
            std::thread::sleep(LOOK_AGAIN);
        }
        if !gather()? {
            return Ok(());
        }
    }
}

fn late(until: Instant, done: &str) -> Result<()> {
    if Instant::now() < until {
        return Ok(());
    }
    bail!("the programs could not be {done} within {} s", FROZEN.as_secs())
}

/// Moves processes of the root group; whether there were any.
fn gather() -> Result<bool> {
    let mut moved = false;
    for pid in processes(Path::new(ROOT))?.into_iter().filter(|pid| *pid != 1) {
        // Of the kernel's own threads none has a program.
        if fs::read_link(format!("/proc/{pid}/exe")).is_err() {
            continue;
        }
        moved |= fs::write(format!("{OTHERS}/cgroup.procs"), pid.to_string()).is_ok();
    }
    Ok(moved)
}

fn groups() -> Result<Vec<PathBuf>> {
    let listing = fs::read_dir(ROOT).with_context(|| format!("reading {ROOT} failed"))?;
    let paths = listing.filter_map(|entry| Some(entry.ok()?.path()));
    Ok(paths.filter(|path| path.join("cgroup.freeze").exists()).collect())
}

fn processes(group: &Path) -> Result<Vec<u32>> {
    let path = group.join("cgroup.procs");
    let list =
        fs::read_to_string(&path).with_context(|| format!("reading {} failed", path.display()))?;
    Ok(list.lines().filter_map(|pid| pid.parse().ok()).collect())
}

fn set(group: &Path, frozen: &str) -> Result<()> {
    let path = group.join("cgroup.freeze");
    fs::write(&path, frozen).with_context(|| format!("writing {} failed", path.display()))
}

fn is_frozen(group: &Path) -> bool {
    let events = fs::read_to_string(group.join("cgroup.events")).unwrap_or_default();
    events.lines().any(|line| line == "frozen 1")
}
