//! What this machine has free for sessions now, beside what is left to its other programs. Nothing here
//! takes longer than reading some small files of the kernel.

use std::num::NonZero;
use std::path::{Path, PathBuf};

use anteroom_node_protocol::Free;
use anteroom_private::read_text_or_pipe;

use super::kernel_text::bytes;

/// Memory that is left to the rest of the machine: so much, but at most this part of it all.
const MEMORY_KEPT: u64 = 1 << 30;
const PART_OF_MEMORY_KEPT: u64 = 8;

/// Of the disk that the state folder is on, and of the kernel's processes and threads.
const DISK_KEPT: u64 = 128 << 20;
const PIDS_KEPT: u64 = 256;

/// Sessions that wait for their end user take little of a processor, and starting ones all of it.
const SESSIONS_A_PROCESSOR: usize = 16;
const MOST_SESSIONS: usize = 1024;

/// Bytes that are read of a file of the kernel.
const MOST_READ: u64 = 64 * 1024;

/// The memory that sessions may take when the operator does not say: what is free now, and enough for one.
pub fn usual_budget(one_session: u64) -> u64 {
    free_memory().unwrap_or_default().max(one_session)
}

/// How many sessions may run at once when the operator does not say: more would wait for each other's
/// processors, whatever memory they take.
pub fn usual_sessions() -> usize {
    let processors = std::thread::available_parallelism().map_or(1, NonZero::get);
    (processors * SESSIONS_A_PROCESSOR).min(MOST_SESSIONS)
}

/// What is free, for a node whose state is in this folder. What templates and clones take is for the
/// node to say.
pub fn look(state_dir: &Path) -> Free {
    Free {
        memory_bytes: free_memory(),
        disk_bytes: free_disk(state_dir),
        pids: free_pids(),
        templates_bytes: 0,
        unsettled_templates_bytes: 0,
        waiting_bytes: 0,
    }
}

fn free_memory() -> Option<u64> {
    memory_of(&text(Path::new("/proc/meminfo"))?)
}

/// By /proc/meminfo, which has it in kB.
fn memory_of(meminfo: &str) -> Option<u64> {
    let kept = MEMORY_KEPT.min(bytes(meminfo, "MemTotal:")? / PART_OF_MEMORY_KEPT);
    Some(bytes(meminfo, "MemAvailable:")?.saturating_sub(kept))
}

fn free_disk(state_dir: &Path) -> Option<u64> {
    let free = anteroom_image::free_mib(state_dir).ok()? << 20;
    Some(free.saturating_sub(DISK_KEPT))
}

/// Of the whole machine, and of the control groups that this process is in.
fn free_pids() -> Option<u64> {
    let number = |path: &Path| text(path)?.trim().parse::<u64>().ok();
    let running = threads_of(&text(Path::new("/proc/loadavg"))?)?;
    let kernel = Path::new("/proc/sys/kernel");
    let most = number(&kernel.join("pid_max"))?.min(number(&kernel.join("threads-max"))?);
    let groups = group_folders(&text(Path::new("/proc/self/cgroup")).unwrap_or_default());
    let in_group = |group: &PathBuf| {
        // Without a limit it is "max".
        let most = number(&group.join("pids.max"))?;
        Some(most.saturating_sub(number(&group.join("pids.current"))?))
    };
    let free = most.saturating_sub(running);
    let free = groups.iter().filter_map(in_group).fold(free, u64::min);
    Some(free.saturating_sub(PIDS_KEPT))
}

/// The number of processes and threads (proc_loadavg(5), the fourth field).
fn threads_of(loadavg: &str) -> Option<u64> {
    loadavg.split_whitespace().nth(3)?.split_once('/')?.1.parse().ok()
}

/// The folders of the groups that count processes, from a /proc/PID/cgroup: the process's own and those
/// above it, where hierarchies are usually mounted.
fn group_folders(cgroup: &str) -> Vec<PathBuf> {
    let mut folders = Vec::new();
    for line in cgroup.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(path)) =
            (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        let mount = match controllers {
            "" => "/sys/fs/cgroup",
            "pids" => "/sys/fs/cgroup/pids",
            _ => continue,
        };
        let own = Path::new(path.trim_start_matches('/'));
        folders.extend(own.ancestors().map(|part| Path::new(mount).join(part)));
    }
    folders
}

fn text(path: &Path) -> Option<String> {
    read_text_or_pipe(path, MOST_READ).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_other_programs_is_not_free() {
        let meminfo = "MemTotal:  24000000 kB\nMemAvailable:    8388608 kB\n";
        assert_eq!(memory_of(meminfo), Some(7 << 30));
        let small = "MemTotal:  2097152 kB\nMemAvailable:    1048576 kB\n";
        assert_eq!(memory_of(small), Some(768 << 20));
        let full = "MemTotal:  2097152 kB\nMemAvailable:    1 kB\n";
        assert_eq!(memory_of(full), Some(0));
        for unknown in ["", "MemTotal: 1 kB\n", "MemTotal: 1 kB\nMemAvailable: x kB\n"] {
            assert_eq!(memory_of(unknown), None);
        }
    }

    #[test]
    fn processes_are_counted_in_the_own_group_and_those_above_it() {
        assert_eq!(threads_of("0.10 0.20 0.30 3/412 99\n"), Some(412));
        assert_eq!(threads_of("0.10"), None);
        let second = group_folders("0::/system.slice/anteroom.service\n");
        let places = ["system.slice/anteroom.service", "system.slice", ""];
        assert_eq!(second, places.map(|place| Path::new("/sys/fs/cgroup").join(place)));
        let first = group_folders("8:pids:/a\n4:memory:/b\n");
        assert_eq!(first, ["a", ""].map(|place| Path::new("/sys/fs/cgroup/pids").join(place)));
    }

    #[test]
    fn this_machine_has_something_free() {
        let free = look(Path::new("/"));
        assert!(free.memory_bytes.is_some() && free.pids.is_some() && free.disk_bytes.is_some());
        assert_eq!(look(Path::new("/nowhere")).disk_bytes, None);
    }
}
