//! What a fresh desktop has and an image cannot: a machine id of its own, and the end user's language as
//! a locale that the C library knows.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anteroom_guest_protocol::Locale;
use anyhow::{Context, Result};

use crate::guest::{Guest, GuestKind};

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
    let id = rand::random::<u128>() & !(0xf << 76) & !(0x3 << 62) | (0x4 << 76) | (0x2 << 62);
    fs::write("/etc/machine-id", format!("{id:032x}\n"))
        .context("writing /etc/machine-id failed")?;
    fs::create_dir_all("/var/lib/dbus").context("creating /var/lib/dbus failed")?;
    let of_dbus = Path::new("/var/lib/dbus/machine-id");
    let _ = fs::remove_file(of_dbus);
    symlink("/etc/machine-id", of_dbus).context("writing /var/lib/dbus/machine-id failed")
}

/// Has the C library know the end user's locale: where the image has none of that name it is the plain
/// one in UTF-8. Without this `setlocale` fails as a whole, and a tool's text is ASCII. What language
/// its messages are in is set by `LANGUAGE` all the same.
pub fn known_locales(locale: Option<&Locale>, guest: &Guest) -> Result<()> {
    let folder = guest.locales();
    fs::create_dir_all(&folder).with_context(|| format!("creating {} failed", folder.display()))?;
    let wanted = locale.map(|locale| locale.posix.as_str()).into_iter().chain([USUAL]);
    // On a host the sandbox's folder is the only one that is looked at.
    let always = (guest.kind == GuestKind::Host).then_some(PLAIN);
    for name in wanted.chain(always) {
        if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-@".contains(&b)) {
            continue;
        }
        // Another link of an earlier locale, or a locale of the image itself, is right as it is.
        let is_known = |name: &str| folder.join(name).exists();
        if !is_known(name) && !is_known(&name.replace("UTF-8", "utf8")) {
            let link = folder.join(name);
            symlink(Path::new(LOCALES).join(PLAIN), &link)
                .with_context(|| format!("placing {} failed", link.display()))?;
        }
    }
    Ok(())
}
