//! What a clone takes of its own: the pages of its template that it has changed.

use std::time::Duration;

use anteroom_testkit::Started;
use anyhow::{Context, Result};
use serde_json::Value;

use super::figures::when;
use super::setting::Setting;
use super::unchanged::MEMORY;
use crate::demo::TTL_SECONDS;
use crate::template::until_loaded;

/// Private memory of each VM of some sign-ins at once, when their pages have been drawn for `rest` seconds:
/// the most, in MiB.
pub fn together(setting: &Setting, count: usize, rest: u64) -> Result<u64> {
    let mut server = setting.serve(&["--max-sessions", &count.to_string()])?;
    until_loaded(&server)?;
    setting.memory.look(server.pid())?;
    let sessions: Vec<Started> = (0..count)
        .map(|_| server.start_session(&setting.recipient, TTL_SECONDS))
        .collect::<Result<_>>()?;
    for session in &sessions {
        let drawn = |status: &Value| when(status, "sign_in_page_opened").is_some();
        server.wait_until(&session.id, Duration::from_secs(300), "shown its page", drawn)?;
    }
    std::thread::sleep(Duration::from_secs(rest));
    let mut most = 0;
    for session in &sessions {
        let mib = private_mib(&session.id)?;
        eprintln!("{}: {mib} MiB private of the template", session.id);
        most = most.max(mib);
    }
    for session in &sessions {
        server.cancel(&session.id)?;
        server.wait_until_torn_down(&session.id, Duration::from_secs(90))?;
    }
    setting.memory.look(server.pid())?;
    server.stop()?;
    Ok(most)
}

/// Pages of the template that a session's VM has changed, in MiB: anonymous in its VMM's mapping. Those that it
/// alone maps count as private and dirty too, but are the template's.
pub fn private_mib(session: &str) -> Result<u64> {
    for (pid, _) in anteroom_testkit::processes::of_session(session)? {
        // One that has just ended maps nothing.
        let smaps = std::fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap_or_default();
        if let Some(kib) = changed_kib(&smaps)? {
            return Ok(kib >> 10);
        }
    }
    anyhow::bail!("no process of the session {session} maps a template's memory")
}

/// `None` where there is no mapping of a template.
fn changed_kib(smaps: &str) -> Result<Option<u64>> {
    let (mut in_template, mut kib) = (false, None);
    for line in smaps.lines() {
        if line.contains(MEMORY) {
            in_template = true;
        } else if in_template && let Some(rest) = line.strip_prefix("Anonymous:") {
            let size = rest.trim().trim_end_matches(" kB").parse::<u64>();
            kib = Some(kib.unwrap_or(0) + size.context("a size in smaps is no number")?);
            in_template = false;
        }
    }
    Ok(kib)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_mappings_of_the_template_count_and_no_others() {
        let mapping = |name: &str, kib: u32| {
            format!(
                "7f0000000000-7f0008000000 rw-p 00000000 00:01 1 {name}\nRss: 9 kB\nPrivate_Dirty: 70 kB\nAnonymous:  {kib} kB\n"
            )
        };
        let template = "/memfd:anteroom-template-memory (deleted)";
        let smaps = mapping(template, 30) + &mapping("[heap]", 500) + &mapping(template, 12);
        assert_eq!(changed_kib(&smaps).unwrap(), Some(42));
        assert_eq!(changed_kib(&mapping("[heap]", 500)).unwrap(), None);
    }
}
