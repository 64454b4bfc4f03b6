//! Files that the host puts into the guest, each confirmed by the hash of what the guest read back.

use std::time::Duration;

use anteroom_guest_link::{LinkError, Opener, chain, read_message, write_message};
use anteroom_guest_protocol::{
    FileHeader, FileOutcome, MAX_CONTROL_MESSAGE, StreamKind, printable,
};
use anteroom_provider::InjectedFile;
use anteroom_session::EndReason;
use sha2::{Digest, Sha256};
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use crate::failure::broken;

/// How long the guest may take to write a file, in seconds.
const FILE_SECONDS: u64 = 60;

/// Puts a file into the guest and checks the hash of what the guest read back.
///
/// # Errors
/// When the guest refused it, has different content, is late, or its link failed.
pub async fn inject(opener: &Opener, file: &InjectedFile) -> Result<(), EndReason> {
    let refused = |cause: String| EndReason::FileNotInjected { path: file.path.clone(), cause };
    let late = |_| refused(format!("the guest did not confirm it within {FILE_SECONDS} s"));
    let outcome = timeout(Duration::from_secs(FILE_SECONDS), send_file(opener, file))
        .await
        .map_err(late)?
        // The link's failure, not the file's: a guest that crashes now is reported as one that crashed.
        .map_err(|error| {
            broken(&format!("while {} was being written: {}", file.path, chain(&error)))
        })?;
    let expected = hex::encode(Sha256::digest(file.content.as_bytes()));
    match outcome {
        FileOutcome::Written { sha256 } if sha256 == expected => Ok(()),
        FileOutcome::Written { sha256 } => Err(refused(format!(
            "the guest has different content: SHA-256 {}, not {expected}",
            printable(&sha256)
        ))),
        FileOutcome::Refused { cause } => Err(refused(printable(&cause))),
    }
}

async fn send_file(opener: &Opener, file: &InjectedFile) -> Result<FileOutcome, LinkError> {
    let mut stream = opener.open(StreamKind::File).await?;
    let header = FileHeader {
        path: file.path.clone(),
        owner: file.owner.clone(),
        mode: file.mode,
        size: file.content.len() as u64,
    };
    write_message(&mut stream, &header, MAX_CONTROL_MESSAGE).await?;
    stream.write_all(file.content.as_bytes()).await?;
    stream.flush().await?;
    read_message(&mut stream, MAX_CONTROL_MESSAGE).await?.ok_or(LinkError::Closed)
}

#[cfg(test)]
mod tests {
    use anteroom_guest_link::{Side, connect};
    use anteroom_session::DriverKind;

    use super::*;

    #[tokio::test]
    async fn a_guest_that_is_gone_while_a_file_is_put_in_place_failed_as_a_guest() {
        tokio::task::LocalSet::new()
            .run_until(async {
                let (host, guest) = tokio::net::UnixStream::pair().unwrap();
                let (opener, _, drive) = connect(host, Side::Host);
                tokio::task::spawn_local(drive);
                drop(guest);
                let file = InjectedFile {
                    path: "~/.netrc".into(),
                    owner: "person".into(),
                    mode: 0o600,
                    content: "x".into(),
                };
                let reason = inject(&opener, &file).await.unwrap_err();
                assert_eq!(reason.code(), "guest_link_failed");
                let sentence = reason.sentence(DriverKind::Host);
                assert!(sentence.contains("~/.netrc"), "{sentence}");
            })
            .await;
    }
}
