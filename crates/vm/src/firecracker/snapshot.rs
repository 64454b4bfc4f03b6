//! A VM that is saved, and one that goes on where another stopped (docs/snapshotting in Firecracker's
//! repository).

use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use super::api::{Api, ApiError};
use super::config::{Serial, SnapshotCreate, SnapshotLoad, Vm};
use crate::SaveError;
use crate::descriptors::{MEMORY, STATE, path_of};
use crate::save::{Save, Saving};

/// How long saving may take: all memory is written.
const LIMIT: Duration = Duration::from_secs(120);

/// A VM that is to be saved.
pub struct Template {
    api: Rc<Api>,
    is_saved: bool,
}

impl Template {
    pub fn new(api: Rc<Api>) -> Self {
        Self { api, is_saved: false }
    }
}

impl Save for Template {
    fn save(&mut self) -> Saving<'_> {
        Box::pin(async {
            if std::mem::replace(&mut self.is_saved, true) {
                return Err(SaveError::Again);
            }
            self.api.patch("/vm", &Vm::PAUSED).await?;
            let files = SnapshotCreate::of(path_of(STATE), path_of(MEMORY));
            self.api.put_within(LIMIT, "/snapshot/create", &files).await?;
            Ok(())
        })
    }
}

/// Reads a saved VM, whose guest is paused then. Before it only a log may have been set, and how much of
/// the console there is. The sockets of its vsock device will be at `vsock`.
pub async fn load(api: &Api, vsock: &Path) -> Result<(), ApiError> {
    // No part of what was saved.
    api.put("/serial", &Serial::bounded()).await?;
    let files = SnapshotLoad::of(path_of(STATE), path_of(MEMORY), vsock.display().to_string());
    // Its memory is mapped, not read.
    api.put("/snapshot/load", &files).await
}

#[cfg(test)]
mod tests {
    use super::super::api::tests::against;
    use super::*;

    const DONE: &str = "HTTP/1.1 204 \r\nServer: Firecracker API\r\nConnection: keep-alive\r\n\r\n";

    #[tokio::test]
    async fn a_template_is_paused_and_written_to_its_descriptors_once() {
        let asked = against(&[DONE, DONE], async |api| {
            let mut template = Template::new(Rc::new(api));
            template.save().await.unwrap();
            assert!(matches!(template.save().await, Err(SaveError::Again)));
        })
        .await;
        assert!(asked[0].starts_with("PATCH /vm ") && asked[0].ends_with(r#"{"state":"Paused"}"#));
        assert!(asked[1].starts_with("PUT /snapshot/create "), "{}", asked[1]);
        let files = r#"{"snapshot_type":"Full","snapshot_path":"/proc/self/fd/17","mem_file_path":"/proc/self/fd/16"}"#;
        assert!(asked[1].ends_with(files), "{}", asked[1]);
    }

    #[tokio::test]
    async fn what_firecracker_says_of_a_state_that_it_does_not_load_is_reported() {
        let refusal = "HTTP/1.1 400 \r\nConnection: keep-alive\r\nContent-Type: application/json\r\nContent-Length: 81\r\n\r\n{\"fault_message\":\"Load snapshot error: Failed to get snapshot state from file: x\"}";
        let answers: &[&str] = Box::leak(Box::new([DONE, refusal]));
        let asked = against(answers, async |api| {
            let error = load(&api, Path::new("/run/vsock")).await.unwrap_err().to_string();
            assert!(error.contains("PUT /snapshot/load") && error.contains("from file"), "{error}");
        })
        .await;
        let expected = r#""mem_backend":{"backend_type":"File","backend_path":"/proc/self/fd/16"},"resume_vm":false,"vsock_override":{"uds_path":"/run/vsock"}}"#;
        assert!(asked[1].ends_with(expected), "{}", asked[1]);
    }
}
