//! What a provider file may not say of the network.

use anteroom_session::is_local_name;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::{self, PemObject};

use super::{Key, Mistakes};
use crate::Egress;

impl Mistakes {
    pub(super) fn egress(&mut self, egress: &Egress) {
        let key = Key::of("egress");
        for (n, host) in egress.allow.iter().enumerate() {
            if !is_host_pattern(host) {
                let problem = format!(
                    "is {host:?}, which is not a valid host name; write example.com, *.example.com or \
                     example.com:8443"
                );
                self.add(&key.get("allow").at(n), problem);
            } else if let Some(why) = never_reached(host, egress) {
                self.add(&key.get("allow").at(n), format!("is {host:?}, {why}"));
            }
        }
        for (n, mapping) in egress.map.iter().enumerate() {
            if !is_host_name(&mapping.host) {
                let problem = format!("is {:?}, which is not a valid host name", mapping.host);
                self.add(&key.get("map").at(n).get("host"), problem);
            }
            if mapping.port == 0 {
                self.add(&key.get("map").at(n).get("port"), "must be 1 to 65535");
            }
        }
        if let Some(problem) = wrong_with_pem(&egress.extra_ca_pem) {
            self.add(&key.get("extra_ca_pem"), problem);
        }
    }
}

/// Why an entry of the list is refused all the same, if it is.
fn never_reached(entry: &str, egress: &Egress) -> Option<&'static str> {
    let name = entry.rsplit_once(':').map_or(entry, |(name, _)| name).to_ascii_lowercase();
    let (name, subdomains) = match name.strip_prefix("*.") {
        Some(rest) => (rest, true),
        None => (name.as_str(), false),
    };
    let is_mapped = egress.map.iter().any(|mapping| {
        let host = mapping.host.to_ascii_lowercase();
        match host.strip_suffix(name) {
            Some("") => !subdomains,
            Some(rest) => subdomains && rest.ends_with('.'),
            None => false,
        }
    });
    if is_mapped {
        return None;
    }
    if ends_in_a_number(name) {
        let why = "which is an address; hosts are reached by name only: name the host, and map it \
                   with [[egress.map]] if it has no name in DNS";
        return Some(why);
    }
    // Below a name without a dot are those of the whole internet, as *.com has it.
    let is_local = match subdomains {
        true => is_local_name(&format!("x.{name}")),
        false => is_local_name(name),
    };
    is_local.then_some(
        "which is a name inside a private network and is refused; map it to an address with [[egress.map]]",
    )
}

/// Whether a host is an address of IPv4, or none at all, by its last label (WHATWG URL, 3.5).
fn ends_in_a_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    let is_hex = |rest: &str| rest.bytes().all(|b| b.is_ascii_hexdigit());
    last.bytes().all(|b| b.is_ascii_digit()) || last.strip_prefix("0x").is_some_and(is_hex)
}

/// What is wrong with certificates in PEM (RFC 7468), if anything; an empty text is accepted.
fn wrong_with_pem(text: &str) -> Option<&'static str> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text.as_bytes()).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() || text.trim().is_empty() => None,
        Ok(_) if text.contains(BEGIN) => {
            Some("has no -----BEGIN CERTIFICATE----- at the start of a line")
        }
        Ok(_) => {
            Some("contains no certificate; a certificate starts with -----BEGIN CERTIFICATE-----")
        }
        Err(pem::Error::MissingSectionEnd { .. }) => {
            Some("has no -----END CERTIFICATE----- line for one of its certificates")
        }
        Err(pem::Error::Base64Decode(_)) => {
            Some("has a certificate that is not valid base64; copy all of its lines")
        }
        Err(_) => Some("is not valid PEM (RFC 7468)"),
    }
}

/// A name, perhaps for its subdomains alone, perhaps with a port.
fn is_host_pattern(text: &str) -> bool {
    let (name, port) = text.rsplit_once(':').unwrap_or((text, "443"));
    is_host_name(name.strip_prefix("*.").unwrap_or(name))
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}
