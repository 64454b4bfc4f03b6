//! The file that `serve --ready-file` writes when it is ready.

use std::path::Path;

use anteroom_api::{KeyRole, PrincipalId};
use anteroom_controller::{Controller, Store};
use anteroom_node_protocol::Node;
use anteroom_private as private;
use anyhow::{Context, Result, anyhow, bail};
use serde_json::Value;

/// The name of the key in it.
const KEY: &str = "ready-file";

/// Refuses a file that is somebody else's, before anything is done. The one that this controller wrote
/// at an earlier start has its key, and is replaced: a controller that was killed starts again.
pub async fn check(path: &Path, controller: &Controller<impl Node, impl Store>) -> Result<()> {
    // What is no file is refused when it is written, and a pipe is not read.
    if !path.symlink_metadata().is_ok_and(|found| found.is_file()) {
        return Ok(());
    }
    let text =
        private::read_text(path).with_context(|| format!("reading {} failed", path.display()))?;
    let file: Value = serde_json::from_str(&text).unwrap_or_default();
    let key = file["apiKey"].as_str().unwrap_or_default();
    let known = controller.keys().authenticate(key).await;
    let known = known.map_err(|problem| anyhow!(problem.detail))?;
    match known.map(|principal| principal.id) {
        Some(PrincipalId::ApiKey { name, .. }) if name.to_string() == KEY => Ok(()),
        _ => bail!(
            "{} already exists, and this controller did not write it; remove it, or choose another file with --ready-file",
            path.display()
        ),
    }
}

/// Writes it.
pub async fn write(
    path: &Path,
    controller: &Controller<impl Node, impl Store>,
    url: &str,
) -> Result<()> {
    Ok(controller.write_client_file(KEY, KeyRole::Caller, path, url).await?)
}
