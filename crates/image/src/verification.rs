//! What was verified of an image, and for which processor: one record a CPU profile, beside the image,
//! with its digest in the manifest.
//!
//! A record holds for the bytes that it was made of (the digests of root, kernel and modules are in
//! it) and for the processor that the VMM was given. It does not hold for the agent's bytes: those are of
//! the program that boots the image, not of the image.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::manifest::{FileRecord, Manifest, Processor, Verdict, VerificationRef};
use crate::store::{self, ImageError, MANIFEST};

/// Of the record's file.
const FORMAT: u32 = 2;

/// What was verified of an image for one processor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    /// Of this file.
    pub format: u32,
    /// The image's name.
    pub image: String,
    /// Its recipe's digest.
    pub recipe_digest: String,
    /// Its files, as they were.
    pub files: BTreeMap<String, FileRecord>,
    /// Lower-case hexadecimal SHA-256 of the services and programs that its manifest declared.
    pub declared: String,
    /// The processor.
    pub cpu: Processor,
    /// Features of the profile that QEMU cannot emulate: nothing that needs them was run.
    pub not_emulated: Vec<String>,
    /// Version of the Anteroom that looked.
    pub anteroom: String,
    /// What booted it, with its version.
    pub vmm: String,
    /// When it began, in seconds since the Unix epoch.
    pub began_at: u64,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// Whether all went well.
    pub verdict: Verdict,
    /// What was looked at, in this order.
    pub components: Vec<Component>,
    /// What the image's programs hold that the processor lacks.
    pub inventory: Inventory,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Component {
    /// Such as `browser`.
    pub name: String,
    /// Its own word on its version, where it has one.
    pub version: Option<String>,
    /// How it was looked at and what was seen, one sentence.
    pub observed: String,
    /// Whether that is as it must be.
    pub verdict: Verdict,
    /// What a failure rests on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub evidence: Vec<String>,
    /// What to do about a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub advice: Option<String>,
}

/// All programs and libraries, read without being run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Inventory {
    /// ELF files for x86-64 in the image.
    pub elf_files: usize,
    /// Why the image's files could not be read, if they could not.
    pub unread: Option<String>,
    /// Files with instructions beyond the processor. None of these fails an image: most programs
    /// choose such code only where the processor has it.
    pub findings: Vec<Finding>,
}

/// A file with instructions that the processor lacks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Finding {
    /// In the image.
    pub path: String,
    /// GNU build id.
    pub build_id: Option<String>,
    /// The level that the file says it needs (`GNU_PROPERTY_X86_ISA_1_NEEDED`), where it says one that
    /// the processor lacks: the loader refuses it then.
    pub isa_needed: Option<String>,
    /// How it detects the processor's features; empty where nothing of that kind was found.
    pub chooses: Option<String>,
    /// Whether any of the instructions was reached.
    pub reached: Reached,
    /// The instructions, by the feature that each misses.
    pub beyond: Vec<BeyondFeature>,
}

/// Whether code was reached in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reached {
    /// A program died of it.
    Reached,
    /// The file was opened and nothing died of it.
    OpenedOnly,
    /// The file was not even opened.
    NotOpened,
    /// Which files were opened is not known.
    Unknown,
}

/// Instructions that need one feature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BeyondFeature {
    /// The feature, in CPUID's words.
    pub feature: String,
    /// How many instructions.
    pub count: u64,
    /// The first of them.
    pub first: String,
    /// Where that is in the file.
    pub file_offset: u64,
    /// Its function, where known.
    pub symbol: Option<String>,
}

/// Why an image is not to be used on a processor.
#[derive(Debug, thiserror::Error)]
pub enum NotVerified {
    /// Nobody has looked.
    #[error(
        "the image {image} is not verified for the CPU profile {profile}{others}; run `anteroom image verify {image} --cpu {profile}`, or allow such images with --allow-unverified-images"
    )]
    NeverLookedAt {
        /// The image's name.
        image: String,
        /// The profile's name.
        profile: String,
        /// For which it is, as the middle of a sentence.
        others: String,
    },
    /// It did not pass.
    #[error(
        "the image {image} failed verification for the CPU profile {profile}: {why}; see {record}"
    )]
    Failed {
        /// The image's name.
        image: String,
        /// The profile's name.
        profile: String,
        /// What failed first.
        why: String,
        /// The record.
        record: String,
    },
    /// The record is not what the manifest says, or of another image.
    #[error(
        "the verification record {} does not belong to this image; run `anteroom image verify {image} --cpu {profile}` again",
        path.display()
    )]
    NotOfThisImage {
        /// The record.
        path: PathBuf,
        /// The image's name.
        image: String,
        /// The profile's name.
        profile: String,
    },
    /// The image itself cannot be read.
    #[error(transparent)]
    Image(#[from] ImageError),
}

