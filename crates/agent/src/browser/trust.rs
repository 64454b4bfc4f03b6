//! Extra certificate authorities of a session, for Chromium and the CLIs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};

use crate::room::{Room, RoomKind};

const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";
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
    match room.kind {
        RoomKind::Guest => write_policy(&certificates)?,
        RoomKind::Host => import_into_nss(pem, room)?,
    }
    let bundle = room.runtime.join("ca-bundle.pem");
    let system = fs::read_to_string(SYSTEM_BUNDLE).unwrap_or_default();
    fs::write(&bundle, format!("{system}\n{pem}\n"))
        .context("writing the bundle of authorities failed")?;
    Ok(Trust::Extended(bundle))
}

/// The base64 bodies of the PEM certificates.
fn certificates(pem: &str) -> Result<Vec<String>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
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
        let output = Command::new("certutil")
            .args(&arguments)
            .output()
            .context("running certutil failed; install it with `apt-get install libnss3-tools`")?;
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
