//! What processes take of the machine's memory, as the kernel counts it.

use std::io::ErrorKind;
use std::path::Path;

use anteroom_node_protocol::Pages;
use anteroom_private::read_text_or_pipe;

use super::kernel_text::bytes;

/// Bytes that are read of a file of /proc; both have less than two thousand.
const MOST_READ: u64 = 16 * 1024;

/// Whether a process may map pages that are another's too although nobody else maps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maps {
    /// A template's: those that a lone clone has not changed count as its own for the kernel.
    Template,
    /// None.
    Own,
}

/// Pages of these processes together; `None` where one of them cannot be read, or there is none. One that
/// has ended meanwhile has none.
pub fn of_processes(pids: &[i32], maps: Maps) -> Option<Pages> {
    let mut all: Option<Pages> = None;
    for pid in pids {
        let Some(pages) = of_process(Path::new(&format!("/proc/{pid}")), maps)? else { continue };
        let sum = all.unwrap_or_default();
        all = Some(Pages {
            private_bytes: sum.private_bytes.saturating_add(pages.private_bytes),
            shared_bytes: sum.shared_bytes.saturating_add(pages.shared_bytes),
        });
    }
    all
}

/// Of the process in this folder; `Some(None)` when it is gone.
fn of_process(folder: &Path, maps: Maps) -> Option<Option<Pages>> {
    match read_text_or_pipe(&folder.join("smaps_rollup"), MOST_READ) {
        Ok(text) => return rollup(&text, maps).map(Some),
        Err(error) if is_gone(&error) => return Some(None),
        // A runner hides its memory, and only root may look at other users' processes.
        Err(_) => {}
    }
    match read_text_or_pipe(&folder.join("status"), MOST_READ) {
        Ok(text) => counters(&text).map(Some),
        Err(error) if is_gone(&error) => Some(None),
        Err(_) => None,
    }
}

/// Of a `smaps_rollup` (proc_pid_smaps(5)).
fn rollup(text: &str, maps: Maps) -> Option<Pages> {
    let sum = |fields: [&str; 2]| {
        fields.into_iter().try_fold(0_u64, |sum, field| sum.checked_add(bytes(text, field)?))
    };
    let own = sum(["Private_Clean:", "Private_Dirty:"])?;
    let others = sum(["Shared_Clean:", "Shared_Dirty:"])?;
    let private_bytes = match maps {
        Maps::Own => own,
        // What a clone has changed is its own copy, which is anonymous.
        Maps::Template => own.min(bytes(text, "Anonymous:")?),
    };
    let shared_bytes = others.checked_add(own - private_bytes)?;
    Some(Pages { private_bytes, shared_bytes })
}

/// Of a `status` (proc_pid_status(5)), which the kernel shows to everybody. A process without memory of
/// its own, such as a zombie, has none of these fields: that is not known.
fn counters(text: &str) -> Option<Pages> {
    let shared = bytes(text, "RssFile:")?.checked_add(bytes(text, "RssShmem:")?)?;
    Some(Pages { private_bytes: bytes(text, "RssAnon:")?, shared_bytes: shared })
}

/// Whether a file of /proc is missing because its process has ended.
pub fn is_gone(error: &std::io::Error) -> bool {
    // Of one that ends while it is read the kernel says that there is no such process.
    let no_process = Some(nix::errno::Errno::ESRCH as i32);
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == no_process
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ROLLUP: &str = "\
        5575b4c90000-7ffe7d4c7000 ---p 00000000 00:00 0                          [rollup]\n\
        Rss:                2100 kB\n\
        Pss:                 455 kB\n\
        Pss_Anon:            116 kB\n\
        Shared_Clean:       1000 kB\n\
        Shared_Dirty:        100 kB\n\
        Private_Clean:       400 kB\n\
        Private_Dirty:       600 kB\n\
        Anonymous:           150 kB\n";

    fn kib(private: u64, shared: u64) -> Option<Pages> {
        Some(Pages { private_bytes: private << 10, shared_bytes: shared << 10 })
    }

    #[test]
    fn what_a_lone_clone_has_not_changed_is_its_template_s() {
        assert_eq!(rollup(ROLLUP, Maps::Own), kib(1000, 1100));
        assert_eq!(rollup(ROLLUP, Maps::Template), kib(150, 1950));
    }

    #[test]
    fn what_cannot_be_read_is_not_nothing() {
        assert_eq!(rollup("", Maps::Own), None);
        for line in ROLLUP.lines().filter(|line| line.contains("_Clean") || line.contains("_Dirty"))
        {
            assert_eq!(rollup(&ROLLUP.replace(line, ""), Maps::Own), None, "{line}");
        }
        let huge =
            ROLLUP.replace("Shared_Clean:       1000", "Shared_Clean:  18446744073709551615");
        assert_eq!(rollup(&huge, Maps::Own), None);
        assert_eq!(counters("Name:\tcat\nState:\tZ (zombie)\n"), None);
        let status = "VmRSS:\t 30 kB\nRssAnon:\t 10 kB\nRssFile:\t 19 kB\nRssShmem:\t 1 kB\n";
        assert_eq!(counters(status), kib(10, 20));
    }

    #[test]
    fn a_process_has_what_it_wrote_to_and_one_that_is_gone_nothing() {
        let own = i32::try_from(std::process::id()).unwrap();
        // Pages of the program are shared as soon as another test runs it: they do not count here.
        let private = || of_processes(&[own], Maps::Template).unwrap().private_bytes;
        let before = private();
        let written = vec![1_u8; 32 << 20];
        let after = private();
        assert!(after >= before + (31 << 20), "{before} {after}");
        assert_eq!(written.iter().map(|byte| usize::from(*byte)).sum::<usize>(), written.len());
        assert_eq!(of_processes(&[i32::MAX], Maps::Own), None);
        assert!(of_processes(&[i32::MAX, own], Maps::Own).is_some());
    }

    proptest! {
        #[test]
        fn all_that_is_resident_is_private_or_shared(
            own in [0..1_u64 << 30, 0..1_u64 << 30],
            others in [0..1_u64 << 30, 0..1_u64 << 30],
            anonymous in 0..1_u64 << 31,
        ) {
            let text = format!(
                "Shared_Clean: {} kB\nShared_Dirty: {} kB\nPrivate_Clean: {} kB\nPrivate_Dirty: {} kB\n\
                 Anonymous: {anonymous} kB\n",
                others[0], others[1], own[0], own[1],
            );
            let resident = own.iter().chain(&others).sum::<u64>() << 10;
            for maps in [Maps::Own, Maps::Template] {
                let pages = rollup(&text, maps).unwrap();
                prop_assert_eq!(pages.private_bytes + pages.shared_bytes, resident);
            }
        }

        #[test]
        fn whatever_a_file_has_it_is_read_or_not(text in "(?s).{0,400}") {
            let _ = (rollup(&text, Maps::Template), counters(&text));
        }
    }
}
