//! Archives of a recipe: fetched once, held to their digest, kept in the cache.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::Duration;

use ureq::tls::{RootCerts, TlsConfig};

use super::{BuildError, BuildStep, Job, system};
use crate::hash::sha256_of;
use anteroom_provider::install::Archive;

/// Largest archive, in bytes.
const MAX_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// How long a server may take to answer.
const ANSWER: Duration = Duration::from_secs(60);

/// Where each archive of the recipe is on this machine, in the recipe's order.
pub(super) fn fetch_all(job: &Job<'_>) -> Result<Vec<PathBuf>, BuildError> {
    job.recipe.archives.iter().map(|archive| fetch(job, archive)).collect()
}

fn fetch(job: &Job<'_>, archive: &Archive) -> Result<PathBuf, BuildError> {
    if !archive.url.starts_with("https://") {
        let path = job.recipe.resolve(Path::new(&archive.url));
        let path =
            fs::canonicalize(&path).map_err(system(format!("reading {}", path.display())))?;
        return held_to_digest(archive, &path).map(|()| path);
    }
    let folder = job.cache_dir.join("archives");
    let kept = folder.join(&archive.sha256);
    if kept.exists() && held_to_digest(archive, &kept).is_ok() {
        return Ok(kept);
    }
    fs::create_dir_all(&folder).map_err(system(format!("creating {}", folder.display())))?;
    let mut part = tempfile::NamedTempFile::new_in(&folder)
        .map_err(system(format!("creating a file in {}", folder.display())))?;
    download(job, &archive.url, part.as_file_mut())?;
    held_to_digest(archive, part.path())?;
    part.persist(&kept)
        .map_err(|error| system(format!("keeping {}", kept.display()))(error.error))?;
    Ok(kept)
}

fn held_to_digest(archive: &Archive, path: &Path) -> Result<(), BuildError> {
    let found = File::open(path).and_then(|file| sha256_of(&file));
    let found = found.map_err(system(format!("reading {}", path.display())))?;
    if found == archive.sha256 {
        return Ok(());
    }
    let (url, expected) = (archive.url.clone(), archive.sha256.clone());
    Err(BuildError::OtherArchive { url, expected, found })
}

fn download(job: &Job<'_>, url: &str, into: &mut fs::File) -> Result<(), BuildError> {
    let failed = |source: io::Error| BuildError::Download { url: url.to_owned(), source };
    // The authorities that this machine trusts: behind a company's proxy those are its own.
    let trust = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .tls_config(trust)
        .timeout_recv_response(Some(ANSWER))
        .timeout_connect(Some(ANSWER))
        .build()
        .into();
    let answer = agent.get(url).call().map_err(|error| failed(error.into_io()))?;
    let expected = answer.body().content_length();
    let mut body = answer.into_body().into_with_config().limit(MAX_BYTES).reader();
    let mut buffer = vec![0; 256 * 1024];
    let mut read = 0;
    loop {
        if job.cancel.load(Ordering::SeqCst) {
            return Err(BuildError::Interrupted);
        }
        let count = body.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            return Ok(());
        }
        io::Write::write_all(into, &buffer[..count]).map_err(failed)?;
        read += count as u64;
        let mib = |bytes: u64| bytes / (1024 * 1024);
        let name = url.rsplit('/').next().unwrap_or(url);
        let of = expected.map_or(String::new(), |all| format!(" of {}", mib(all)));
        job.progress.at(BuildStep::Packages, 0.0, &format!("{name}: {}{of} MiB", mib(read)));
    }
}

/// Shell line that unpacks an archive into the tree, in a chroot: neither a link that an earlier archive
/// left nor a path in this one leads out of it. All texts of the recipe in it were checked.
pub(super) fn unpacking(path: &str, strip: u8, file: &Path) -> Result<String, BuildError> {
    let reading = || system(format!("reading {}", file.display()));
    let mut magic = [0; 6];
    fs::File::open(file).and_then(|mut file| file.read_exact(&mut magic)).map_err(reading())?;
    // From standard input tar does not find out by itself how it is compressed.
    let unpack = match magic {
        [0x1f, 0x8b, ..] => "gzip -dc",
        [0xfd, b'7', b'z', b'X', b'Z', 0] => "xz -dc",
        _ => "cat",
    };
    let file = super::quoted(file);
    Ok(format!(
        "chroot \"$1\" mkdir -p {path} && {unpack} {file} | chroot \"$1\" tar -x --no-same-owner \
         --strip-components={strip} -f - -C {path}"
    ))
}
