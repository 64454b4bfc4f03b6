//! The controller of this machine, as the file in its state folder says how to call it.

use std::path::{Path, PathBuf};

use anteroom_controller::DATABASE;
use anyhow::{Context, Result, bail};
use serde_json::Value;

/// The file, in the state folder; the controller writes it at each start.
pub const FILE: &str = "cli.json";

/// How it is called.
pub struct OwnController {
    /// Where this was read.
    pub path: PathBuf,
    /// Its address.
    pub url: String,
    /// The command line's key.
    pub key: String,
}

impl OwnController {
    /// Reads the file of a state folder.
    pub fn read(dir: &Path) -> Result<Self> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Err(missing(dir)),
            read => read.with_context(|| format!("reading {} failed", path.display()))?,
        };
        let file: Value = serde_json::from_str(&text).with_context(|| {
            format!("{} is not JSON; restart the controller, which writes it anew", path.display())
        })?;
        let field = |name: &str| match file[name].as_str() {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => bail!(
                "{} has no valid {name}; restart the controller, which writes it anew",
                path.display()
            ),
        };
        Ok(Self { url: field("url")?, key: field("apiKey")?, path })
    }
}

fn missing(dir: &Path) -> anyhow::Error {
    let shown = dir.display();
    if dir.join(DATABASE).exists() {
        return anyhow::anyhow!(
            "the state folder {shown} has no {FILE}, which says how to call its controller; restart the controller, which writes it anew, or pass address and key with --url and --api-key-file"
        );
    }
    anyhow::anyhow!(
        "no controller has used the state folder {shown}; start one with `anteroom serve`, pass its folder with --state-dir, or pass the address of a controller elsewhere with --url and --api-key-file"
    )
}
