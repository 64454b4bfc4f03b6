//! `anteroom image verify`, and the verification after a build.

use std::io::Write;
use std::path::{Path, PathBuf};

use anstyle::{AnsiColor, Style};
use anteroom_controller::SCREEN;
use anteroom_guest_protocol::ForeignText;
use anteroom_guest_session::{Vmm, remove_recorded};
use anteroom_image::{Image, Reached, Verdict, Verification};
use anteroom_vm::{AcceleratorChoice, Qemu, VmAccelerator};
use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::driver::firecracker;
use super::folders::cache_dir;
use super::progress::Work;
use super::sessions::{show, unless_closed};
use super::unless_interrupted;
use crate::embedded;
use anteroom_image_verify::processor::{Chosen, choose, usual};
use anteroom_image_verify::{Verified, Verifier, reached, write_page};

/// Prefix of folders in an image with a running sandbox's logs; the process id follows.
const VERIFYING: &str = ".verifying-";

/// The same of a VM that is saved.
pub const SNAPSHOTTING: &str = ".snapshotting-";

/// Findings that the report for a terminal lists.
const LISTED: usize = 12;

/// Features of one that it names.
const FEATURES_LISTED: usize = 6;

/// Characters of a line of it before the observation, at least.
const NAME_WIDTH: usize = 24;

/// How the verifier boots an image.
#[derive(clap::Args)]
pub struct How {
    /// The CPU profile to verify it for; may be repeated [default: what `serve` gives guests here].
    ///
    /// x86-64-v1 to -v4, T2, T2S, T2CL, T2A, C3, a file with a Firecracker CPU template (*.json),
    /// this-host.
    #[arg(long, value_name = "PROFILE")]
    cpu: Vec<String>,
    /// What boots it: QEMU's emulation, which refuses what the processor lacks, or Firecracker with a CPU
    /// template, which hides it; the latter needs KVM.
    #[arg(long, value_enum, default_value = "qemu")]
    driver: Driver,
    /// Guest memory in MiB, as sessions have it.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u32).range(512..=65_536))]
    memory: u32,
    /// Guest processors.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=16))]
    vcpus: u8,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Driver {
    Qemu,
    Firecracker,
}

/// A record and where it is.
pub struct Recorded {
    record: Verification,
    file: PathBuf,
    page: PathBuf,
    /// The sandbox's logs, where they matter.
    logs: Option<PathBuf>,
}

/// `anteroom image verify`.
pub fn run(images_dir: &Path, name: &str, how: &How, as_json: bool) -> Result<()> {
    let processors = how.processors()?;
    let image = anteroom_image::find(images_dir, name)?;
    let recorded = all(&image.dir, how, processors)?;
    report(&recorded, as_json)?;
    verdict(&recorded)
}

impl How {
    /// The processors that were asked for.
    ///
    /// # Errors
    /// When there is no such profile.
    pub fn processors(&self) -> Result<Vec<Chosen>> {
        let chosen: Vec<Chosen> = match (self.driver, &self.cpu[..]) {
            (Driver::Qemu, []) => vec![usual(AcceleratorChoice::Auto.resolve()?)?],
            (Driver::Firecracker, []) => vec![usual(VmAccelerator::Kvm)?],
            (_, names) => names.iter().map(|name| choose(name)).collect::<Result<_, _>>()?,
        };
        match self.driver {
            Driver::Qemu => Ok(chosen),
            Driver::Firecracker => {
                Ok(chosen.iter().map(Chosen::for_firecracker).collect::<Result<_, _>>()?)
            }
        }
    }

