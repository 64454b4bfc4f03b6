//! Debian's kernel package: the ELF kernel out of the bzImage, and the modules a guest needs.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use lzma_rust2::XzReader;

use crate::cpio::Archive;

/// The largest kernel taken, in bytes.
const MAX_KERNEL: u64 = 512 * 1024 * 1024;

/// What a guest drives; names as in module files with `_` for `-`. Those built in are not found and
/// passed over, but for the last check: the root's file system and the link must be there.
const WANTED: [&str; 10] = [
    "virtio_mmio",
    "virtio_pci",
    "virtio_blk",
    "virtio_console",
    "vmw_vsock_virtio_transport",
    "virtio_rng",
    "virtio_balloon",
    "erofs",
    "overlay",
    "dummy",
];

/// A kernel package that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KernelError {
    /// A file cannot be read.
    #[error("reading {} failed", path.display())]
    Read {
        /// The file, by its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Not a bzImage, or none with a payload.
    #[error("the kernel image is not a bzImage with a compressed kernel")]
    NotBzImage,
    /// The payload is compressed in an unknown way.
    #[error("the kernel is compressed in an unknown way (it starts with {0:02x?})")]
    UnknownCompression([u8; 6]),
    /// The payload does not unpack.
    #[error("unpacking the kernel failed")]
    Unpack(#[source] std::io::Error),
    /// What came out is no ELF file.
    #[error("the unpacked kernel is not an ELF file")]
    NotElf,
    /// The package has no modules.
    #[error("the kernel package has no modules under {}", .0.display())]
    NoModules(PathBuf),
}

/// The ELF kernel inside a bzImage (x86 boot protocol, Documentation/arch/x86/boot.rst: setup_sects
/// at 0x1f1, payload_offset at 0x248, payload_length at 0x24c).
pub(crate) fn vmlinux(bz_image: &[u8]) -> Result<Vec<u8>, KernelError> {
    let u32_at = |at: usize| {
        let bytes = bz_image.get(at..at + 4).ok_or(KernelError::NotBzImage)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
    };
    if bz_image.get(0x202..0x206) != Some(b"HdrS") {
        return Err(KernelError::NotBzImage);
    }
    let setup_sectors = match bz_image.get(0x1f1) {
        Some(0) => 4,
        Some(sectors) => usize::from(*sectors),
        None => return Err(KernelError::NotBzImage),
    };
    let start = (setup_sectors + 1) * 512 + u32_at(0x248)?;
    let payload =
        bz_image.get(start..start.saturating_add(u32_at(0x24c)?)).ok_or(KernelError::NotBzImage)?;
    let kernel = unpack(payload)?;
    if kernel.starts_with(b"\x7fELF") { Ok(kernel) } else { Err(KernelError::NotElf) }
}

fn unpack(payload: &[u8]) -> Result<Vec<u8>, KernelError> {
    let mut kernel = Vec::new();
    let read = match payload {
        // Debian 12.
        [0x02, 0x21, 0x4c, 0x18, blocks @ ..] => return lz4_legacy(blocks),
        // Debian 13. The kernel's build appends the size, which is no frame: it is left unread.
        [0x28, 0xb5, 0x2f, 0xfd, ..] => ruzstd::decoding::StreamingDecoder::new(payload)
            .map_err(std::io::Error::other)
            .and_then(|decoder| decoder.take(MAX_KERNEL).read_to_end(&mut kernel)),
        [0x1f, 0x8b, ..] => {
            flate2::read::GzDecoder::new(payload).take(MAX_KERNEL).read_to_end(&mut kernel)
        }
        [0xfd, b'7', b'z', b'X', b'Z', ..] => {
            XzReader::new(payload, false).take(MAX_KERNEL).read_to_end(&mut kernel)
        }
        other => {
            let mut start = [0; 6];
            start.iter_mut().zip(other).for_each(|(to, from)| *to = *from);
            return Err(KernelError::UnknownCompression(start));
        }
    };
    read.map_err(KernelError::Unpack)?;
    Ok(kernel)
}

/// LZ4's legacy frame: blocks of at most 8 MiB, each with its compressed length before it. The
/// kernel's build appends the unpacked size, which is shorter than a block can be.
fn lz4_legacy(mut blocks: &[u8]) -> Result<Vec<u8>, KernelError> {
    const BLOCK: usize = 8 * 1024 * 1024;
    let corrupt = || KernelError::Unpack(std::io::ErrorKind::InvalidData.into());
    let mut kernel = Vec::new();
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = u32::from_le_bytes(*length) as usize;
        let Some(block) = rest.get(..length) else { break };
        let unpacked = lz4_flex::block::decompress(block, BLOCK).map_err(|_| corrupt())?;
        kernel.extend(unpacked);
        if kernel.len() as u64 > MAX_KERNEL {
            return Err(corrupt());
        }
        blocks = &rest[length..];
    }
    Ok(kernel)
}

/// The initramfs of a guest's kernel; `modules` is `lib/modules/<release>`.
pub(crate) fn initramfs(modules: &Path) -> Result<Vec<u8>, KernelError> {
    modules_initramfs(modules, &WANTED)
}

