//! What the controller states of a sealed credential, where the guest that sealed it cannot write: a
//! DSSE envelope (Dead Simple Signing Envelope, version 1.0.2), signed with the controller's key.

use std::collections::BTreeMap;

use anteroom_guest_protocol::{attributes_match, name_matches};
use anteroom_session::{OpenableBy, ProviderId, SessionId};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::controller_key::{ControllerKey, PublicKey};

/// The type of the payload, JSON of a [`Statement`].
pub const PAYLOAD_TYPE: &str = "application/vnd.anteroom.credential.v1+json";

/// The largest envelope read, in bytes.
pub const MAX_ENVELOPE: usize = 256 * 1024;

/// Which bytes the controller stored, of what sign-in, for whom, and what may come out of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Statement {
    /// The sign-in.
    pub session: SessionId,
    /// Which CLI's.
    pub provider: ProviderId,
    /// Of the sealed bytes, in hexadecimal.
    pub sha256: String,
    /// The age key that they are sealed to.
    pub recipient: String,
    /// Whose key that is.
    pub openable_by: OpenableBy,
    /// All that may come out.
    pub declared: Vec<Declared>,
}

/// Something that may come out of a bundle.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Declared {
    /// One file.
    File {
        /// From the home on.
        path: String,
    },
    /// Files whose names are known only afterwards.
    Files {
        /// From the home on, with one `*` in the last component.
        pattern: String,
    },
    /// A secret for the owner's keyring.
    KeyringSecret {
        /// How the keyring shows it.
        label: String,
        /// All of its attributes; `*` is any value.
        attributes: BTreeMap<String, String>,
    },
}

/// An envelope whose signature was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope(Statement);

/// An envelope that cannot be gone by.
#[derive(Debug, thiserror::Error)]
pub enum EnvelopeError {
    /// No DSSE envelope, or not of a credential.
    #[error("this is not a credential's envelope: {0}")]
    NotAnEnvelope(String),
    /// None of the keys that it says signed it is trusted here.
    #[error(
        "it is signed with a key that is not trusted here ({}); copy the key of the controller that you called to this machine (`anteroom credentials key --url … > controller.pem`) and pass it with --controller-key controller.pem",
        .0.join(", ")
    )]
    UnknownKey(Vec<String>),
    /// A trusted key did not sign this.
    #[error(
        "its signature is not valid: it was changed after the controller {0} signed it, or that controller never signed it"
    )]
    NotSigned(String),
}

/// The envelope as JSON has it.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Dsse {
    payload_type: String,
    payload: String,
    signatures: Vec<DsseSignature>,
}

#[derive(Serialize, Deserialize)]
struct DsseSignature {
    #[serde(default)]
    keyid: String,
    sig: String,
}

impl Statement {
    /// What of a bundle is the statement's: the digest of its bytes.
    #[must_use]
    pub fn digest(sealed: &[u8]) -> String {
        hex::encode(Sha256::digest(sealed))
    }

    /// The envelope that says this, as JSON.
    ///
    /// # Errors
    /// When it cannot be written as JSON.
    pub fn sign(&self, key: &ControllerKey) -> Result<String, serde_json::Error> {
        let payload = serde_json::to_vec(self)?;
        let sig = STANDARD.encode(key.sign(&signed_bytes(PAYLOAD_TYPE, &payload)));
        serde_json::to_string(&Dsse {
            payload_type: PAYLOAD_TYPE.to_owned(),
            payload: STANDARD.encode(payload),
            signatures: vec![DsseSignature { keyid: key.public().id().to_owned(), sig }],
        })
    }
}

impl Envelope {
    /// Reads and verifies an envelope: one of these keys must have signed it.
    ///
    /// # Errors
    /// When it is none, or none of them did.
    pub fn verify(json: &[u8], trusted: &[PublicKey]) -> Result<Self, EnvelopeError> {
        let wrong = |what: &str| EnvelopeError::NotAnEnvelope(what.to_owned());
        if json.len() > MAX_ENVELOPE {
            return Err(wrong("it is too large"));
        }
        let envelope: Dsse = serde_json::from_slice(json).map_err(|_| wrong("it is not DSSE"))?;
        let payload = STANDARD.decode(&envelope.payload);
        let payload = payload.map_err(|_| wrong("its payload is not valid base64"))?;
        let message = signed_bytes(&envelope.payload_type, &payload);
        let holds = |signature: &DsseSignature| {
            let bytes = STANDARD.decode(&signature.sig).unwrap_or_default();
            trusted.iter().any(|key| key.signed(&message, &bytes))
        };
        if !envelope.signatures.iter().any(holds) {
            let named = |key: &&PublicKey| envelope.signatures.iter().any(|s| s.keyid == key.id());
            return Err(match trusted.iter().find(named) {
                Some(key) => EnvelopeError::NotSigned(key.id().to_owned()),
                None => EnvelopeError::UnknownKey(key_ids(&envelope)),
            });
        }
        // Only now is it worth reading.
        if envelope.payload_type != PAYLOAD_TYPE {
            return Err(wrong("its payload is of a type that this version does not know"));
        }
        let statement = serde_json::from_slice(&payload);
        statement.map(Self).map_err(|_| wrong("its content cannot be parsed"))
    }

