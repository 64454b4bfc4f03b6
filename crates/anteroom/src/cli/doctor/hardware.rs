//! What of this machine's disks and processors may give away what is in memory.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Finding, ok, warning};

/// The kernel's list of what memory is written to when there is too little (proc(5)).
const SWAPS: &str = "/proc/swaps";

/// A folder for each disk.
const BLOCK_DEVICES: &str = "/sys/block";

const PROCESSORS: &str = "/proc/cpuinfo";

const UPDATE_MICROCODE: &str = "install the packages intel-microcode or amd64-microcode, whichever is for this processor, and restart the machine";

pub fn findings() -> [Finding; 2] {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    [swap(&read(SWAPS), Path::new(BLOCK_DEVICES)), microcode(&read(PROCESSORS))]
}

/// Where swap is.
enum Swap {
    InMemory,
    Encrypted,
    /// In the open, as far as can be seen: a file may be on a disk that is encrypted.
    Open,
}

fn swap(swaps: &str, block_devices: &Path) -> Finding {
    let places = swaps.lines().skip(1).filter_map(|line| line.split_whitespace().next());
    let places: Vec<&str> = places.collect();
    let is_open = |place: &&str| matches!(Swap::of(place, block_devices), Swap::Open);
    let open: Vec<&str> = places.iter().copied().filter(|place| is_open(place)).collect();
    match (places.is_empty(), open.is_empty()) {
        (true, _) => ok("no swap is on"),
        (_, true) => ok(format!("swap is in memory (zram) or encrypted: {}", places.join(", "))),
        (_, false) => warning(
            format!(
                "swap is on, and neither in memory nor known to be encrypted: {}; guest memory and what end users type can be written to it where a session has no cgroup and cannot lock its memory",
                open.join(", ")
            ),
            "turn it off (swapoff -a, and take it out of /etc/fstab), or encrypt it (the option swap of crypttab(5))",
        ),
    }
}

impl Swap {
    fn of(place: &str, block_devices: &Path) -> Self {
        let Some(name) = place.strip_prefix("/dev/") else { return Self::Open };
        let said = |file: &str| {
            let text = std::fs::read_to_string(block_devices.join(name).join(file)).ok()?;
            Some(text.trim().to_owned())
        };
        // The kernel's prefix of a dm-crypt device.
        if said("dm/uuid").is_some_and(|uuid| uuid.starts_with("CRYPT-")) {
            return Self::Encrypted;
        }
        // It may write what it has to a disk; a kernel that cannot has no such file.
        let has_disk = said("backing_dev").is_some_and(|disk| disk != "none");
        if name.starts_with("zram") && !has_disk { Self::InMemory } else { Self::Open }
    }
}

