//! A sealed credential, and who can open it.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

/// A credential, sealed with age to its recipient: the bytes of the age file. In JSON it is base64.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SealedCredential(Vec<u8>);

/// A text that should be a sealed credential and is not base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the sealed credential is not valid base64")]
pub struct NotBase64;

impl SealedCredential {
    /// The age file.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl TryFrom<String> for SealedCredential {
    type Error = NotBase64;

    fn try_from(base64: String) -> Result<Self, NotBase64> {
        STANDARD.decode(base64).map(Self).map_err(|_| NotBase64)
    }
}

impl From<SealedCredential> for String {
    fn from(sealed: SealedCredential) -> Self {
        STANDARD.encode(sealed.0)
    }
}

/// Its length: the bytes would fill a log.
impl fmt::Debug for SealedCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedCredential({} bytes)", self.0.len())
    }
}

/// Who can open a sealed credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OpenableBy {
    /// Whoever has the key of the recipient that the start call gave: nobody on the controller's
    /// machine.
    Caller,
    /// The operator, with the vault's key.
    Operator,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_base64_in_json_and_nothing_else_is_taken() {
        let sealed = SealedCredential::try_from("YWdl".to_owned()).unwrap();
        assert_eq!(sealed.bytes(), b"age");
        assert_eq!(serde_json::to_string(&sealed).unwrap(), "\"YWdl\"");
        assert_eq!(SealedCredential::try_from("YW dl".to_owned()), Err(NotBase64));
        assert_eq!(format!("{sealed:?}"), "SealedCredential(3 bytes)");
    }
}
