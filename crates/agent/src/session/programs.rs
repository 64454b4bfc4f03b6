//! Every program of the guest, stopped and let go on: what runs no instruction draws no random number
//! twice, where a VM is cloned.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

const ROOT: &str = "/sys/fs/cgroup";

/// The group of those that have no limits of their own.
const OTHERS: &str = "/sys/fs/cgroup/programs";

/// How long they may take to stop.
const FROZEN: Duration = Duration::from_secs(10);

/// How often is looked.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Programs that are stopped.
pub struct FrozenPrograms {
    /// What a fork would empty in each, by its process: found here, since nothing of it changes any more, and
    /// whoever wakes a clone waits.
    wiped_on_fork: Vec<(u32, Area)>,
}

/// Stops every process but this one and the kernel's.
pub fn freeze() -> Result<FrozenPrograms> {
    stop()?;
    let mut found = Vec::new();
    for group in groups()? {
        for pid in processes(&group)? {
            found.extend(wiped_on_fork(pid)?.into_iter().map(|area| (pid, area)));
        }
    }
    Ok(FrozenPrograms { wiped_on_fork: found })
}

impl FrozenPrograms {
    /// Has each process whose library of cryptography looks out for forks see one: the page that the kernel
    /// empties in a child (`MADV_WIPEONFORK`, madvise(2)) is emptied here. Such a library takes new random
    /// bytes of the kernel then; that its machine was cloned it cannot see. How many pages there were.
    pub fn forget_randomness(&self) -> Result<usize> {
        self.wiped_on_fork.iter().try_for_each(|(pid, area)| empty(*pid, area))?;
        Ok(self.wiped_on_fork.len())
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

/// Addresses of a process, from the first to one past the last.
type Area = std::ops::Range<u64>;

fn wiped_on_fork(pid: u32) -> Result<Vec<Area>> {
    let path = format!("/proc/{pid}/smaps");
    let smaps = fs::read_to_string(&path).with_context(|| format!("reading {path} failed"))?;
    Ok(marked_areas(&smaps))
}

/// The areas of an `smaps` with the flag `wf` (proc_pid_smaps(5)).
fn marked_areas(smaps: &str) -> Vec<Area> {
    let mut areas = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if flags.split_whitespace().any(|flag| flag == "wf") {
                areas.extend(current.take());
            }
        } else if let Some(area) = area(line) {
            current = Some(area);
        }
    }
    areas
}

/// The area that a line begins the description of.
fn area(line: &str) -> Option<Area> {
    let (start, end) = line.split_whitespace().next()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

fn empty(pid: u32, area: &Area) -> Result<()> {
    let path = format!("/proc/{pid}/mem");
    let length = usize::try_from(area.end - area.start).context("an area is too long")?;
    let write = || {
        let mut memory = fs::OpenOptions::new().write(true).open(&path)?;
        memory.seek(SeekFrom::Start(area.start))?;
        memory.write_all(&vec![0; length])
    };
    write().with_context(|| format!("emptying a page of process {pid} failed"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn areas_that_a_fork_empties_are_found_by_their_flag() {
        let smaps = "\
7f00a000-7f00b000 rw-p 00000000 00:00 0 \nSize:  4 kB\nVmFlags: rd wr mr mw me ac wf sd \n\
7f00b000-7f00d000 rw-p 00000000 00:00 0   [heap]\nSize:  8 kB\nVmFlags: rd wr mr mw me ac sd \n\
7ffe0000-7fff0000 rw-p 00000000 00:00 0 [stack]\nVmFlags: rd wr gd wf ac \n";
        assert_eq!(marked_areas(smaps), [0x7f00_a000..0x7f00_b000, 0x7ffe_0000..0x7fff_0000]);
    }

    #[test]
    fn a_page_of_a_process_is_emptied() {
        let mut page = vec![7_u8; 64];
        let start = page.as_mut_ptr() as u64;
        empty(std::process::id(), &(start..start + 32)).unwrap();
        assert_eq!(std::hint::black_box(&mut page)[..33], [&[0; 32][..], &[7]].concat());
    }
}
