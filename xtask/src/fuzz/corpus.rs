//! The corpus in git: of all inputs known, the few that reach everything the many reach.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

use anyhow::{Context, Result};

use super::{TARGET_ENV, Target, known, make_folder};
use xtask::shell;

/// The most that is kept of a target: it is run from the start with every test.
const MOST_FILES: usize = 200;
const MOST_BYTES: u64 = 200 * 1024;

/// Replaces the kept corpus by the least that reaches what it, and what was `found`, reach beyond the
/// seeds. Returns how many inputs that are.
pub fn keep(target: &Target, program: &Path, found: &Path) -> Result<usize> {
    let [seeds, corpus] = known(target);
    let merged = tempfile::Builder::new().prefix("xtask-corpus-").tempdir()?;
    // What lies in the first folder counts as reached already.
    let seeded = copy_all(&seeds, merged.path())?;
    make_folder(&corpus)?;
    let mut merge = Command::new(program);
    merge
        .env(TARGET_ENV, target.name)
        // What is reached counts, not how often: that would be thousands of inputs.
        .args(["-set_cover_merge=1", "-use_counters=0", "-timeout=10", "-rss_limit_mb=1024"])
        .arg(format!("-max_len={}", target.max_len))
        .arg(merged.path())
        .args([&corpus, found]);
    shell::output(&mut merge)?;
    for seed in seeded {
        fs::remove_file(&seed).with_context(|| format!("removing {} failed", seed.display()))?;
    }
    let chosen = best(files(merged.path())?);
    fs::remove_dir_all(&corpus).with_context(|| format!("removing {} failed", corpus.display()))?;
    make_folder(&corpus)?;
    for input in &chosen {
        copy(input, &corpus)?;
    }
    Ok(chosen.len())
}

/// An input: when it was written, its length and where it is.
type Input = (SystemTime, u64, PathBuf);

/// As many as are kept. libFuzzer writes those first that reach most; of those of one moment (clocks
/// of file systems are coarse) the small ones come first.
fn best(mut inputs: Vec<Input>) -> Vec<PathBuf> {
    inputs.sort();
    let mut bytes = 0;
    inputs
        .into_iter()
        .filter(|(_, length, _)| {
            let fits = bytes + length <= MOST_BYTES;
            if fits {
                bytes += length;
            }
            fits
        })
        .take(MOST_FILES)
        .map(|(_, _, input)| input)
        .collect()
}

fn copy_all(from: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    if !from.is_dir() {
        return Ok(Vec::new());
    }
    files(from)?.iter().map(|(_, _, file)| copy(file, to)).collect()
}

fn copy(file: &Path, folder: &Path) -> Result<PathBuf> {
    let copied = folder.join(file.file_name().unwrap_or_default());
    fs::copy(file, &copied).with_context(|| format!("copying {} failed", file.display()))?;
    Ok(copied)
}

fn files(folder: &Path) -> Result<Vec<Input>> {
    let failed = || format!("reading {} failed", folder.display());
    fs::read_dir(folder)
        .with_context(failed)?
        .map(|entry| {
            let entry = entry?;
            let metadata = entry.metadata()?;
            Ok((metadata.modified()?, metadata.len(), entry.path()))
        })
        .collect::<std::io::Result<_>>()
        .with_context(failed)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_first_written_are_kept_up_to_both_limits() {
        let input = |second: u64, length: u64, n: usize| {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
            (at, length, PathBuf::from(format!("{n:03}")))
        };
        let many: Vec<_> = (0..500).map(|n| input(1, 1, n)).collect();
        assert_eq!(best(many).len(), 200);
        let kib = 1024;
        let large = vec![
            input(2, 10 * kib, 1),
            input(1, 150 * kib, 2),
            input(2, 60 * kib, 3),
            input(1, 20 * kib, 4),
        ];
        assert_eq!(best(large), ["004", "002", "001"].map(PathBuf::from));
    }
}