    /// What boots a VM with this processor, and its version.
    fn vmm(&self, cpu: &Chosen) -> Result<(Vmm, String)> {
        match self.driver {
            Driver::Qemu => {
                let cpu = Some(cpu.processor.clone());
                // Emulation refuses what the processor lacks; hardware only hides it.
                let vmm = Vmm::Qemu { accelerator: VmAccelerator::Tcg, cpu };
                Ok((vmm, Qemu::version().unwrap_or_default()))
            }
            Driver::Firecracker => firecracker(cpu),
        }
    }
}

/// Verifies the image in a folder for each processor.
pub fn all(image_dir: &Path, how: &How, processors: Vec<Chosen>) -> Result<Vec<Recorded>> {
    processors.into_iter().map(|cpu| one(image_dir, how, cpu)).collect()
}

/// The processors for which the image is not verified.
pub fn open(image_dir: &Path, processors: Vec<Chosen>) -> Vec<Chosen> {
    let is_open = |cpu: &Chosen| anteroom_image::verified_for(image_dir, &cpu.processor).is_err();
    processors.into_iter().filter(is_open).collect()
}

/// An error unless all passed.
pub fn verdict(recorded: &[Recorded]) -> Result<()> {
    let failed: Vec<&str> = recorded
        .iter()
        .map(|recorded| &recorded.record)
        .filter(|record| record.verdict == Verdict::Failed)
        .map(|record| record.cpu.profile.as_str())
        .collect();
    match (recorded.first(), failed.is_empty()) {
        (Some(first), false) => bail!(
            "the image {} failed verification for {}; `serve` refuses it there",
            first.record.image,
            failed.join(", ")
        ),
        _ => Ok(()),
    }
}

fn one(image_dir: &Path, how: &How, cpu: Chosen) -> Result<Recorded> {
    let cache_dir = cache_dir();
    std::fs::create_dir_all(&cache_dir)
        .with_context(|| format!("creating {} failed", cache_dir.display()))?;
    let image = Image::open(image_dir, &cache_dir)?;
    sweep(image_dir, VERIFYING);
    sweep(&cache_dir, anteroom_image_verify::UNPACKED);
    let log_dir = tempfile::Builder::new()
        .prefix(&format!("{VERIFYING}{}-", std::process::id()))
        .tempdir_in(image_dir)
        .with_context(|| format!("cannot create a folder in {}", image_dir.display()))?;
    let what = format!("Verifying image {} on {}", image.manifest.name, cpu.processor.profile);
    let work = Work::open_ended(what);
    let (vmm, vmm_version) = how.vmm(&cpu)?;
    let verifier = Verifier {
        vmm,
        vmm_version,
        image: &image,
        agent: embedded::agent()?,
        cpu,
        memory_mib: how.memory,
        vcpus: how.vcpus,
        screen: SCREEN,
        work_dir: cache_dir,
        log_dir: log_dir.path().to_path_buf(),
        progress: &|step| work.at_step(step),
    };
    let verified = unless_interrupted(verifier.verify(), "nothing was recorded");
    work.finish();
    let verified = verified?;
    let storing = || format!("cannot store the record in {}", image_dir.display());
    let file = verified.record.store(image_dir).with_context(storing)?;
    let page = write_page(&verified, image_dir)?;
    let logs = keep_logs(&verified, log_dir, image_dir)?;
    Ok(Recorded { record: verified.record, file, page, logs })
}

/// Removes what a killed run left: folders that carry the number of a process that is gone, and what there is of
/// their sandboxes.
pub fn sweep(folder: &Path, prefix: &str) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(prefix).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|number| !Path::new("/proc").join(number).exists()) {
            match remove_recorded(&entry.path()) {
                Ok(()) => {
                    let _ = std::fs::remove_dir_all(entry.path());
                }
                // The next run tries again.
                Err(error) => eprintln!("Of a run that was killed is left: {error}"),
            }
        }
    }
}

/// The logs of a sandbox that passed are of no use.
fn keep_logs(
    verified: &Verified,
    log_dir: tempfile::TempDir,
    image_dir: &Path,
) -> Result<Option<PathBuf>> {
    let kept = image_dir.join(format!("{}.logs", verified.record.file_stem()));
    if kept.exists() {
        std::fs::remove_dir_all(&kept)
            .with_context(|| format!("cannot remove the earlier {}", kept.display()))?;
    }
    if verified.record.verdict == Verdict::Passed {
        return Ok(None);
    }
    std::fs::rename(log_dir.keep(), &kept)
        .with_context(|| format!("cannot save the sandbox's logs as {}", kept.display()))?;
    Ok(Some(kept))
}

