//! Titles of the browser's windows: what page the end user looks at, as far as the desktop shows it.

use std::collections::BTreeMap;

use anteroom_guest_protocol::GuestMessage;
use anyhow::{Context, Result};
use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::xproto::{Atom, ChangeWindowAttributesAux, ConnectionExt, EventMask, Window};
use x11rb::rust_connection::RustConnection;

use super::window::{CLIENT_LIST, managed_windows};
use crate::desktop::display::server::DisplayAddress;
use crate::report::Reporter;

/// Characters of a title that are reported.
const MAX_TITLE: usize = 512;

/// Windows that are watched.
const MAX_WINDOWS: usize = 64;

/// Reports each new title, from a thread that sleeps until X reports one. It ends with the
/// X server.
pub fn report(address: &DisplayAddress, reporter: Reporter) {
    let address = address.clone();
    let thread = std::thread::Builder::new().name("titles".into());
    let reported = thread.spawn({
        let reporter = reporter.clone();
        move || drop(watch(&address, &reporter))
    });
    if let Err(error) = reported {
        reporter.note(&format!("the titles of pages cannot be watched: {error}"));
    }
}

fn watch(address: &DisplayAddress, reporter: &Reporter) -> Result<()> {
    let connection = address.connect()?;
    let root = connection.setup().roots[0].root;
    let atom =
        |name: &[u8]| -> Result<Atom> { Ok(connection.intern_atom(false, name)?.reply()?.atom) };
    let (list, name) = (atom(CLIENT_LIST)?, atom(b"_NET_WM_NAME")?);
    let utf8 = atom(b"UTF8_STRING")?;
    let changes = ChangeWindowAttributesAux::new().event_mask(EventMask::PROPERTY_CHANGE);
    connection.change_window_attributes(root, &changes)?;
    let mut titles: BTreeMap<Window, String> = BTreeMap::new();
    loop {
        let mut windows = managed_windows(&connection, list).context("the X server is gone")?;
        windows.truncate(MAX_WINDOWS);
        titles.retain(|window, _| windows.contains(window));
        for window in windows {
            if !titles.contains_key(&window) {
                connection.change_window_attributes(window, &changes)?;
            }
            let title = title(&connection, window, name, utf8).unwrap_or_default();
            if titles.get(&window) != Some(&title) {
                titles.insert(window, title.clone());
                reporter.offer(GuestMessage::PageTitle { title });
            }
        }
        connection.flush()?;
        loop {
            match connection.wait_for_event().context("the X server is gone")? {
                Event::PropertyNotify(change) if [list, name].contains(&change.atom) => break,
                _ => {}
            }
        }
    }
}

/// A window that goes while it is looked at has none.
fn title(connection: &RustConnection, window: Window, name: Atom, utf8: Atom) -> Option<String> {
    let property =
        connection.get_property(false, window, name, utf8, 0, 1024).ok()?.reply().ok()?;
    Some(String::from_utf8_lossy(&property.value).chars().take(MAX_TITLE).collect())
}
