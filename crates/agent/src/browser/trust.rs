//! Extra certificate authorities of a session, for Chromium and the CLIs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::room::{Room, RoomKind};
use crate::supervise::run_to_end;

const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const SYSTEM_FOLDER: &str = "/etc/ssl/certs";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// Where programs are that bring their own bundle, and how many folders are looked at for them.
const PROGRAMS: [&str; 4] = ["/opt", "/usr/local/lib", "/usr/lib/python3", "/home/person/.local"];
const MAX_FOLDERS: u32 = 20_000;

const POLICY_FOLDER: &str = "/etc/chromium/policies/managed";

/// Whom the session's programs trust.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trust {
    /// The image's authorities.
    System,
    /// Those and the session's own, in this PEM bundle.
    Extended(PathBuf),
}

impl Trust {
    /// The bundle to point CLIs at.
    pub fn bundle(&self) -> Option<&Path> {
        match self {
            Self::System => None,
            Self::Extended(path) => Some(path),
        }
    }
}

/// Makes Chromium and the CLIs trust the authorities of `pem` too; empty for none.
pub fn trust_extra_authorities(pem: &str, room: &Room) -> Result<Trust> {
    if pem.trim().is_empty() {
        return Ok(Trust::System);
    }
    let certificates = certificates(pem)?;
    let system = fs::read_to_string(SYSTEM_BUNDLE).unwrap_or_default();
    let all = format!("{system}\n{pem}\n");
    let bundle = match room.kind {
        RoomKind::Guest => {
            write_policy(&certificates)?;
            let bundle = PathBuf::from(SYSTEM_BUNDLE);
            write(&bundle, &all)?;
            into_system_folder(&certificates)?;
            into_bundles_of_programs(&all);
            into_java(&room.runtime);
            bundle
        }
        RoomKind::Host => {
            import_into_nss(pem, room)?;
            let bundle = room.runtime.join("ca-bundle.pem");
            write(&bundle, &all)?;
            bundle
        }
    };
    Ok(Trust::Extended(bundle))
}

fn write(path: &Path, text: &str) -> Result<()> {
    let written = path.parent().map_or(Ok(()), fs::create_dir_all);
    written
        .and_then(|()| fs::write(path, text))
        .with_context(|| format!("writing {} failed", path.display()))
}

/// Into the folder where OpenSSL looks by the hash of a name, and others read every file.
fn into_system_folder(certificates: &[String]) -> Result<()> {
    let folder = Path::new(SYSTEM_FOLDER);
    for (n, body) in certificates.iter().enumerate() {
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).filter_map(|line| str::from_utf8(line).ok()).collect();
        let path = folder.join(format!("anteroom-session-{n}.pem"));
        write(&path, &format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")))?;
        // Of the package ca-certificates; without it there is nobody who looks by the hash.
        let mut openssl = Command::new("openssl");
        openssl.args(["x509", "-noout", "-subject_hash", "-in"]).arg(&path);
        let Ok(hash) = run_to_end(&mut openssl) else { continue };
        let hash = String::from_utf8_lossy(&hash.stdout).trim().to_owned();
        let free = (0..100).map(|n| folder.join(format!("{hash}.{n}"))).find(|link| !link.exists());
        if let Some(link) = free.filter(|_| !hash.is_empty()) {
            std::os::unix::fs::symlink(&path, &link)
                .with_context(|| format!("placing {} failed", link.display()))?;
        }
    }
    Ok(())
}

/// Into the bundles that Python's programs bring along (certifi, pip, botocore), which go by no
/// variable alone. What cannot be written is left as it is.
fn into_bundles_of_programs(all: &str) {
    let mut folders: Vec<PathBuf> = PROGRAMS.map(PathBuf::from).to_vec();
    let mut looked_at = 0;
    while let Some(folder) = folders.pop().filter(|_| looked_at < MAX_FOLDERS) {
        looked_at += 1;
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            if is_folder && name != "node_modules" {
                folders.push(entry.path());
            } else if name == "cacert.pem" {
                let _ = fs::write(entry.path(), all);
            }
        }
    }
}

/// Into Java's store, where there is one, by its own program.
fn into_java(runtime: &Path) {
    let store = Path::new("/etc/ssl/certs/java/cacerts");
    if !store.exists() {
        return;
    }
    for entry in fs::read_dir(SYSTEM_FOLDER).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("anteroom-session-") {
            continue;
        }
        let mut keytool = Command::new("keytool");
        keytool.args(["-importcert", "-noprompt", "-trustcacerts", "-storepass", "changeit"]);
        keytool.args(["-alias", &name, "-keystore"]).arg(store).arg("-file").arg(entry.path());
        // An image with Java's store and without its programs keeps the store as it is.
        let _ = run_to_end(keytool.current_dir(runtime));
    }
}

/// The base64 bodies of the PEM certificates.
fn certificates(pem: &str) -> Result<Vec<String>> {
    let bodies: Vec<String> = pem
        .split(BEGIN)
        .skip(1)
        .filter_map(|rest| rest.split_once(END))
        .map(|(body, _)| body.split_whitespace().collect())
        .collect();
    ensure!(!bodies.is_empty(), "the extra authorities hold no PEM certificate");
    Ok(bodies)
}

/// In a guest the machine is Chromium's alone: a managed policy.
fn write_policy(certificates: &[String]) -> Result<()> {
    let policy = serde_json::json!({ "CACertificates": certificates });
    fs::create_dir_all(POLICY_FOLDER)
        .with_context(|| format!("creating {POLICY_FOLDER} failed"))?;
    fs::write(format!("{POLICY_FOLDER}/anteroom-session.json"), policy.to_string())
        .context("writing Chromium's policy failed")
}

/// On the host nothing outside the room may change: a certificate store in the room's home.
fn import_into_nss(pem: &str, room: &Room) -> Result<()> {
    let store = room.home.join(".pki/nssdb");
    fs::create_dir_all(&store).context("creating the certificate store failed")?;
    let pem_file = room.runtime.join("extra-ca.pem");
    fs::write(&pem_file, pem)?;
    let database = format!("sql:{}", store.display());
    let pem_file = pem_file.to_string_lossy();
    for arguments in [
        vec!["-N", "-d", &database, "--empty-password"],
        vec!["-A", "-d", &database, "-n", "session", "-t", "C,,", "-i", &pem_file],
    ] {
        let output = match run_to_end(Command::new("certutil").args(&arguments)) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Err(error).context(
                    "running certutil failed; install it with `apt-get install libnss3-tools`",
                );
            }
            ran => ran.context("running certutil failed")?,
        };
        if !output.status.success() {
            bail!("certutil failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_certificate_is_found_and_joined() {
        let pem = "x\n-----BEGIN CERTIFICATE-----\nAAA\nBBB\n-----END CERTIFICATE-----\n\
                   -----BEGIN CERTIFICATE-----\nCCC\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(pem).unwrap(), ["AAABBB", "CCC"]);
        assert!(certificates("nothing").is_err());
    }
}
