//! The corpus in git: of all inputs known, the few that reach everything the many reach.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::{Target, known, make_folder};
use crate::shell;

/// The most that is kept of a target: it is run from the start with every test.
const MOST_FILES: usize = 200;
const MOST_BYTES: u64 = 200 * 1024;

/// Replaces the kept corpus by the least that reaches what it, and what was `found`, reach beyond the
/// seeds. Returns how many inputs that are.
pub fn keep(target: &Target, programs: &Path, found: &Path) -> Result<usize> {
    let [seeds, corpus] = known(target);
    let merged = tempfile::Builder::new().prefix("anteroom-corpus-").tempdir()?;
    // What lies in the first folder counts as reached already.
    let seeded = copy_all(&seeds, merged.path())?;
    make_folder(&corpus)?;
    let mut merge = Command::new(programs.join(target.name));
    merge
        .args(["-set_cover_merge=1", "-timeout=10", "-rss_limit_mb=1024"])
        .arg(format!("-max_len={}", target.max_len))
        .arg(merged.path())
        .args([&corpus, found]);
    shell::output(&mut merge)?;
    for seed in seeded {
        fs::remove_file(&seed).with_context(|| format!("removing {} failed", seed.display()))?;
    }
    let chosen = smallest(files(merged.path())?);
    fs::remove_dir_all(&corpus).with_context(|| format!("removing {} failed", corpus.display()))?;
    make_folder(&corpus)?;
    for input in &chosen {
        copy(input, &corpus)?;
    }
    Ok(chosen.len())
}

/// As many as are kept, the smallest first.
fn smallest(mut inputs: Vec<(u64, PathBuf)>) -> Vec<PathBuf> {
    inputs.sort();
    let mut bytes = 0;
    inputs
        .into_iter()
        .take(MOST_FILES)
        .take_while(|(length, _)| {
            bytes += length;
            bytes <= MOST_BYTES
        })
        .map(|(_, input)| input)
        .collect()
}

fn copy_all(from: &Path, to: &Path) -> Result<Vec<PathBuf>> {
    if !from.is_dir() {
        return Ok(Vec::new());
    }
    files(from)?.iter().map(|(_, file)| copy(file, to)).collect()
}

fn copy(file: &Path, folder: &Path) -> Result<PathBuf> {
    let copied = folder.join(file.file_name().unwrap_or_default());
    fs::copy(file, &copied).with_context(|| format!("copying {} failed", file.display()))?;
    Ok(copied)
}

/// The files of a folder with their lengths.
fn files(folder: &Path) -> Result<Vec<(u64, PathBuf)>> {
    let failed = || format!("reading {} failed", folder.display());
    fs::read_dir(folder)
        .with_context(failed)?
        .map(|entry| {
            let entry = entry?;
            Ok((entry.metadata()?.len(), entry.path()))
        })
        .collect::<std::io::Result<_>>()
        .with_context(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_are_kept_up_to_both_limits() {
        let input = |length: u64, n: usize| (length, PathBuf::from(format!("{n:03}")));
        let many: Vec<_> = (0..500).map(|n| input(1, n)).collect();
        assert_eq!(smallest(many).len(), 200);
        let large = vec![input(150 * 1024, 1), input(60 * 1024, 2), input(100 * 1024, 3)];
        assert_eq!(smallest(large), [PathBuf::from("002"), PathBuf::from("003")]);
    }
}
