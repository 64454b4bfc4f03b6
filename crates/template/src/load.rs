//! A template is loaded: verified while it is copied into memory, and sealed there.

use std::cmp::Reverse;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use crate::copy::{CopyError, Grain, copy};
use crate::digest::ContentDigest;
use crate::error::TemplateError;
use crate::folder::{Folder, MEMORY, PICTURE, STATE, all, check_size, image_name, templates};
use crate::machine_key::MachineKey;
use crate::made_for::TemplateFor;
use crate::manifest::{MAX_PICTURE, MAX_STATE, Manifest, Recorded, memory_bytes};
use crate::sealed;

/// A template in memory, which nothing on the disk changes any more. Both descriptors are sealed
/// memfds of mode 0666 that close on exec: whoever gets one can map it private, or open it anew by
/// `/proc/self/fd`, also for writing, and write nothing.
#[derive(Debug)]
pub struct Loaded {
    /// As it was signed.
    pub manifest: Manifest,
    /// The guest's memory, as long as `made_for` says, with holes where it is zeros.
    pub memory: OwnedFd,
    /// The state of its devices.
    pub state: OwnedFd,
    /// What its screen shows, as a PNG.
    pub picture: Vec<u8>,
}

/// Loads the template of the image in `image_dir` that was made for `wanted`. It reads, digests and
/// copies the whole of its data, and takes as much memory.
///
/// # Errors
/// When there is none, `key` has not signed it, a file is not what was signed, or it cannot be read
/// or put into memory. Where there is one for something else only, the first difference of the
/// nearest is named.
pub fn load(
    image_dir: &Path,
    key: &MachineKey,
    wanted: &TemplateFor,
) -> Result<Loaded, TemplateError> {
    let image = image_name(image_dir);
    let dir = templates(image_dir).join(wanted.id());
    let folder = match Folder::open(image_dir, dir.clone()) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(nearest(image_dir, key, wanted));
        }
        Err(error) => return Err(TemplateError::unreadable(&image, &dir)(error)),
    };
    // Opened before anything is read: whoever replaces the template removes this one's files.
    let file = |name| folder.file(name).map(|file| (file, dir.join(name)));
    let ((memory, memory_path), (state, state_path)) = (file(MEMORY)?, file(STATE)?);
    let picture = folder.bytes(PICTURE, MAX_PICTURE)?;
    let manifest = folder.signed_manifest(key)?;
    // A folder has another's name when somebody has moved it.
    if let Some(difference) = manifest.made_for.differences(wanted).into_iter().next() {
        return Err(TemplateError::MadeForAnother { image, difference });
    }
    let length = memory_bytes(wanted);
    check_size(&image, MEMORY, manifest.memory.bytes, length..=length)?;
    check_size(&image, STATE, manifest.state.bytes, 0..=MAX_STATE)?;
    check_size(&image, PICTURE, manifest.picture.bytes, 0..=MAX_PICTURE)?;
    let part = |what, path, file, record| Part { image: &image, what, path, file, record };
    let memory = part(MEMORY, memory_path, memory, &manifest.memory).load()?;
    let state = part(STATE, state_path, state, &manifest.state).load()?;
    check_picture(&image, &dir, &picture, &manifest.picture)?;
    Ok(Loaded { manifest, memory, state, picture })
}

/// The same memory, sealed too, in which every page of zeros is a hole. It reads and copies all of it, and moves
/// the position of `memory`.
///
/// # Errors
/// When the system has no memory for it.
pub fn without_zeros(memory: OwnedFd) -> io::Result<OwnedFd> {
    let memory = File::from(memory);
    let made = sealed::in_memory(&format!("anteroom-template-{MEMORY}"))?;
    match copy(&memory, &made, memory.metadata()?.len(), Grain::Page, &|| false) {
        Ok(_) => sealed::seal(made),
        Err(CopyError::Read(error) | CopyError::Write(error)) => Err(error),
        Err(CopyError::Stopped) => Err(io::ErrorKind::Interrupted.into()),
    }
}

fn check_picture(
    image: &str,
    dir: &Path,
    picture: &[u8],
    record: &Recorded,
) -> Result<(), TemplateError> {
    let found = ContentDigest::of(picture);
    if found == record.digest {
        return Ok(());
    }
    let expected = format!("the digest {}", record.digest);
    let (image, path) = (image.to_owned(), dir.join(PICTURE));
    Err(TemplateError::FileChanged { image, path, expected, found: format!("the digest {found}") })
}

/// A file of a template, and what it has to be.
struct Part<'a> {
    image: &'a str,
    what: &'static str,
    path: PathBuf,
    file: File,
    record: &'a Recorded,
}

