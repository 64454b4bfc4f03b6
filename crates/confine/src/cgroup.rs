//! A session's control group: memory, processes and processor time.
//!
//! It lies below `anteroom` at the top of the hierarchy, as other VMMs' launchers place theirs, and is
//! named by the session, so that whoever looks for leftovers finds it. Version 2 has one folder,
//! version 1 one for each controller (kernel: admin-guide/cgroup-v2, cgroup-v1/{memory,pids},
//! scheduler/sched-bwc).

use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::ConfineError;

/// The folder of all sessions' groups.
const PARENT: &str = "anteroom";

/// What is limited.
const CONTROLLERS: [&str; 3] = ["memory", "pids", "cpu"];

/// Length of the period that processor time is given by, in microseconds: the kernel's usual one.
const PERIOD_US: u64 = 100_000;

/// How long a group may be busy after its last process ended, and how often one may vanish while it is
/// being made, because another session's end took the empty parent away.
const BUSY: Duration = Duration::from_secs(2);
const VANISHED: u32 = 5;

/// What a session may take of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Memory in bytes. None of it goes to swap.
    pub memory_bytes: u64,
    /// Processes and threads.
    pub pids: u64,
    /// Processors' worth of time.
    pub cpus: u64,
}

/// A control group; it stays until [`Cgroup::remove`].
#[derive(Clone, Debug)]
pub struct Cgroup {
    folders: Vec<PathBuf>,
}

/// Where the hierarchies are mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mounted {
    V2(PathBuf),
    /// In the order of [`CONTROLLERS`]; some may be the same.
    V1([PathBuf; 3]),
}

impl Cgroup {
    /// Makes the group and sets its limits.
    ///
    /// # Errors
    /// When this machine mounts no hierarchy with all controllers, or refuses a part; nothing is left.
    pub fn make(name: &str, limits: &Limits) -> Result<Self, ConfineError> {
        let mounted = mounted()?;
        let group = Self { folders: folders(&mounted, name) };
        group.make_in(&mounted, limits).inspect_err(|_| {
            let _ = group.remove();
        })?;
        Ok(group)
    }

    fn make_in(&self, mounted: &Mounted, limits: &Limits) -> Result<(), ConfineError> {
        for (folder, at) in self.folders.iter().zip(mounted.places()) {
            make_folder(folder, at, matches!(mounted, Mounted::V2(_)))?;
        }
        match mounted {
            Mounted::V2(_) => set_v2(&self.folders[0], limits),
            Mounted::V1(_) => set_v1(&self.folders, limits),
        }
    }

    /// The files that take the process which writes `0` into them.
    #[must_use]
    pub fn entrances(&self) -> Vec<PathBuf> {
        self.folders.iter().map(|dir| dir.join("cgroup.procs")).collect()
    }

    /// A descriptor of the file that counts the processes which the kernel killed because the group was
    /// out of memory, for [`killed_for_memory`].
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn memory_events(&self) -> io::Result<fs::File> {
        let memory = &self.folders[0];
        fs::File::open(memory.join("memory.events"))
            .or_else(|_| fs::File::open(memory.join("memory.oom_control")))
    }

