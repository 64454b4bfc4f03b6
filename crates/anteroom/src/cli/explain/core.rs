//! `anteroom explain core`: why a process died, by its core dump.

use std::fs::File;
use std::path::{Path, PathBuf};

use anteroom_crash::core_file::Core;
use anteroom_crash::dump::Dump;
use anteroom_crash::{Cpu, Death, core_file, elf, explain, glibc};
use anteroom_guest_protocol::{Evidence, MAX_INSTRUCTION, Mapping, ProcessExit};
use anteroom_private::quoted;
use anyhow::{Context, Result};
use object::{ReadCache, ReadRef};

use super::super::sessions::show;
use super::super::why;
use super::open;
use anteroom_image_verify::processor::profile;

/// What `explain core` takes.
#[derive(clap::Args)]
pub struct Options {
    /// The core dump, also compressed as systemd keeps it (zstd, lz4, xz).
    file: PathBuf,
    /// The CPU profile that the process ran on: a name, or a file with a Firecracker CPU template.
    #[arg(long, value_name = "PROFILE")]
    cpu: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub fn run(options: &Options) -> Result<()> {
    let failed = || format!("reading {} failed", options.file.display());
    let file = open(&options.file)?;
    let mut dump = Dump::open(file, &quoted(&options.file)).with_context(failed)?;
    let mut core = core_file::read(dump.head()).with_context(failed)?;
    find_code(&mut core, &mut dump).with_context(failed)?;
    find_last_message(&mut core, &mut dump);
    let cpu = options.cpu.as_deref().map(profile).transpose()?;
    let cpu = cpu.map(|profile| Cpu { name: format!("the CPU profile {}", profile.name), profile });
    let service = core.fault.program.rsplit('/').next().unwrap_or_default().to_owned();
    let service = if service.is_empty() { "the program".to_owned() } else { service };
    let signal = core.fault.signal;
    let evidence = Evidence { fault: Some(Box::new(core.fault)), ..Evidence::default() };
    let explanation = explain(&Death {
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
/// still here and the same; build id and symbol likewise.
fn find_code(core: &mut Core, dump: &mut Dump<File>) -> std::io::Result<()> {
    let at = core.fault.instruction_pointer;
    if let Some((offset, length)) = core.place(at, MAX_INSTRUCTION) {
        core.set_instruction(&dump.at(offset, length)?);
    }
    let Some(mapping) = core.fault.code_mapping.clone().filter(|m| m.path.starts_with('/')) else {
        return Ok(());
    };
    let in_dump = build_id(core, dump, &mapping);
    if let Some(mapping) = &mut core.fault.code_mapping {
        mapping.build_id.clone_from(&in_dump);
    }
    let Ok(file) = open(Path::new(&mapping.path)) else {
        let unseen = format!("{}, which is not on this machine", mapping.path);
        core.fault.unseen.push(unseen);
        return Ok(());
    };
    let data = ReadCache::new(file);
    if in_dump.is_some() && in_dump != elf::build_id(&data) {
        let unseen = format!("{}, of which this machine has another build", mapping.path);
        core.fault.unseen.push(unseen);
        return Ok(());
    }
    let Some(offset) =
        at.checked_sub(mapping.start).and_then(|n| n.checked_add(mapping.file_offset))
    else {
        return Ok(());
    };
    if core.fault.instruction.is_empty() {
        let read = (1..=MAX_INSTRUCTION as u64)
            .rev()
            .find_map(|length| (&data).read_bytes_at(offset, length).ok());
        if let Some(bytes) = read {
            core.set_instruction(bytes);
            let whence =
                "the code in memory; the instruction is read from the file on this machine";
            core.fault.unseen.push(whence.to_owned());
        }
    }
    core.fault.symbol = elf::symbol_at(&data, offset);
    Ok(())
}

/// As the dump has it: of the file's first page, which the kernel dumps.
fn build_id(core: &Core, dump: &mut Dump<File>, mapping: &Mapping) -> Option<String> {
    let page = memory(core, dump, core.base_of(&mapping.path)?, 4096)?;
    elf::build_id(page.as_slice())
}

fn find_last_message(core: &mut Core, dump: &mut Dump<File>) {
    let Some((path, base)) = core.aborting_library() else { return };
    let found = match open(Path::new(&path)) {
        Ok(library) => glibc::last_message(&ReadCache::new(library), base, |address, length| {
            memory(core, dump, address, length)
        }),
        Err(_) => Err("the C library of the process is not on this machine"),
    };
    match found {
        Ok(message) => core.fault.last_message = message,
        Err(why) => core.fault.unseen.push(format!("glibc's last message: {why}")),
    }
}

fn memory(core: &Core, dump: &mut Dump<File>, address: u64, length: usize) -> Option<Vec<u8>> {
    let (offset, length) = core.place(address, length)?;
    dump.at(offset, length).ok()
}