impl Part<'_> {
    fn load(self) -> Result<OwnedFd, TemplateError> {
        let metadata = self.file.metadata().map_err(|error| self.unreadable(error))?;
        if metadata.len() != self.record.bytes {
            return Err(self.length(&format!("{} bytes", metadata.len())));
        }
        self.load_record()
    }

    /// As many bytes as were recorded: what the file's length was a moment ago does not matter.
    fn load_record(self) -> Result<OwnedFd, TemplateError> {
        let (what, bytes) = (self.what, self.record.bytes);
        let no_memory = |source| TemplateError::NoMemory { what, bytes, source };
        let made = sealed::in_memory(&format!("anteroom-template-{what}")).map_err(no_memory)?;
        let digest = copy(&self.file, &made, bytes, Grain::Page, &|| false);
        let digest = digest.map_err(|error| match error {
            CopyError::Write(error) => no_memory(error),
            CopyError::Stopped => no_memory(io::ErrorKind::Interrupted.into()),
            CopyError::Read(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                self.length("fewer bytes")
            }
            CopyError::Read(error) => self.unreadable(error),
        })?;
        if digest != self.record.digest {
            let expected = format!("the digest {}", self.record.digest);
            return Err(self.changed(expected, format!("the digest {digest}")));
        }
        sealed::seal(made).map_err(no_memory)
    }

    fn length(&self, found: &str) -> TemplateError {
        self.changed(format!("{} bytes", self.record.bytes), found.to_owned())
    }

    fn changed(&self, expected: String, found: String) -> TemplateError {
        let (image, path) = (self.image.to_owned(), self.path.clone());
        TemplateError::FileChanged { image, path, expected, found }
    }

    fn unreadable(&self, error: io::Error) -> TemplateError {
        TemplateError::unreadable(self.image, &self.path)(error)
    }
}

/// Why there is no template for what is wanted: by the one that differs in the fewest fields, of
/// these the newest.
fn nearest(image_dir: &Path, key: &MachineKey, wanted: &TemplateFor) -> TemplateError {
    let image = image_name(image_dir);
    let signed = all(image_dir).into_iter().filter_map(|dir| {
        let manifest = Folder::open(image_dir, dir).ok()?.signed_manifest(key).ok()?;
        Some((manifest.made_for.differences(wanted), manifest.made_unix_ms))
    });
    let nearest = signed.min_by_key(|(differences, made)| (differences.len(), Reverse(*made)));
    match nearest.and_then(|(differences, _)| differences.into_iter().next()) {
        Some(difference) => TemplateError::MadeForAnother { image, difference },
        None => TemplateError::NoTemplate { image, dir: templates(image_dir) },
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A state of these bytes that becomes other bytes after its length was looked at.
    fn loaded_after(change: impl FnOnce(&mut File)) -> Result<OwnedFd, TemplateError> {
        let file = tempfile::tempfile().unwrap();
        (&file).write_all(&[7; 100_000]).unwrap();
        let digest =
            copy(&file, &tempfile::tempfile().unwrap(), 100_000, Grain::Block, &|| false).unwrap();
        let record = Recorded { bytes: 100_000, digest };
        let mut writer = file.try_clone().unwrap();
        change(&mut writer);
        let path = PathBuf::from("/templates/0/state");
        Part { image: "demo", what: STATE, path, file, record: &record }.load_record()
    }

    #[test]
    fn a_file_that_changes_while_it_is_read_is_what_was_signed_or_refused() {
        let loaded = loaded_after(|file| file.set_len(200_000).unwrap()).unwrap();
        assert_eq!(File::from(loaded).metadata().unwrap().len(), 100_000);
        for (length, found) in [(80_000, "it has fewer bytes"), (0, "it has the digest ")] {
            let error = loaded_after(|file| file.set_len(length).unwrap()).unwrap_err();
            assert!(error.to_string().contains(found), "{error}");
            assert!(error.to_string().starts_with("the template's file /templates/0/state"));
        }
    }

    /// Why a rightly signed manifest is refused, after `change` changed its JSON.
    fn refusal(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("demo/0123456789abcdef");
        let key = MachineKey::load_or_create(&folder.path().join("key.pem")).unwrap();
        let mut json = serde_json::json!({
            "version": 2,
            "made_for": {
                "image": "", "agent_sha256": "", "vmm": "", "driver": "", "accelerator": "",
                "cpu": "", "memory_mib": 1, "vcpus": 1, "screen_width": 1, "screen_height": 1,
                "services_sha256": "", "authorities_sha256": "", "host_cpu": "",
            },
            "made_unix_ms": 0,
            "wake_token": "",
            "memory": { "bytes": 1_048_576, "digest": "" },
            "state": { "bytes": 0, "digest": "" },
            "picture": { "bytes": 0, "digest": "" },
        });
        let wanted: TemplateFor = serde_json::from_value(json["made_for"].clone()).unwrap();
        let place = templates(&dir).join(wanted.id());
        std::fs::create_dir_all(&place).unwrap();
        change(&mut json);
        let manifest = json.to_string();
        std::fs::write(place.join("manifest.sig"), key.sign(manifest.as_bytes())).unwrap();
        std::fs::write(place.join("manifest.json"), manifest).unwrap();
        std::fs::write(place.join(MEMORY), "").unwrap();
        std::fs::write(place.join(STATE), "").unwrap();
        std::fs::write(place.join(PICTURE), "").unwrap();
        load(&dir, &key, &wanted).unwrap_err().to_string()
    }

    #[test]
    fn a_signed_manifest_of_another_version_or_of_absurd_sizes_is_refused() {
        assert!(refusal(|_| {}).contains("it has 0 bytes, the manifest says 1048576 bytes"));
        let newer = refusal(|json| {
            json["version"] = 3.into();
            json["more"] = true.into();
        });
        assert!(newer.contains("has version 3, this program reads version 2"), "{newer}");
        let unknown = refusal(|json| json["more"] = true.into());
        assert!(unknown.contains("manifest.json is not understood"), "{unknown}");
        let absurd = refusal(|json| json["memory"]["bytes"] = u64::MAX.into());
        assert!(absurd.contains("memory has 18446744073709551615 bytes, but must have 1048576"));
        let absurd = refusal(|json| json["state"]["bytes"] = (MAX_STATE + 1).into());
        assert!(absurd.contains("state has 67108865 bytes, but must have at most 67108864"));
    }
}