/// Prints all records.
pub fn report(recorded: &[Recorded], as_json: bool) -> Result<()> {
    let records: Vec<Value> = recorded.iter().map(as_value).collect();
    if as_json {
        return show(true, &json!({ "verifications": records }), |_| String::new());
    }
    // What an image holds is of foreign origin; the colours are ours.
    let page = recorded.iter().map(for_people).collect::<Vec<_>>().join("\n");
    let page = painted(&ForeignText::lines(&page).to_string());
    unless_closed(anstream::stdout().write_all(page.as_bytes()))
}

/// With coloured verdicts at the start of each line.
fn painted(page: &str) -> String {
    let style = |color: AnsiColor| Style::new().fg_color(Some(color.into())).bold();
    let paint = |line: &str| {
        let colors = [(PASS, AnsiColor::Green), (FAIL, AnsiColor::Red)];
        let found =
            colors.iter().find_map(|(word, color)| Some((*word, *color, line.strip_prefix(word)?)));
        match found {
            Some((word, color, rest)) => {
                let style = style(color);
                format!("{style}{word}{style:#}{rest}\n")
            }
            None => format!("{line}\n"),
        }
    };
    page.lines().map(paint).collect()
}

const PASS: &str = "PASS";
const FAIL: &str = "FAIL";

/// The record, and where it is.
pub fn as_value(recorded: &Recorded) -> Value {
    json!({
        "record": recorded.record, "file": recorded.file, "page": recorded.page,
        "logs": recorded.logs,
    })
}

fn for_people(recorded: &Recorded) -> String {
    let record = &recorded.record;
    let word = |verdict| match verdict {
        Verdict::Passed => PASS,
        Verdict::Failed => FAIL,
    };
    let width = record.components.iter().map(|one| one.name.chars().count() + 2).max();
    let width = width.unwrap_or(0).max(NAME_WIDTH);
    let mut page =
        format!("image {} ({}) on {}\n\n", record.image, record.recipe_digest, record.cpu.profile);
    for component in &record.components {
        let version = component.version.as_ref().map_or(String::new(), |v| format!("{v}; "));
        page.push_str(&format!(
            "{}  {:<width$}{version}{}\n",
            word(component.verdict),
            component.name,
            component.observed
        ));
        for line in &component.evidence {
            page.push_str(&format!("{:6}{:width$}{line}\n", "", ""));
        }
        if let Some(advice) = &component.advice {
            page.push_str(&format!("{:6}{:<width$}{advice}\n", "", "  to do"));
        }
    }
    page.push_str(&opened(record));
    let seconds = record.took_ms / 1000;
    page.push_str(&format!(
        "\n{}  after {seconds} s; record {}, page {}\n",
        word(record.verdict),
        recorded.file.display(),
        recorded.page.display()
    ));
    if let Some(logs) = &recorded.logs {
        page.push_str(&format!("      the sandbox's logs: {}\n", logs.display()));
    }
    page
}

/// Static findings in files that the run did open; the rest is in the record.
fn opened(record: &Verification) -> String {
    let shown = |reached| matches!(reached, Reached::Reached | Reached::OpenedOnly);
    let findings: Vec<_> =
        record.inventory.findings.iter().filter(|finding| shown(finding.reached)).collect();
    let mut text = String::new();
    for finding in findings.iter().take(LISTED) {
        let more = finding.beyond.len().saturating_sub(FEATURES_LISTED);
        let features = finding.beyond.iter().take(FEATURES_LISTED);
        let mut features: Vec<String> = features.map(|beyond| beyond.feature.clone()).collect();
        if more > 0 {
            features.push(format!("and {more} more"));
        }
        let chooses = finding.chooses.as_deref().unwrap_or("no sign that it chooses code by CPU");
        text.push_str(&format!(
            "{:6}{:<NAME_WIDTH$}{}: {}; {chooses}\n",
            "",
            format!("  {}", reached(finding.reached)),
            finding.path,
            features.join(", ")
        ));
    }
    if findings.len() > LISTED {
        let more = findings.len() - LISTED;
        text.push_str(&format!("{:6}{:<NAME_WIDTH$}and {more} more in the record\n", "", ""));
    }
    text
}
