//! A tiny template.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anteroom_template::{Loaded, MachineKey, Saved, Summary, TemplateError, TemplateFor};
use nix::sys::memfd::{MFdFlags, memfd_create};
use tempfile::TempDir;

pub const MIB: usize = 1024 * 1024;

pub const PICTURE: &[u8] = &[3; 5000];

/// An image's folder and a key, both gone when it is dropped.
pub struct Image {
    pub folder: TempDir,
    pub dir: PathBuf,
    pub key: MachineKey,
}

impl Image {
    pub fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("demo/0123456789abcdef");
        std::fs::create_dir_all(&dir).unwrap();
        let key = MachineKey::load_or_create(&folder.path().join("key.pem")).unwrap();
        Self { folder, dir, key }
    }

    pub fn write(&self) -> Summary {
        write(&self.dir, &self.key, made_for(), &memory()).unwrap()
    }

    pub fn write_until(
        &self,
        is_stopped: &(dyn Fn() -> bool + Sync),
    ) -> Result<Summary, TemplateError> {
        write_until(&self.dir, &self.key, made_for(), &memory(), is_stopped)
    }

    pub fn load(&self) -> Result<Loaded, TemplateError> {
        anteroom_template::load(&self.dir, &self.key, &made_for())
    }

    /// The names in the folder of its templates.
    pub fn left(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.join("templates")).unwrap();
        let name = |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name();
        let mut names: Vec<_> = entries.map(|entry| name(entry).into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Why it is refused, in one sentence.
    pub fn refusal(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

pub fn write(
    dir: &Path,
    key: &MachineKey,
    made_for: TemplateFor,
    memory: &File,
) -> Result<Summary, TemplateError> {
    write_until(dir, key, made_for, memory, &|| false)
}

fn write_until(
    dir: &Path,
    key: &MachineKey,
    made_for: TemplateFor,
    memory: &File,
    is_stopped: &(dyn Fn() -> bool + Sync),
) -> Result<Summary, TemplateError> {
    let wake_token = "wake".to_owned();
    let saved = Saved { made_for, wake_token, memory, state: &state(), picture: PICTURE };
    anteroom_template::write(dir, key, &saved, is_stopped)
}

pub fn made_for() -> TemplateFor {
    TemplateFor {
        image: "0123456789abcdef".into(),
        agent_sha256: "aa".into(),
        vmm: "QEMU 7.2.19".into(),
        driver: "qemu".into(),
        accelerator: "kvm".into(),
        cpu: "x86-64-v2 (Nehalem-v1)".into(),
        memory_mib: 2,
        vcpus: 2,
        screen_width: 1280,
        screen_height: 800,
        services_sha256: "bb".into(),
        authorities_sha256: "cc".into(),
        host_cpu: "GenuineIntel 6/143/8".into(),
    }
}

pub fn memfd(length: usize, parts: &[(usize, Vec<u8>)]) -> File {
    let file = File::from(memfd_create(c"guest", MFdFlags::MFD_CLOEXEC).unwrap());
    file.set_len(length as u64).unwrap();
    for (at, bytes) in parts {
        file.write_all_at(bytes, *at as u64).unwrap();
    }
    file
}

/// 2 MiB, of which 40 KiB in three places are not zeros.
pub fn memory() -> File {
    let pages = |pages: usize, byte| vec![byte; pages * 4096];
    memfd(2 * MIB, &[(0, pages(1, 1)), (MIB - 4096, pages(2, 2)), (2 * MIB - 28_672, pages(7, 3))])
}

pub fn state() -> File {
    let bytes = (0..100_000_u32).map(|index| u8::try_from(index % 251).unwrap()).collect();
    memfd(100_000, &[(0, bytes)])
}

pub fn content(file: &File) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.metadata().unwrap().len()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}