/// An initramfs with kernel modules, of `lib/modules/<release>`: those `wanted` (names with `_` for `-`;
/// those built in are passed over), what they depend on, and in `anteroom/modules` their paths in the
/// order to load them.
///
/// # Errors
/// When the folder has no modules, or one cannot be read.
pub fn modules_initramfs(modules: &Path, wanted: &[&str]) -> Result<Vec<u8>, KernelError> {
    let files = module_files(modules)?;
    let mut order = Vec::new();
    let mut loaded = BTreeMap::new();
    for name in wanted {
        add(name, &files, &mut loaded, &mut order)?;
    }
    let mut archive = Archive::default();
    for folder in ["anteroom", "anteroom/modules.d"] {
        archive.directory(folder);
    }
    let mut list = String::new();
    for name in order {
        let path = format!("anteroom/modules.d/{name}.ko");
        archive.file(&path, 0o644, &loaded[&name]);
        list.push_str(&path);
        list.push('\n');
    }
    archive.file("anteroom/modules", 0o644, list.as_bytes());
    Ok(archive.finish())
}

fn add(
    name: &str,
    files: &BTreeMap<String, PathBuf>,
    loaded: &mut BTreeMap<String, Vec<u8>>,
    order: &mut Vec<String>,
) -> Result<(), KernelError> {
    let Some(path) = files.get(name).filter(|_| !loaded.contains_key(name)) else { return Ok(()) };
    let content = read_module(path)?;
    let dependencies = dependencies(&content);
    loaded.insert(name.to_owned(), content);
    for dependency in dependencies {
        add(&dependency, files, loaded, order)?;
    }
    order.push(name.to_owned());
    Ok(())
}

/// What a module says of itself (its `.modinfo` section): `depends=a,b`. `modules.dep` would say the
/// same, but a kernel package has none until depmod ran.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(start) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let list = module[start + KEY.len()..].split(|byte| *byte == 0).next().unwrap_or_default();
    let list = String::from_utf8_lossy(list);
    list.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

/// Module name → file, of the whole tree.
fn module_files(modules: &Path) -> Result<BTreeMap<String, PathBuf>, KernelError> {
    let mut files = BTreeMap::new();
    let mut folders = vec![modules.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder)
            .map_err(|source| KernelError::Read { path: folder.clone(), source })?;
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                folders.push(path);
            } else if let Some((stem, _)) = name.split_once(".ko") {
                files.insert(stem.replace('-', "_"), path);
            }
        }
    }
    if files.is_empty() { Err(KernelError::NoModules(modules.to_path_buf())) } else { Ok(files) }
}

/// Debian 13 compresses modules with xz; the guest's agent loads plain ones.
fn read_module(path: &Path) -> Result<Vec<u8>, KernelError> {
    let content =
        fs::read(path).map_err(|source| KernelError::Read { path: path.to_path_buf(), source })?;
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("ko") => Ok(content),
        _ => unpack(&content),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use lzma_rust2::{XzOptions, XzWriter};

    use super::*;

    fn bz_image(payload: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 1024];
        image[0x1f1] = 1;
        image[0x202..0x206].copy_from_slice(b"HdrS");
        image[0x248..0x24c].copy_from_slice(&16_u32.to_le_bytes());
        image[0x24c..0x250].copy_from_slice(&u32::try_from(payload.len()).unwrap().to_le_bytes());
        image.extend([0; 16]);
        image.extend(payload);
        image
    }

    #[test]
    fn a_kernel_is_unpacked_from_each_compression() {
        let kernel = b"\x7fELF and the rest of a kernel".repeat(100);
        let mut lz4 = vec![0x02, 0x21, 0x4c, 0x18];
        let block = lz4_flex::block::compress(&kernel);
        lz4.extend(u32::try_from(block.len()).unwrap().to_le_bytes());
        lz4.extend(block);
        lz4.extend(u32::try_from(kernel.len()).unwrap().to_le_bytes());
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&kernel).unwrap();
        let zstd = ruzstd::encoding::compress_to_vec(
            &kernel[..],
            ruzstd::encoding::CompressionLevel::Fastest,
        );
        let mut xz = XzWriter::new(Vec::new(), XzOptions::default()).unwrap();
        xz.write_all(&kernel).unwrap();
        for payload in [lz4, gzip.finish().unwrap(), zstd, xz.finish().unwrap()] {
            assert_eq!(vmlinux(&bz_image(&payload)).unwrap(), kernel);
        }
        assert!(matches!(vmlinux(&bz_image(b"unknown")), Err(KernelError::UnknownCompression(_))));
        assert!(matches!(vmlinux(b"short"), Err(KernelError::NotBzImage)));
    }

    #[test]
    fn modules_come_after_what_they_need() {
        let folder = tempfile::tempdir().unwrap();
        let module = |name: &str, depends: &str| {
            let path = folder.path().join(format!("kernel/{name}.ko"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("ELF\0license=GPL\0depends={depends}\0x")).unwrap();
        };
        module("virtio-rng", "virtio");
        module("virtio", "virtio_ring");
        module("virtio_ring", "");
        module("unrelated", "");
        let archive = String::from_utf8(initramfs(folder.path()).unwrap()).unwrap();
        let list = archive.split("anteroom/modules\0").nth(1).unwrap();
        let at = |name: &str| list.find(&format!("modules.d/{name}.ko")).unwrap();
        assert!(at("virtio_ring") < at("virtio") && at("virtio") < at("virtio_rng"));
        assert!(!archive.contains("unrelated"));
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2048)) {
            let _ = vmlinux(&bytes);
            let _ = vmlinux(&bz_image(&bytes));
        }
    }
}
