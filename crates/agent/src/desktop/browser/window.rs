//! The browser's window on the screen.
//!
//! Browser and window manager start side by side. When the window manager takes over just while the
//! browser maps its window, that window may end up unmapped, with nobody about to map it: the
//! browser counts it as shown, and the window manager does not know it (Openbox 3.6, 15 of 44 starts
//! on a busy machine). The end user would look at an empty desktop. So it is looked for, and mapped
//! once more when it is not there; the window manager then takes it like any new one.

use std::time::Duration;

use anyhow::Result;
use tokio::time::Instant;
use x11rb::connection::Connection;
use x11rb::protocol::xproto::{Atom, AtomEnum, ConnectionExt, MapState, Window};
use x11rb::rust_connection::RustConnection;

use crate::desktop::display::server::DisplayAddress;

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long the browser and the window manager may take between them before the window is mapped.
const THEIR_TIME: Duration = Duration::from_secs(2);

/// The root window's property that names the windows in the window manager's care.
pub const CLIENT_LIST: &[u8] = b"_NET_CLIENT_LIST";

/// Anything smaller is a helper's window, edges in pixels.
const SMALLEST_EDGE: u16 = 200;

/// Waits until a window of the browser is on the screen and in the window manager's care. The page in
/// it must have been asked for, so that there is a window.
pub async fn shown(display: &DisplayAddress) -> Result<()> {
    let connection = display.connect()?;
    let mut map_at = Instant::now() + THEIR_TIME;
    loop {
        let windows = browser_windows(&connection)?;
        if windows.iter().any(|window| window.is_managed && window.is_viewable) {
            return Ok(());
        }
        if Instant::now() >= map_at {
            map_at = Instant::now() + THEIR_TIME;
            for window in windows.iter().filter(|window| !window.is_viewable) {
                connection.map_window(window.id)?;
            }
            connection.flush()?;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// A top-level window of the browser.
struct BrowserWindow {
    id: Window,
    /// The window manager has it.
    is_managed: bool,
    is_viewable: bool,
}

/// The windows in the window manager's care (EWMH); `list` is the atom of [`CLIENT_LIST`].
pub fn managed_windows(connection: &RustConnection, list: Atom) -> Result<Vec<Window>> {
    let root = connection.setup().roots[0].root;
    let windows = connection.get_property(false, root, list, AtomEnum::WINDOW, 0, 1024)?.reply()?;
    Ok(windows.value32().into_iter().flatten().collect())
}

fn browser_windows(connection: &RustConnection) -> Result<Vec<BrowserWindow>> {
    let root = connection.setup().roots[0].root;
    let list = connection.intern_atom(false, CLIENT_LIST)?.reply()?.atom;
    let managed = managed_windows(connection, list)?;
    let children = connection.query_tree(root)?.reply()?.children;
    let all = managed
        .into_iter()
        .map(|window| (window, true))
        .chain(children.into_iter().map(|window| (window, false)));
    // A window that goes while it is looked at is none.
    Ok(all.filter_map(|(id, is_managed)| browser_window(connection, id, is_managed)).collect())
}

fn browser_window(
    connection: &RustConnection,
    id: Window,
    is_managed: bool,
) -> Option<BrowserWindow> {
    let class = connection
        .get_property(false, id, AtomEnum::WM_CLASS, AtomEnum::STRING, 0, 256)
        .ok()?
        .reply()
        .ok()?;
    // Two strings, each with its zero: the instance, then the class (ICCCM, 4.1.2.5).
    let class = class.value.split(|byte| *byte == 0).nth(1)?;
    if !class.eq_ignore_ascii_case(b"chromium") {
        return None;
    }
    let size = connection.get_geometry(id).ok()?.reply().ok()?;
    let attributes = connection.get_window_attributes(id).ok()?.reply().ok()?;
    let is_large = size.width.min(size.height) >= SMALLEST_EDGE;
    let is_viewable = attributes.map_state == MapState::VIEWABLE;
    let window = BrowserWindow { id, is_managed, is_viewable };
    (is_large && !attributes.override_redirect).then_some(window)
}