    /// Removes it. One that is gone is fine.
    ///
    /// # Errors
    /// When processes are in it after a while.
    pub fn remove(&self) -> Result<(), ConfineError> {
        let began = Instant::now();
        for folder in &self.folders {
            // Of one that is not there, below a folder of somebody else's, the kernel says that it may not
            // be removed.
            if fs::symlink_metadata(folder).is_err_and(|error| error.kind() == ErrorKind::NotFound)
            {
                continue;
            }
            loop {
                match fs::remove_dir(folder) {
                    Ok(()) => break,
                    Err(error) if error.kind() == ErrorKind::NotFound => break,
                    // The kernel takes the last process out of it a moment after its end.
                    Err(error)
                        if error.kind() == ErrorKind::ResourceBusy && began.elapsed() < BUSY =>
                    {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                    Err(source) => return Err(failed("removing the cgroup", folder, source)),
                }
            }
            // The last one takes the parent along.
            let _ = folder.parent().map(fs::remove_dir);
        }
        Ok(())
    }

    /// Removes a session's group, whoever made it. None is fine.
    ///
    /// # Errors
    /// When processes are in it after a while.
    pub fn remove_named(name: &str) -> Result<(), ConfineError> {
        match mounted() {
            Ok(mounted) => Self { folders: folders(&mounted, name) }.remove(),
            Err(_) => Ok(()),
        }
    }
}

/// How many processes the kernel killed because the group was out of memory, by the file of
/// [`Cgroup::memory_events`].
#[must_use]
pub fn killed_for_memory(events: &fs::File) -> Option<u64> {
    use std::os::unix::fs::FileExt;
    let mut text = [0; 1024];
    let length = events.read_at(&mut text, 0).ok()?;
    let text = String::from_utf8_lossy(&text[..length]).into_owned();
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

/// Of a process's /proc/PID/cgroup: its group, where it is one of ours.
pub(crate) fn own_of(text: &str) -> Option<String> {
    let path = |line: &str| line.splitn(3, ':').nth(2).map(str::to_owned);
    let is_ours = |path: &String| path.starts_with(&format!("/{PARENT}/"));
    text.lines().filter_map(path).find(is_ours)
}

impl Mounted {
    /// Each once.
    fn places(&self) -> Vec<&PathBuf> {
        let mut places: Vec<_> = match self {
            Self::V2(place) => vec![place],
            Self::V1(places) => places.iter().collect(),
        };
        places.dedup();
        places
    }
}

fn folders(mounted: &Mounted, name: &str) -> Vec<PathBuf> {
    mounted.places().into_iter().map(|place| place.join(PARENT).join(name)).collect()
}

/// Looks at what is mounted here.
fn mounted() -> Result<Mounted, ConfineError> {
    let mounts = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(mounts).map_err(|source| failed("reading", mounts, source))?;
    let controllers =
        |place: &Path| fs::read_to_string(place.join("cgroup.controllers")).unwrap_or_default();
    find(&text, controllers).ok_or_else(|| {
        let source = io::Error::new(
            ErrorKind::NotFound,
            "no hierarchy with memory, pids and cpu is mounted",
        );
        failed("looking for cgroups in", mounts, source)
    })
}

/// Version 2 is taken where it has the controllers: a mount of it alone may have none, beside version 1.
fn find(mountinfo: &str, controllers: impl Fn(&Path) -> String) -> Option<Mounted> {
    let mounts = || mountinfo.lines().filter_map(mount_of);
    let has_all = |place: &Path| {
        let offered = controllers(place);
        CONTROLLERS.iter().all(|name| offered.split_whitespace().any(|word| word == *name))
    };
    let second = mounts().find(|(kind, place, _)| *kind == "cgroup2" && has_all(place));
    if let Some((_, place, _)) = second {
        return Some(Mounted::V2(place));
    }
    let of = |name: &str| {
        let has = |options: &str| options.split(',').any(|option| option == name);
        mounts()
            .find(|(kind, _, options)| *kind == "cgroup" && has(options))
            .map(|(_, place, _)| place)
    };
    Some(Mounted::V1([of("memory")?, of("pids")?, of("cpu")?]))
}

/// Kind, place and the file system's own options of a line (proc(5), mountinfo).
fn mount_of(line: &str) -> Option<(&str, PathBuf, &str)> {
    let (before, after) = line.split_once(" - ")?;
    let place = before.split(' ').nth(4)?;
    let mut after = after.split(' ');
    Some((after.next()?, PathBuf::from(place), after.nth(1)?))
}

fn make_folder(folder: &Path, at: &Path, is_v2: bool) -> Result<(), ConfineError> {
    let parent = at.join(PARENT);
    let mut tries = 0;
    loop {
        make_one(&parent)?;
        if is_v2 {
            for group in [at, &parent] {
                hand_down(group)?;
            }
        }
        match fs::create_dir(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound && tries < VANISHED => tries += 1,
            made => return made.map_err(|source| failed("making the cgroup", folder, source)),
        }
    }
}

fn make_one(folder: &Path) -> Result<(), ConfineError> {
    match fs::create_dir(folder) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(failed("making the cgroup", folder, error))
        }
        _ => Ok(()),
    }
}

/// Lets the groups below use the controllers.
fn hand_down(group: &Path) -> Result<(), ConfineError> {
    let path = group.join("cgroup.subtree_control");
    let given = fs::read_to_string(&path).unwrap_or_default();
    for name in CONTROLLERS {
        if !given.split_whitespace().any(|word| word == name) {
            set(&path, &format!("+{name}"))?;
        }
    }
    Ok(())
}

