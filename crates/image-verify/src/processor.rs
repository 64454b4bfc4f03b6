//! Processors by name: what `--cpu` takes.

use std::path::Path;

use anteroom_cpu::{
    ConvertError, CpuProfile, ProfileError, Standing, firecracker_template, qemu_cpu_model,
    this_machine,
};
use anteroom_image::{CpuModel, Processor};
use anteroom_vm::{TCG_PROCESSOR, VmAccelerator};

/// The machine's own CPU, as `--cpu` calls it.
pub const THIS_HOST: &str = "this-host";

/// A processor cannot be given to a guest.
#[derive(Debug, thiserror::Error)]
pub enum ProcessorError {
    /// No profile has this name.
    #[error("{0}, {THIS_HOST}, or a file with a CPU template that ends in .json")]
    Unknown(ProfileError),
    /// A template's file cannot be read.
    #[error("reading the CPU template {path} failed")]
    Unread {
        /// The file, by its path.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A file is not a template.
    #[error(transparent)]
    NotATemplate(ProfileError),
    /// It is nothing that another VMM has.
    #[error("{0} is a CPU of QEMU's alone; choose a CPU profile with --cpu")]
    OfQemu(String),
    /// QEMU has no model of it.
    #[error(transparent)]
    NoModel(#[from] ConvertError),
}

/// A processor, and what it has.
#[derive(Clone, Debug)]
pub struct Chosen {
    /// As a guest is given it.
    pub processor: Processor,
    /// Its features; `None` for a model of QEMU's own, which only a guest knows.
    pub profile: Option<CpuProfile>,
    /// Features of the profile that QEMU cannot emulate.
    pub not_emulated: Vec<String>,
}

/// A profile by its name, from a template's file (it ends in `.json`), or of this machine.
///
/// # Errors
/// When no profile has that name, or the file is not a template.
pub fn profile(name: &str) -> Result<CpuProfile, ProcessorError> {
    if name.eq_ignore_ascii_case(THIS_HOST) {
        return Ok(CpuProfile {
            name: THIS_HOST.to_owned(),
            ..CpuProfile::of_host(this_machine())
        });
    }
    let path = Path::new(name);
    if path.extension().is_some_and(|extension| extension == "json") {
        let text = anteroom_private::read_text(path)
            .map_err(|source| ProcessorError::Unread { path: name.to_owned(), source })?;
        let stem = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let template =
            CpuProfile::from_template_json(&text).map_err(ProcessorError::NotATemplate)?;
        return Ok(CpuProfile { name: stem, ..template });
    }
    CpuProfile::named(name).map_err(ProcessorError::Unknown)
}

/// What `--cpu NAME` gives a guest. A template that leaves features to its host leaves them to this
/// machine.
///
/// # Errors
/// When there is no such profile.
pub fn choose(name: &str) -> Result<Chosen, ProcessorError> {
    if name.eq_ignore_ascii_case(TCG_PROCESSOR) {
        return Ok(emulated());
    }
    let mut profile = profile(name)?;
    if !profile.features(Standing::AsHost).is_empty() {
        let name = profile.name.clone();
        profile = CpuProfile { name, ..profile.on_host(&this_machine()) };
    }
    let model = qemu_cpu_model(&profile)?;
    let not_emulated = model.not_emulated.iter().map(|feature| feature.name().to_owned()).collect();
    let model = CpuModel::Qemu(model.cpu);
    let processor = Processor { profile: profile.name.clone(), model };
    Ok(Chosen { processor, profile: Some(profile), not_emulated })
}

/// What a guest has where nobody chose.
///
/// # Errors
/// When QEMU has no model for this machine's CPU.
pub fn usual(accelerator: VmAccelerator) -> Result<Chosen, ProcessorError> {
    match accelerator {
        VmAccelerator::Tcg => Ok(emulated()),
        VmAccelerator::Kvm => choose(THIS_HOST),
    }
}

impl Chosen {
    /// The same as Firecracker is given it.
    ///
    /// # Errors
    /// When it is a model of QEMU's own.
    pub fn for_firecracker(&self) -> Result<Self, ProcessorError> {
        let name = self.processor.profile.clone();
        let Some(profile) = &self.profile else { return Err(ProcessorError::OfQemu(name)) };
        // What this machine has needs no template.
        let template = match name.as_str() {
            THIS_HOST => String::new(),
            _ => firecracker_template(profile).to_string(),
        };
        let processor = Processor { profile: name, model: CpuModel::Firecracker(template) };
        Ok(Self { processor, profile: self.profile.clone(), not_emulated: Vec::new() })
    }
}

fn emulated() -> Chosen {
    let model = TCG_PROCESSOR.to_owned();
    let processor = Processor { profile: model.clone(), model: CpuModel::Qemu(model) };
    Chosen { processor, profile: None, not_emulated: Vec::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_that_is_taken_gives_a_processor() {
        for name in ["x86-64-v1", "X86-64-V2", "x86-64-v4", "T2", "C3", THIS_HOST, TCG_PROCESSOR] {
            let chosen = choose(name).unwrap();
            assert!(chosen.processor.profile.eq_ignore_ascii_case(name), "{chosen:?}");
        }
        assert!(choose("x86-64-v4").unwrap().not_emulated.contains(&"AVX-512F".to_owned()));
        let error = choose("pentium").unwrap_err().to_string();
        assert!(error.contains("x86-64-v2"), "{error}");
    }

    #[test]
    fn a_template_that_is_a_pipe_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe.json");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(matches!(choose(pipe.to_str().unwrap()), Err(ProcessorError::Unread { .. })));
    }
}
