//! How many sandboxes the machine's memory holds.

/// Most sandboxes that are ever chosen by the machine's memory.
const MOST_BY_MEMORY: u64 = 64;

/// Memory that is left to the rest of the machine, in MiB.
const RESERVE_MIB: u64 = 1024;

/// What a clone that waits and then wakes takes at least, in MiB.
const CLONE_MIB: u64 = 256;

/// Whether the machine's free memory holds one clone more, beside what is left to the rest.
pub fn holds_another_clone() -> bool {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available_mib(&text).unwrap_or_default() >= RESERVE_MIB + CLONE_MIB
}

/// How many sandboxes of `sandbox_mib` the machine's free memory holds, at least one.
pub fn sessions_by_memory(sandbox_mib: u64) -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    sandboxes_in(available_mib(&text).unwrap_or_default(), sandbox_mib)
}

fn sandboxes_in(available_mib: u64, sandbox_mib: u64) -> usize {
    let sandboxes = available_mib.saturating_sub(RESERVE_MIB) / sandbox_mib.max(1);
    usize::try_from(sandboxes.clamp(1, MOST_BY_MEMORY)).unwrap_or(1)
}

/// `MemAvailable` of /proc/meminfo, which has it in kB.
fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_machine_has_capacity_for_one() {
        let meminfo = "MemTotal:  24000000 kB\nMemAvailable:    8388608 kB\n";
        assert_eq!(available_mib(meminfo), Some(8192));
        assert_eq!(sandboxes_in(8192, 2816), 2);
        assert_eq!(sandboxes_in(100, 2816), 1);
        assert_eq!(sandboxes_in(1_000_000, 100), 64);
    }
}
