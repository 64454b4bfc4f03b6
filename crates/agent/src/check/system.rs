//! The guest as a whole.

use std::time::{SystemTime, UNIX_EPOCH};

use anteroom_guest_protocol::SystemFacts;
use anyhow::{Context, Result};

/// Debian's bundle of certificate authorities.
const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Looks.
pub fn facts() -> Result<SystemFacts> {
    let memory =
        std::fs::read_to_string("/proc/meminfo").context("reading /proc/meminfo failed")?;
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    let authorities = std::fs::read_to_string(AUTHORITIES).unwrap_or_default();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let certificates = authorities.matches("-----BEGIN CERTIFICATE-----").count();
    Ok(SystemFacts {
        os: value(&release, "PRETTY_NAME=").trim_matches('"').to_owned(),
        now_unix_ms: u64::try_from(since_epoch.as_millis()).unwrap_or(u64::MAX),
        memory_total_kib: kib(&memory, "MemTotal:"),
        memory_available_kib: kib(&memory, "MemAvailable:"),
        certificates: u32::try_from(certificates).unwrap_or(u32::MAX),
    })
}

fn value<'a>(text: &'a str, name: &str) -> &'a str {
    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim()
}

fn kib(meminfo: &str, name: &str) -> u64 {
    value(meminfo, name).split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_read_in_kib() {
        let meminfo = "MemTotal:        2021000 kB\nMemFree: 1 kB\nMemAvailable:    1500000 kB\n";
        assert_eq!(
            (kib(meminfo, "MemTotal:"), kib(meminfo, "MemAvailable:")),
            (2_021_000, 1_500_000)
        );
        assert_eq!(kib(meminfo, "Other:"), 0);
    }
}
