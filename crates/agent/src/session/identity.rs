//! What a fresh desktop has and an image cannot: a machine id of its own, and the end user's language as
//! a locale that the C library knows.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anteroom_guest_protocol::Locale;
use anyhow::{Context, Result};

use crate::guest::{Guest, GuestKind};
use crate::random::drawn;

/// Where the C library looks for locales, and the one that is always there.
const LOCALES: &str = "/usr/lib/locale";
const PLAIN: &str = "C.utf8";

/// What tools set themselves, whatever the end user's language.
const USUAL: &str = "en_US.UTF-8";

/// Gives a guest a machine id of its own (machine-id(5)).
pub fn own_machine_id(guest: &Guest) -> Result<()> {
    if guest.kind == GuestKind::Host {
        return Ok(());
    }
    // A UUID of version 4, as systemd makes it.
    let id =
        u128::from_ne_bytes(drawn()?) & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    fs::write("/etc/machine-id", format!("{id:032x}\n"))
        .context("writing /etc/machine-id failed")?;
    fs::create_dir_all("/var/lib/dbus").context("creating /var/lib/dbus failed")?;
    let of_dbus = Path::new("/var/lib/dbus/machine-id");
    let _ = fs::remove_file(of_dbus);
    symlink("/etc/machine-id", of_dbus).context("writing /var/lib/dbus/machine-id failed")
}

/// Has the C library know the locales that tools set themselves.
pub fn usual_locales(guest: &Guest) -> Result<()> {
    make_known(USUAL, guest)?;
    // On a host the sandbox's folder is the only one that is looked at.
    match guest.kind {
        GuestKind::Host => make_known(PLAIN, guest),
        GuestKind::Vm => Ok(()),
    }
}

/// Has the C library know the end user's locale. What language a tool's messages are in is set by
/// `LANGUAGE` all the same.
pub fn end_users_locale(locale: &Locale, guest: &Guest) -> Result<()> {
    make_known(&locale.posix(), guest)
}

/// Where the image has no locale of that name it is the plain one in UTF-8: without it `setlocale` fails
/// as a whole, and a tool's text is ASCII.
fn make_known(name: &str, guest: &Guest) -> Result<()> {
    let folder = guest.locales();
    fs::create_dir_all(&folder).with_context(|| format!("creating {} failed", folder.display()))?;
    let link = folder.join(name);
    // A locale of the image itself is right as it is.
    if link.exists() || folder.join(name.replace("UTF-8", "utf8")).exists() {
        return Ok(());
    }
    symlink(Path::new(LOCALES).join(PLAIN), &link)
        .with_context(|| format!("placing {} failed", link.display()))
}
