//! `anteroom explain`: what Anteroom says of deaths, for core dumps and programs outside a session.

use std::fs::File;
use std::path::{Path, PathBuf};

use anteroom_cpu::{CpuProfile, Standing};
use anteroom_crash::dump::Dump;
use anteroom_crash::elf::{Beyond, Facts};
use anteroom_crash::{Cpu, Death, core_file, elf};
use anteroom_guest_protocol::{Evidence, MAX_INSTRUCTION, ProcessExit};
use anyhow::{Context, Result, bail};
use object::ReadCache;
use serde_json::{Value, json};

use super::sessions::show;
use super::why;
use crate::gate::processor::profile;
use crate::private::quoted;

/// What to explain.
#[derive(clap::Subcommand)]
pub enum Explain {
    /// Says why a process died, by its core dump.
    Core(Core),
    /// Lists what programs hold that a processor lacks, what they need to start, and whether it is
    /// there.
    Elf(Elf),
}

/// What `explain core` takes.
#[derive(clap::Args)]
pub struct Core {
    /// The core dump, also compressed as systemd keeps it (zstd, lz4, xz).
    file: PathBuf,
    /// The CPU profile that the process ran on: a name, or a file with a Firecracker CPU template.
    #[arg(long, value_name = "PROFILE")]
    cpu: Option<String>,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// What `explain elf` takes.
#[derive(clap::Args)]
pub struct Elf {
    /// Programs and libraries.
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// The CPU profile to hold them to: a name, or a file with a Firecracker CPU template.
    #[arg(long, value_name = "PROFILE")]
    cpu: String,
    /// Prints JSON.
    #[arg(long)]
    json: bool,
}

/// `anteroom explain …`.
pub fn run(command: &Explain) -> Result<()> {
    match command {
        Explain::Core(options) => core(options),
        Explain::Elf(options) => programs(options),
    }
}

fn open(path: &Path) -> Result<File> {
    let failed = || format!("reading {} failed", path.display());
    let file = File::open(path).with_context(failed)?;
    let kind = file.metadata().with_context(failed)?;
    if !kind.is_file() {
        bail!("{} is no file", path.display());
    }
    Ok(file)
}

fn core(options: &Core) -> Result<()> {
    let failed = || format!("reading {} failed", options.file.display());
    let file = open(&options.file)?;
    let mut dump = Dump::open(file, &quoted(&options.file)).with_context(failed)?;
    let mut core = core_file::read(dump.head()).with_context(failed)?;
    find_code(&mut core, &mut dump).with_context(failed)?;
    let cpu = options.cpu.as_deref().map(profile).transpose()?;
    let cpu = cpu.map(|profile| Cpu { name: format!("the CPU profile {}", profile.name), profile });
    let service = core.fault.program.rsplit('/').next().unwrap_or_default().to_owned();
    let service = if service.is_empty() { "the program".to_owned() } else { service };
    let signal = core.fault.signal;
    let evidence = Evidence { fault: Some(Box::new(core.fault)), ..Evidence::default() };
    let explanation = anteroom_crash::explain(&Death {
        service: &service,
        exit: Some(ProcessExit::Signalled { signal }),
        lived_ms: None,
        last_lines: None,
        evidence: &evidence,
        cpu: cpu.as_ref(),
    });
    show(options.json, &serde_json::to_value(&explanation)?, |value| {
        format!("{}\n{}", explanation.sentence, why::explanation(value))
    })
}

/// The instruction from the dump where it holds code, else from the file that it is of, if that is
/// still here; build id and symbol likewise.
fn find_code(core: &mut core_file::Core, dump: &mut Dump<File>) -> std::io::Result<()> {
    let at = core.fault.instruction_pointer;
    if let Some((offset, length)) = core.place(at, MAX_INSTRUCTION) {
        core.set_instruction(&dump.at(offset, length)?);
    }
    let Some(mapping) = core.fault.code_mapping.clone().filter(|m| m.path.starts_with('/')) else {
        return Ok(());
    };
    let Ok(file) = open(Path::new(&mapping.path)) else {
        let unseen = format!("{}, which is not on this machine", mapping.path);
        core.fault.unseen.push(unseen);
        return Ok(());
    };
    let data = ReadCache::new(file);
    let Some(offset) =
        at.checked_sub(mapping.start).and_then(|n| n.checked_add(mapping.file_offset))
    else {
        return Ok(());
    };
    if core.fault.instruction.is_empty() {
        use object::ReadRef;
        let read = (1..=MAX_INSTRUCTION as u64)
            .rev()
            .find_map(|length| (&data).read_bytes_at(offset, length).ok());
        if let Some(bytes) = read {
            core.set_instruction(bytes);
            let whence = "the code is of the file as it is on this machine now, not of the dump";
            core.fault.unseen.push(whence.to_owned());
        }
    }
    core.fault.symbol = elf::symbol_at(&data, offset);
    if let Some(mapping) = &mut core.fault.code_mapping {
        mapping.build_id = elf::facts(&data).ok().and_then(|facts| facts.build_id);
    }
    Ok(())
}

fn programs(options: &Elf) -> Result<()> {
    let profile = profile(&options.cpu)?;
    let mut reports = Vec::new();
    let mut page = String::new();
    for path in &options.files {
        let file = open(path)?;
        if file.metadata()?.len() > elf::MAX_FILE {
            bail!("{} is over {} MiB", path.display(), elf::MAX_FILE / (1024 * 1024));
        }
        let data =
            std::fs::read(path).with_context(|| format!("reading {} failed", path.display()))?;
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
    let mut page = format!("{}\n", path.display());
    if let Some(id) = &facts.build_id {
        page.push_str(&format!("  build id     {id}\n"));
    }
    if let Some(interpreter) = &facts.interpreter {
        let there = if Path::new(interpreter).exists() { "" } else { " (does not exist here)" };
        page.push_str(&format!("  interpreter  {interpreter}{there}\n"));
    }
    if !facts.libraries.is_empty() {
        page.push_str(&format!("  libraries    {}\n", facts.libraries.join(", ")));
    }
    if beyond.is_empty() {
        page.push_str(&format!("  nothing in its code is beyond {}\n", profile.name));
    } else {
        page.push_str(&format!(
            "  beyond {} (whether it is ever reached only a run shows):\n",
            profile.name
        ));
    }
    for found in beyond {
        let symbol = found.symbol.as_ref().map_or(String::new(), |s| format!(" in {}", s.name));
        page.push_str(&format!(
            "    {:12} {:>8} instructions, the first `{}` at {:#x}{symbol}\n",
            found.feature.name(),
            found.count,
            found.first,
            found.file_offset
        ));
    }
    let open = profile.features(Standing::AsHost).len();
    if open > 0 {
        page.push_str(&format!(
            "  {open} features are as on the host of {}: not judged here\n",
            profile.name
        ));
    }
    page
}
