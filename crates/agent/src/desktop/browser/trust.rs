//! Extra certificate authorities of a session, for Chromium and the CLIs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::guest::{Guest, GuestKind};
use crate::supervise::run_to_end;

const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
const SYSTEM_FOLDER: &str = "/etc/ssl/certs";
const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
const END: &str = "-----END CERTIFICATE-----";

/// The store that Debian's Java runtimes share.
const SYSTEM_JAVA: &str = "/etc/ssl/certs/java/cacerts";

/// Where programs are that bring their own store, and how many folders are looked at for them.
const PROGRAMS: [&str; 5] =
    ["/opt", "/usr/local", "/usr/lib/jvm", "/usr/lib/python3", "/home/person"];
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
pub fn trust_extra_authorities(pem: &str, guest: &Guest) -> Result<Trust> {
    if pem.trim().is_empty() {
        return Ok(Trust::System);
    }
    let certificates = certificates(pem)?;
    let system = fs::read_to_string(SYSTEM_BUNDLE).unwrap_or_default();
    let all = format!("{system}\n{pem}\n");
    let bundle = match guest.kind {
        GuestKind::Vm => {
            write_policy(&certificates)?;
            let bundle = PathBuf::from(SYSTEM_BUNDLE);
            write(&bundle, &all)?;
            let authorities = into_system_folder(&certificates)?;
            into_stores_of_programs(&PROGRAMS.map(Path::new), &all, &authorities);
            into_java(Path::new(SYSTEM_JAVA), Path::new("keytool"), &authorities);
            bundle
        }
        GuestKind::Host => {
            import_into_nss(pem, guest)?;
            let bundle = guest.runtime.join("ca-bundle.pem");
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

/// Into the folder where OpenSSL looks by the hash of a name, and others read every file; each in its own,
/// which it gives.
fn into_system_folder(certificates: &[String]) -> Result<Vec<PathBuf>> {
    let folder = Path::new(SYSTEM_FOLDER);
    let mut authorities = Vec::new();
    for (n, body) in certificates.iter().enumerate() {
        let lines: Vec<&str> =
            body.as_bytes().chunks(64).filter_map(|line| str::from_utf8(line).ok()).collect();
        let path = folder.join(format!("anteroom-session-{n}.pem"));
        write(&path, &format!("{BEGIN}\n{}\n{END}\n", lines.join("\n")))?;
        authorities.push(path.clone());
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
    Ok(authorities)
}

/// Into the stores that programs bring along and use instead of the system's: the bundles of Python's
/// (certifi, pip, botocore), and the stores of Java's that have their own. What cannot be written is left
/// as it is.
fn into_stores_of_programs(roots: &[&Path], all: &str, authorities: &[PathBuf]) {
    let mut folders: Vec<PathBuf> = roots.iter().map(|root| root.to_path_buf()).collect();
    let mut looked_at = 0;
    while let Some(folder) = folders.pop().filter(|_| looked_at < MAX_FOLDERS) {
        looked_at += 1;
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            let Ok(kind) = entry.file_type() else { continue };
            if kind.is_dir() && name != "node_modules" {
                folders.push(path);
            } else if kind.is_file() && name == "cacert.pem" {
                let _ = fs::write(path, all);
            } else if kind.is_file() && name == "cacerts" {
                // JAVA_HOME/lib/security/cacerts
                if let Some(java_home) = folder.ancestors().nth(2) {
                    into_java(&path, &java_home.join("bin/keytool"), authorities);
                }
            }
        }
    }
}

/// Into a store of Java's, where there is one, by its own program: one without it is left as it is.
fn into_java(store: &Path, keytool: &Path, authorities: &[PathBuf]) {
    if !store.exists() {
        return;
    }
    for authority in authorities {
        let Some(alias) = authority.file_stem() else { continue };
        let mut keytool = Command::new(keytool);
        keytool.args(["-importcert", "-noprompt", "-trustcacerts", "-storepass", "changeit"]);
        keytool.arg("-alias").arg(alias).arg("-keystore").arg(store).arg("-file").arg(authority);
        let _ = run_to_end(keytool.current_dir("/"));
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

/// On the host nothing outside the sandbox may change: a certificate store in the sandbox's home.
fn import_into_nss(pem: &str, guest: &Guest) -> Result<()> {
    let store = guest.home.join(".pki/nssdb");
    fs::create_dir_all(&store).context("creating the certificate store failed")?;
    let pem_file = guest.runtime.join("extra-ca.pem");
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
    fn programs_that_bring_a_bundle_get_the_whole_and_others_keep_theirs() {
        let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let root = folder.path();
        let write = |path: &str| {
            write(&root.join(path), "theirs").unwrap();
            root.join(path)
        };
        let certifi = write("lib/python3/site-packages/certifi/cacert.pem");
        let pip = write("venv/lib/pip/_vendor/certifi/cacert.pem");
        let node = write("lib/node_modules/tool/cacert.pem");
        let elsewhere = other.path().join("cacert.pem");
        super::write(&elsewhere, "theirs").unwrap();
        std::os::unix::fs::symlink(&elsewhere, root.join("cacert.pem")).unwrap();
        // No program of its own: left as it is.
        let java = write("jdk/lib/security/cacerts");
        into_stores_of_programs(&[root], "all", std::slice::from_ref(&certifi));
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!([read(&certifi), read(&pip)], ["all", "all"]);
        assert_eq!([read(&node), read(&elsewhere), read(&java)], ["theirs", "theirs", "theirs"]);
    }

    #[test]
    fn each_certificate_is_found_and_joined() {
        let pem = "x\n-----BEGIN CERTIFICATE-----\nAAA\nBBB\n-----END CERTIFICATE-----\n\
                   -----BEGIN CERTIFICATE-----\nCCC\n-----END CERTIFICATE-----\n";
        assert_eq!(certificates(pem).unwrap(), ["AAABBB", "CCC"]);
        assert!(certificates("nothing").is_err());
    }
}
