//! `anteroom explain`: explanations of core dumps and programs outside a session.

mod core;

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anteroom_cpu::{CpuProfile, Standing};
use anteroom_crash::elf;
use anteroom_crash::elf::{Beyond, Facts};
use anteroom_guest_protocol::ForeignText;
use anteroom_private::open_regular;
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::sessions::show;
use crate::counted::counted;
use anteroom_image_verify::processor::profile;

/// What to explain.
#[derive(clap::Subcommand)]
pub enum Explain {
    /// Explain why a process died, from its core dump.
    Core(core::Options),
    /// List the instructions in programs that a processor lacks, what the programs need to start, and
    /// whether it exists.
    Elf(Elf),
}

/// What `explain elf` takes.
#[derive(clap::Args)]
pub struct Elf {
    /// Programs and libraries.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The CPU profile to compare with: a name, or a file with a Firecracker CPU template.
    #[arg(long, value_name = "PROFILE")]
    cpu: String,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// `anteroom explain …`.
pub fn run(command: &Explain) -> Result<()> {
    match command {
        Explain::Core(options) => core::run(options),
        Explain::Elf(options) => programs(options),
    }
}

fn open(path: &Path) -> Result<File> {
    // A dump may name any path.
    open_regular(path).with_context(|| format!("reading {} failed", path.display()))
}

fn programs(options: &Elf) -> Result<()> {
    let profile = profile(&options.cpu)?;
    let mut reports = Vec::new();
    let mut page = String::new();
    for path in &options.files {
        let file = open(path)?;
        let mut data = Vec::new();
        file.take(elf::MAX_FILE + 1)
            .read_to_end(&mut data)
            .with_context(|| format!("reading {} failed", path.display()))?;
        if data.len() as u64 > elf::MAX_FILE {
            bail!("{} is larger than {} MiB", path.display(), elf::MAX_FILE / (1024 * 1024));
        }
        let failed = || format!("{} cannot be explained", path.display());
        let facts = elf::facts(data.as_slice()).with_context(failed)?;
        let beyond = elf::beyond(data.as_slice(), &profile).with_context(failed)?;
        page.push_str(&about(path, &facts, &beyond, &profile));
        reports.push(report(path, &facts, &beyond));
    }
    let value = json!({ "profile": profile.name, "files": reports });
    show(options.json, &value, |_| page.clone())
}

fn report(path: &Path, facts: &Facts, beyond: &[Beyond]) -> Value {
    let interpreter = facts.interpreter.as_ref();
    json!({
        "file": path,
        "buildId": facts.build_id,
        "interpreter": interpreter,
        "interpreterExists": interpreter.map(|path| Path::new(path).exists()),
        "libraries": facts.libraries,
        "beyond": beyond.iter().map(|found| json!({
            "feature": found.feature.name(), "count": found.count, "first": found.first,
            "fileOffset": found.file_offset,
            "symbol": found.symbol.as_ref().map(|symbol| symbol.name.clone()),
        })).collect::<Vec<_>>(),
    })
}

fn about(path: &Path, facts: &Facts, beyond: &[Beyond], profile: &CpuProfile) -> String {
    // Each has its line: none of the file's may look like one of ours.
    let line = |text: &str| ForeignText::new(text).to_string();
    let mut page = format!("{}\n", line(&path.display().to_string()));
    if let Some(id) = &facts.build_id {
        page.push_str(&format!("  build id     {id}\n"));
    }
    if let Some(interpreter) = &facts.interpreter {
        let there = if Path::new(interpreter).exists() { "" } else { " (does not exist here)" };
        page.push_str(&format!("  interpreter  {}{there}\n", line(interpreter)));
    }
    if !facts.libraries.is_empty() {
        page.push_str(&format!("  libraries    {}\n", line(&facts.libraries.join(", "))));
    }
    if beyond.is_empty() {
        page.push_str(&format!("  its code uses no instruction that {} lacks\n", profile.name));
    } else {
        page.push_str(&format!(
            "  instructions that {} lacks (only a run shows whether they are reached):\n",
            profile.name
        ));
    }
    let width = beyond.iter().map(|found| found.feature.name().len()).max().unwrap_or_default();
    for found in beyond {
        let noun = if found.count == 1 { "instruction" } else { "instructions" };
        let symbol =
            found.symbol.as_ref().map_or(String::new(), |s| format!(" in {}", line(&s.name)));
        page.push_str(&format!(
            "    {:width$} {:>8} {noun}, the first `{}` at {:#x}{symbol}\n",
            found.feature.name(),
            found.count,
            found.first,
            found.file_offset
        ));
    }
    let open = profile.features(Standing::AsHost).len();
    if open > 0 {
        let open = counted(open, "feature", "features");
        page.push_str(&format!("  not checked: {open} that {} leaves to the host\n", profile.name));
    }
    page
}