impl Verification {
    /// An empty record of an image for a processor.
    #[must_use]
    pub fn new(manifest: &Manifest, cpu: Processor, began_at: u64) -> Self {
        Self {
            format: FORMAT,
            image: manifest.name.clone(),
            recipe_digest: manifest.recipe_digest.clone(),
            files: manifest.files.clone(),
            declared: declared(manifest),
            cpu,
            not_emulated: Vec::new(),
            anteroom: env!("CARGO_PKG_VERSION").to_owned(),
            vmm: String::new(),
            began_at,
            took_ms: 0,
            verdict: Verdict::Failed,
            components: Vec::new(),
            inventory: Inventory::default(),
        }
    }

    /// The file's name without its ending: `verified-x86-64-v2-1f0c2a9b`.
    #[must_use]
    pub fn file_stem(&self) -> String {
        let slug: String = self.cpu.profile.chars().take(60).collect();
        let slug = slug.replace(|c: char| !c.is_ascii_alphanumeric() && c != '-', "-");
        let digest = hex::encode(Sha256::digest(self.cpu.model.as_str().as_bytes()));
        format!("verified-{slug}-{}", &digest[..8])
    }

    /// Writes the record beside the image and names it in the manifest; where it is.
    ///
    /// # Errors
    /// When a file cannot be read or written.
    pub fn store(&self, image_dir: &Path) -> io::Result<PathBuf> {
        let json = serde_json::to_vec_pretty(self).map_err(io::Error::from)?;
        let name = format!("{}.json", self.file_stem());
        let path = image_dir.join(&name);
        let lock = Flock::lock(File::open(image_dir)?, FlockArg::LockExclusive);
        let _lock = lock.map_err(|(_, errno)| io::Error::from(errno))?;
        write_whole(&path, &json)?;
        let manifest_path = image_dir.join(MANIFEST);
        let mut manifest: Manifest = serde_json::from_slice(&fs::read(&manifest_path)?)?;
        manifest.verifications.retain(|other| other.cpu != self.cpu);
        manifest.verifications.push(VerificationRef {
            cpu: self.cpu.clone(),
            verdict: self.verdict,
            record: name,
            sha256: hex::encode(Sha256::digest(&json)),
        });
        write_whole(&manifest_path, &serde_json::to_vec_pretty(&manifest)?)?;
        Ok(path)
    }
}

/// Digest of what a manifest declares to run.
fn declared(manifest: &Manifest) -> String {
    let json = serde_json::to_vec(&(&manifest.services, &manifest.programs)).unwrap_or_default();
    hex::encode(Sha256::digest(json))
}