fn set_v2(folder: &Path, limits: &Limits) -> Result<(), ConfineError> {
    set(&folder.join("memory.max"), &limits.memory_bytes.to_string())?;
    // A kernel without swap has no such file.
    set_if_there(&folder.join("memory.swap.max"), "0")?;
    set(&folder.join("pids.max"), &limits.pids.to_string())?;
    set(&folder.join("cpu.max"), &format!("{} {PERIOD_US}", limits.cpus * PERIOD_US))
}

/// `folders` in the order of [`CONTROLLERS`], those mounted together once.
fn set_v1(folders: &[PathBuf], limits: &Limits) -> Result<(), ConfineError> {
    let quota = limits.cpus * PERIOD_US;
    let values = [
        ("memory.limit_in_bytes", limits.memory_bytes),
        ("memory.swappiness", 0),
        ("pids.max", limits.pids),
        ("cpu.cfs_period_us", PERIOD_US),
        ("cpu.cfs_quota_us", quota),
    ];
    for (file, value) in values {
        // Each file is in the folder of its controller alone, and must be in one.
        let path = folders.iter().map(|folder| folder.join(file)).find(|path| path.exists());
        let path = path.unwrap_or_else(|| folders[0].join(file));
        set(&path, &value.to_string())?;
    }
    Ok(())
}

fn set_if_there(path: &Path, value: &str) -> Result<(), ConfineError> {
    if path.exists() { set(path, value) } else { Ok(()) }
}

fn set(path: &Path, value: &str) -> Result<(), ConfineError> {
    // Not made where it is missing, as `fs::write` would.
    let opened = fs::OpenOptions::new().write(true).open(path);
    opened
        .and_then(|mut file| io::Write::write_all(&mut file, value.as_bytes()))
        .map_err(|source| failed("setting", path, source))
}

fn failed(operation: &'static str, path: &Path, source: io::Error) -> ConfineError {
    ConfineError { operation, path: path.to_path_buf(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        25 20 0:22 / /sys/fs/cgroup ro - tmpfs tmpfs ro,mode=755\n\
        26 25 0:23 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n\
        27 25 0:24 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        28 25 0:25 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
        29 25 0:26 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n";

    #[test]
    fn version_2_is_taken_where_it_has_the_controllers_and_else_version_1() {
        let none = |_: &Path| "hugetlb".to_owned();
        let all = |_: &Path| "cpuset cpu io memory hugetlb pids".to_owned();
        let expected =
            ["memory", "pids", "cpu,cpuacct"].map(|at| Path::new("/sys/fs/cgroup").join(at));
        assert_eq!(find(HYBRID, none), Some(Mounted::V1(expected)));
        assert_eq!(find(HYBRID, all), Some(Mounted::V2("/sys/fs/cgroup/unified".into())));
        assert_eq!(find("", all), None);
    }

    #[test]
    fn only_a_group_of_ours_is_reported() {
        assert_eq!(own_of("4:memory:/x\n0::/anteroom/abc\n"), Some("/anteroom/abc".to_owned()));
        assert_eq!(own_of("0::/user.slice\n"), None);
    }

    /// Runs where this machine lets it; the whole is tested with a VM.
    #[test]
    fn a_group_is_made_with_its_limits_and_leaves_nothing() {
        let name = format!("test-{}", std::process::id());
        let limits = Limits { memory_bytes: 64 << 20, pids: 7, cpus: 2 };
        let Ok(group) = Cgroup::make(&name, &limits) else { return };
        let read = |file: &str| {
            group.folders.iter().find_map(|dir| fs::read_to_string(dir.join(file)).ok())
        };
        assert_eq!(read("pids.max").unwrap().trim(), "7");
        let memory = read("memory.max").or_else(|| read("memory.limit_in_bytes")).unwrap();
        assert_eq!(memory.trim(), (64 << 20).to_string());
        assert_eq!(killed_for_memory(&group.memory_events().unwrap()), Some(0));
        let folders = group.folders.clone();
        Cgroup::remove_named(&name).unwrap();
        assert!(folders.iter().all(|folder| !folder.exists()));
        group.remove().unwrap();
    }
}
