//! How pages that programs open reach the agent instead of a browser.

mod asked_default;
mod desktop_entry;
mod listener;
mod names;
mod program;

use anyhow::{Context, Result};

pub use listener::{Asked, listen};
pub use names::{BROWSER, REAL_BROWSER_ENV, SOCKET_ENV};
pub use program::{behind, hand_over, is_opener};

use crate::guest::Guest;

/// Makes the agent's program the opener of all web pages in the sandbox.
pub fn place(guest: &Guest) -> Result<()> {
    let folder = guest.openers();
    std::fs::create_dir_all(&folder)
        .with_context(|| format!("creating {} failed", folder.display()))?;
    for name in names::all() {
        let link = folder.join(name);
        std::os::unix::fs::symlink(guest.agent(), &link)
            .with_context(|| format!("placing {} failed", link.display()))?;
    }
    desktop_entry::place(guest)
}
