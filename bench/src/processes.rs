//! A session's processes, as /proc shows them.

use std::fs;

use anyhow::{Context, Result};

/// Process id and command line of each that carries the session's mark in its environment.
pub fn of_session(id: &str) -> Result<Vec<(u32, String)>> {
    let mark = format!("ANTEROOM_SESSION={id}");
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let read = |file: &str| fs::read(entry.path().join(file)).unwrap_or_default();
        if read("environ").split(|byte| *byte == 0).any(|part| part == mark.as_bytes()) {
            let command = String::from_utf8_lossy(&read("cmdline")).replace('\0', " ");
            found.push((entry.file_name().to_string_lossy().parse()?, command));
        }
    }
    Ok(found)
}

/// The fields of /proc/PID/stat after the name: the first is field 3 of proc(5).
pub fn stat_after_name(pid: u32) -> Result<Vec<String>> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let fields = stat.rsplit_once(')').context("/proc/PID/stat has no name")?.1;
    Ok(fields.split_whitespace().map(str::to_owned).collect())
}
