//! An authority of this run's own, and a certificate by it.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};

/// Writes `NAME.pem` and `NAME.key` for `hosts` into `folder`; the PEM of the authority that signed.
pub fn make(folder: &Path, name: &str, hosts: &[&str]) -> Result<String> {
    make_valid_from(folder, name, hosts, UNIX_EPOCH)
}

/// The same, valid from this time on.
pub fn make_valid_from(
    folder: &Path,
    name: &str,
    hosts: &[&str],
    from: SystemTime,
) -> Result<String> {
    let mut authority = CertificateParams::new(Vec::new())?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    authority.distinguished_name.push(DnType::CommonName, "Anteroom demo authority");
    let authority_key = KeyPair::generate()?;
    let authority_pem = authority.self_signed(&authority_key)?.pem();
    let issuer = Issuer::new(authority, authority_key);
    let mut leaf =
        CertificateParams::new(hosts.iter().map(|host| (*host).to_owned()).collect::<Vec<_>>())?;
    leaf.distinguished_name.push(DnType::CommonName, name);
    leaf.not_before = from.into();
    leaf.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let certificate = leaf.signed_by(&key, &issuer)?;
    std::fs::write(folder.join(format!("{name}.pem")), certificate.pem())
        .context("writing the certificate failed")?;
    std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())
        .context("writing its key failed")?;
    Ok(authority_pem)
}
