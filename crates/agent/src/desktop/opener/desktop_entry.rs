//! The desktop's default for web pages: what a program gets that asks for it instead of for a browser,
//! as `xdg-open`, `gio open`, GTK, Qt and the copies of `xdg-open` in npm packages do.
//!
//! Desktop Entry Specification and Association between MIME types and applications, both of
//! freedesktop.org. `xdg-open` goes by it before it goes by `BROWSER`.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::names::{BROWSER, REAL_BROWSER_ENV};
use crate::guest::{Guest, GuestKind};

/// Its desktop entry.
pub const ENTRY: &str = "anteroom-open.desktop";

/// What it is the default for.
pub const KINDS: [&str; 6] = [
    "x-scheme-handler/http",
    "x-scheme-handler/https",
    "x-scheme-handler/about",
    "x-scheme-handler/unknown",
    "text/html",
    "application/xhtml+xml",
];

/// Names that Debian leads on by links, also for who calls them by their path.
const ALTERNATIVES: [&str; 3] = ["x-www-browser", "gnome-www-browser", "www-browser"];

/// Makes the opener the default for web pages.
pub fn place(guest: &Guest) -> Result<()> {
    let opener = guest.openers().join(BROWSER);
    let kinds = KINDS.map(|kind| format!("{kind};")).concat();
    let entry = format!(
        "[Desktop Entry]\nType=Application\nName=Web Browser\nExec={} %u\nTerminal=false\n\
         NoDisplay=true\nMimeType={kinds}\n",
        opener.display()
    );
    let defaults = KINDS.map(|kind| format!("{kind}={ENTRY}\n")).concat();
    write(&guest.share().join("applications").join(ENTRY), &entry)?;
    write(&guest.settings().join("mimeapps.list"), &format!("[Default Applications]\n{defaults}"))?;
    if guest.kind == GuestKind::Vm {
        lead_paths(guest)?;
    }
    Ok(())
}

/// Leads those to the opener who call a browser by its path, as far as Debian lets them be led.
fn lead_paths(guest: &Guest) -> Result<()> {
    for name in ALTERNATIVES {
        let link = Path::new("/etc/alternatives").join(name);
        // None is there where no browser is.
        let _ = fs::remove_file(&link);
        let Some(folder) = link.parent().filter(|folder| folder.is_dir()) else { continue };
        std::os::unix::fs::symlink(guest.openers().join(name), &link)
            .with_context(|| format!("placing {} in {} failed", name, folder.display()))?;
    }
    // Debian's Chromium is a script that reads what is in this folder as its own lines.
    let settings = Path::new("/etc/chromium.d");
    if settings.is_dir() {
        let opener = guest.openers().join("chromium");
        let line = format!(
            "# A page that a program opens is shown by Anteroom.\n\
             [ -n \"${REAL_BROWSER_ENV}\" ] || exec {} \"$@\"\n",
            opener.display()
        );
        write(&settings.join("anteroom"), &line)?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<()> {
    let write = || {
        fs::create_dir_all(path.parent().unwrap_or(Path::new("/")))?;
        fs::write(path, text)
    };
    write().with_context(|| format!("writing {} failed", path.display()))
}
