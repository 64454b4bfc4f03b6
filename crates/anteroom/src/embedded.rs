//! What the binary carries: the guest agent, the viewer, the shipped provider files.

use rust_embed::RustEmbed;

static AGENT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/anteroom-agent"));

#[derive(RustEmbed)]
#[folder = "$OUT_DIR/viewer"]
struct Viewer;

#[derive(RustEmbed)]
#[folder = "$CARGO_MANIFEST_DIR/../../providers"]
struct Providers;

/// The guest agent.
///
/// # Errors
/// When the build had none.
pub fn agent() -> anyhow::Result<&'static [u8]> {
    anyhow::ensure!(
        !AGENT.is_empty(),
        "this build does not include the guest agent; build with `cargo xtask build`"
    );
    Ok(AGENT)
}

/// A file of the viewer, and its media type.
pub fn viewer_file(path: &str) -> Option<(Vec<u8>, &'static str)> {
    let kind = match path.rsplit_once('.').map(|(_, extension)| extension)? {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        _ => "application/octet-stream",
    };
    match Viewer::get(path) {
        Some(file) => Some((file.data.into_owned(), kind)),
        None if path == "index.html" => {
            let page = "<!doctype html><title>Anteroom</title><p>This build does not include the viewer; build with \
                        <code>cargo xtask build</code>.";
            Some((page.as_bytes().to_vec(), kind))
        }
        None => None,
    }
}

/// Name and text of each shipped provider file.
pub fn providers() -> Vec<(String, String)> {
    Providers::iter()
        .filter(|name| name.ends_with(".toml"))
        .filter_map(|name| {
            let file = Providers::get(&name)?;
            Some((name.to_string(), String::from_utf8(file.data.into_owned()).ok()?))
        })
        .collect()
}