/// Writes a file so that it is there as a whole or not at all.
fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(content)?;
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// The record that lets the image in a folder run on a processor.
///
/// # Errors
/// When there is none, or it says that the image is not fit.
pub fn verified_for(image_dir: &Path, cpu: &Processor) -> Result<Verification, NotVerified> {
    let manifest = store::read_manifest(image_dir)?;
    let (image, profile) = (manifest.name.clone(), cpu.profile.clone());
    let Some(named) = manifest.verifications.iter().find(|other| other.cpu == *cpu) else {
        let passed = manifest.verifications.iter().filter(|v| v.verdict == Verdict::Passed);
        let others: Vec<&str> = passed.map(|other| other.cpu.profile.as_str()).collect();
        let others = if others.is_empty() {
            String::new()
        } else {
            format!(" (it is for {})", others.join(", "))
        };
        return Err(NotVerified::NeverLookedAt { image, profile, others });
    };
    let path = image_dir.join(&named.record);
    let changed = |path: PathBuf| NotVerified::NotOfThisImage {
        path,
        image: image.clone(),
        profile: profile.clone(),
    };
    // A name of the manifest's, which is in this folder and nowhere else.
    let plain = Path::new(&named.record).components().count() == 1;
    let Some(bytes) = plain.then(|| fs::read(&path).ok()).flatten() else {
        return Err(changed(path));
    };
    let as_named = hex::encode(Sha256::digest(&bytes)) == named.sha256;
    let Some(record) = serde_json::from_slice::<Verification>(&bytes).ok().filter(|_| as_named)
    else {
        return Err(changed(path));
    };
    let of_this_image = record.files == manifest.files && record.declared == declared(&manifest);
    if record.cpu != *cpu || !of_this_image {
        return Err(changed(path));
    }
    if record.verdict == Verdict::Failed {
        let failed = record.components.iter().find(|c| c.verdict == Verdict::Failed);
        let why = failed
            .map_or("it was not finished".to_owned(), |c| format!("{}: {}", c.name, c.observed));
        let record = path.display().to_string();
        return Err(NotVerified::Failed { image, profile, why, record });
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::CpuModel;
    use crate::store::tests::image_in;

    fn cpu(profile: &str) -> Processor {
        Processor { profile: profile.into(), model: CpuModel::Qemu(format!("{profile},+x")) }
    }

    fn made(dir: &Path, verdict: Verdict) -> Verification {
        let manifest = store::read_manifest(dir).unwrap();
        let mut record = Verification::new(&manifest, cpu("x86-64-v2"), 1);
        record.verdict = verdict;
        record.components.push(Component {
            name: "node".into(),
            version: None,
            observed: "it died".into(),
            verdict,
            evidence: Vec::new(),
            advice: None,
        });
        record.store(dir).unwrap();
        record
    }

    #[test]
    fn a_record_holds_for_its_image_and_processor_only() {
        let folder = tempfile::tempdir().unwrap();
        let dir = image_in(folder.path());
        let refusal = |profile: &str| verified_for(&dir, &cpu(profile)).unwrap_err().to_string();
        assert!(
            refusal("x86-64-v2").contains("is not verified for the CPU profile x86-64-v2; run")
        );
        let record = made(&dir, Verdict::Passed);
        assert_eq!(verified_for(&dir, &cpu("x86-64-v2")).unwrap(), record);
        assert!(refusal("x86-64-v1").contains("(it is for x86-64-v2)"));
        // The same name for another processor is another processor.
        for model in [CpuModel::Qemu("max".into()), CpuModel::Firecracker("x86-64-v2,+x".into())] {
            let other = Processor { model, ..cpu("x86-64-v2") };
            assert!(verified_for(&dir, &other).is_err());
        }
        // A later look replaces the earlier one.
        made(&dir, Verdict::Failed);
        assert!(refusal("x86-64-v2").contains("failed verification"));
        assert!(refusal("x86-64-v2").contains("node: it died"));
        assert_eq!(store::read_manifest(&dir).unwrap().verifications.len(), 1);
    }

    #[test]
    fn a_changed_record_and_one_of_other_files_do_not_hold() {
        let folder = tempfile::tempdir().unwrap();
        let dir = image_in(folder.path());
        let record = made(&dir, Verdict::Passed);
        // Services that nobody looked at.
        let whole = fs::read(dir.join(MANIFEST)).unwrap();
        let mut manifest = store::read_manifest(&dir).unwrap();
        let service = serde_json::from_str(r#"{"name":"new","command":["new"]}"#);
        manifest.services.push(service.unwrap());
        fs::write(dir.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        let refused = verified_for(&dir, &cpu("x86-64-v2")).unwrap_err();
        assert!(matches!(refused, NotVerified::NotOfThisImage { .. }), "{refused}");
        fs::write(dir.join(MANIFEST), whole).unwrap();
        let path = dir.join(format!("{}.json", record.file_stem()));
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("it died", "it lives")).unwrap();
        let refused = verified_for(&dir, &cpu("x86-64-v2")).unwrap_err();
        assert!(matches!(refused, NotVerified::NotOfThisImage { .. }), "{refused}");
        made(&dir, Verdict::Passed);
        let mut manifest = store::read_manifest(&dir).unwrap();
        manifest.files.get_mut("vmlinux").unwrap().sha256 = "0".repeat(64);
        fs::write(dir.join(MANIFEST), serde_json::to_vec(&manifest).unwrap()).unwrap();
        let refused = verified_for(&dir, &cpu("x86-64-v2")).unwrap_err();
        assert!(matches!(refused, NotVerified::NotOfThisImage { .. }), "{refused}");
    }
}