    /// What it says.
    #[must_use]
    pub fn statement(&self) -> &Statement {
        &self.0
    }

    /// Whether a file of this name, from the home on, may come out.
    #[must_use]
    pub fn declares_file(&self, name: &str) -> bool {
        self.0.declared.iter().any(|declared| match declared {
            Declared::File { path } => path == name,
            Declared::Files { pattern } => name_matches(pattern, name),
            Declared::KeyringSecret { .. } => false,
        })
    }

    /// The label of a secret with these attributes, if it may come out.
    #[must_use]
    pub fn declared_label(&self, found: &BTreeMap<String, String>) -> Option<&str> {
        self.0.declared.iter().find_map(|declared| match declared {
            Declared::KeyringSecret { label, attributes }
                if attributes_match(attributes, found) =>
            {
                Some(label.as_str())
            }
            _ => None,
        })
    }
}

/// What is signed: DSSE's pre-authentication encoding.
fn signed_bytes(payload_type: &str, payload: &[u8]) -> Vec<u8> {
    let head = format!("DSSEv1 {} {payload_type} {} ", payload_type.len(), payload.len());
    [head.as_bytes(), payload].concat()
}

/// The keys that it names: hints, and text of who wrote it.
fn key_ids(envelope: &Dsse) -> Vec<String> {
    let is_id = |id: &&String| id.len() == 64 && id.bytes().all(|b| b.is_ascii_hexdigit());
    let ids: Vec<String> =
        envelope.signatures.iter().map(|s| &s.keyid).filter(is_id).take(4).cloned().collect();
    if ids.is_empty() { vec!["which it does not name".to_owned()] } else { ids }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> ControllerKey {
        ControllerKey::open(&tempfile::tempdir().unwrap().path().join("key.pem")).unwrap()
    }

    fn statement() -> Statement {
        Statement {
            session: SessionId::generate(),
            provider: "demo".parse().unwrap(),
            sha256: Statement::digest(b"sealed"),
            recipient: "age1x".into(),
            openable_by: OpenableBy::Caller,
            declared: vec![
                Declared::File { path: ".a/b.json".into() },
                Declared::Files { pattern: ".c/*.json".into() },
            ],
        }
    }

    #[test]
    fn what_is_signed_is_read_and_nothing_else() {
        let (key, other, statement) = (key(), key(), statement());
        let json = statement.sign(&key).unwrap();
        let trusted = [other.public().clone(), key.public().clone()];
        let envelope = Envelope::verify(json.as_bytes(), &trusted).unwrap();
        assert_eq!(envelope.statement(), &statement);
        assert!(envelope.declares_file(".a/b.json") && envelope.declares_file(".c/1.json"));
        assert!(!envelope.declares_file(".a/c.json") && !envelope.declares_file(".bash_profile"));

        let refused = Envelope::verify(json.as_bytes(), &trusted[..1]).unwrap_err();
        assert!(refused.to_string().contains(key.public().id()), "{refused}");
        assert!(matches!(refused, EnvelopeError::UnknownKey(_)));
        for odd in ["", "{}", "[]", r#"{"payloadType":"x","payload":"","signatures":[]}"#] {
            assert!(Envelope::verify(odd.as_bytes(), &trusted).is_err(), "{odd}");
        }
    }

    #[test]
    fn a_changed_payload_type_or_signature_is_reported() {
        let (key, statement) = (key(), statement());
        let trusted = [key.public().clone()];
        let json: Dsse = serde_json::from_str(&statement.sign(&key).unwrap()).unwrap();
        let mut other = statement;
        other.declared.push(Declared::File { path: ".bash_profile".into() });
        let changed = [
            Dsse { payload: STANDARD.encode(serde_json::to_vec(&other).unwrap()), ..dsse(&json) },
            Dsse { payload_type: "text/plain".into(), ..dsse(&json) },
            Dsse {
                signatures: vec![DsseSignature {
                    keyid: key.public().id().into(),
                    sig: STANDARD.encode([0; 64]),
                }],
                ..dsse(&json)
            },
        ];
        for changed in changed {
            let refused = Envelope::verify(&serde_json::to_vec(&changed).unwrap(), &trusted);
            assert!(matches!(refused, Err(EnvelopeError::NotSigned(_))), "{refused:?}");
        }
    }

    fn dsse(of: &Dsse) -> Dsse {
        let signatures = of.signatures.iter();
        Dsse {
            payload_type: of.payload_type.clone(),
            payload: of.payload.clone(),
            signatures: signatures
                .map(|s| DsseSignature { keyid: s.keyid.clone(), sig: s.sig.clone() })
                .collect(),
        }
    }

    /// Of the example in DSSE's own specification.
    #[test]
    fn the_signed_bytes_are_those_of_the_specification() {
        let bytes = signed_bytes("http://example.com/HelloWorld", b"hello world");
        assert_eq!(bytes, b"DSSEv1 29 http://example.com/HelloWorld 11 hello world");
    }
}