/// As the kernel lists it for each processor. Which version is the newest is known to nothing here.
fn microcode(processors: &str) -> Finding {
    let field = |name: &'static str| {
        processors.lines().filter_map(move |line| {
            let (found, value) = line.split_once(':')?;
            (found.trim() == name).then(|| value.trim())
        })
    };
    let versions: BTreeSet<&str> = field("microcode").collect();
    let versions: Vec<&str> = versions.into_iter().collect();
    let is_virtual =
        field("flags").any(|flags| flags.split_whitespace().any(|flag| flag == "hypervisor"));
    if is_virtual {
        let fix = "look at the machine that this one runs on: its microcode is what counts";
        let what = match versions.as_slice() {
            [] => "this machine is virtual, so its microcode's version is not known".to_owned(),
            _ => format!(
                "this machine is virtual, so its microcode's version is not known: {} is what the hypervisor says",
                versions.join(", ")
            ),
        };
        return Finding { fix: Some(fix.to_owned()), ..ok(what) };
    }
    match versions.as_slice() {
        [] => warning("the kernel does not say which version its microcode has", UPDATE_MICROCODE),
        [version] => ok(format!("the processor's microcode has version {version}")),
        _ => warning(
            format!("the processors have different versions of microcode: {}", versions.join(", ")),
            UPDATE_MICROCODE,
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::*;

    const HEAD: &str = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n";

    /// Two encrypted disks, one that is not, and two of zram, of which one writes to a disk.
    fn block_devices() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (file, content) in [
            ("dm-0/dm/uuid", "CRYPT-PLAIN-swap\n"),
            ("dm-1/dm/uuid", "LVM-abc\n"),
            ("dm-2/dm/uuid", "CRYPT-LUKS2-abc-swap\n"),
            ("zram0/backing_dev", "none\n"),
            ("zram1/backing_dev", "/dev/sda2\n"),
        ] {
            let file = folder.path().join(file);
            std::fs::create_dir_all(file.parent().unwrap()).unwrap();
            std::fs::write(file, content).unwrap();
        }
        folder
    }

    fn swap_of(places: &[&str]) -> Finding {
        let folder = block_devices();
        let lines = places.iter().map(|place| format!("{place}\tpartition\t8388604\t0\t-2\n"));
        swap(&format!("{HEAD}{}", lines.collect::<String>()), folder.path())
    }

    #[test]
    fn swap_in_the_open_is_named_and_no_other() {
        for (places, expected) in [
            (&[][..], "no swap is on"),
            (&["/dev/zram0"], "swap is in memory (zram) or encrypted: /dev/zram0"),
            (
                &["/dev/dm-0", "/dev/dm-2"],
                "swap is in memory (zram) or encrypted: /dev/dm-0, /dev/dm-2",
            ),
            // A kernel that writes no zram to disks.
            (&["/dev/zram7"], "swap is in memory (zram) or encrypted: /dev/zram7"),
        ] {
            let finding = swap_of(places);
            assert_eq!(finding.what, expected);
            assert!(finding.verdict == Verdict::Ok && finding.fix.is_none());
        }
        let finding =
            swap_of(&["/dev/dm-0", "/dev/dm-1", "/dev/zram1", "/dev/sda3", "/swap\\040file"]);
        let named = "encrypted: /dev/dm-1, /dev/zram1, /dev/sda3, /swap\\040file; guest memory";
        assert!(finding.what.contains(named), "{}", finding.what);
        assert!(finding.verdict == Verdict::Warning && finding.fix.is_some());
        // A kernel without swap has no such file.
        assert_eq!(swap("", Path::new("/nowhere")).what, "no swap is on");
    }

    #[test]
    fn microcode_is_what_the_kernel_says_and_unknown_in_a_virtual_machine() {
        let processor = |microcode: &str, flags: &str| {
            format!("processor\t: 0\nvendor_id\t: GenuineIntel\n{microcode}flags\t\t: {flags}\n\n")
        };
        let [new, old, none] = ["microcode\t: 0x2b0005c0\n", "microcode\t: 0x2b000461\n", ""];
        let bare = "fpu vmx";
        let finding = microcode(&processor(new, bare).repeat(2));
        assert_eq!(finding.what, "the processor's microcode has version 0x2b0005c0");
        assert!(finding.verdict == Verdict::Ok && finding.fix.is_none());

        let finding = microcode(&(processor(new, bare) + &processor(old, bare)));
        assert!(finding.what.ends_with(": 0x2b000461, 0x2b0005c0"), "{}", finding.what);
        assert!(finding.verdict == Verdict::Warning && finding.fix.is_some());

        for text in [processor(none, bare), String::new()] {
            let finding = microcode(&text);
            assert!(finding.what.contains("does not say"), "{}", finding.what);
            assert!(finding.verdict == Verdict::Warning && finding.fix.is_some());
        }
        let finding = microcode(&processor("microcode\t: 0x1\n", "fpu hypervisor vmx"));
        let expected = "this machine is virtual, so its microcode's version is not known: 0x1 is what the hypervisor says";
        assert_eq!(finding.what, expected);
        assert!(finding.verdict == Verdict::Ok && finding.fix.is_some());
        let finding = microcode(&processor(none, "hypervisor"));
        assert!(finding.what.ends_with("is not known"), "{}", finding.what);
    }
}
