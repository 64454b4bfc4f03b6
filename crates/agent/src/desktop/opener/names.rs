//! By which names pages are opened, and how the programs behind them find the agent.

/// What `BROWSER` points at. No name that anybody knows: of those that it knows, Python's
/// `webbrowser` takes one that has ended before it looked for one that failed, and starts the next
/// browser that it finds, which is Chromium itself. Of others it waits for the end.
pub const BROWSER: &str = "anteroom-open";

/// What programs call to open a page: openers of desktops and distributions, then browsers.
// `gio open`, `exo-open` of a desktop and the rest that asks for the default of a kind of file come
// by the desktop entry. Browsers in a terminal are not here: they are used to read pages, too.
pub const NAMES: [&str; 50] = [
    BROWSER,
    "xdg-open",
    "open",
    "sensible-browser",
    "x-www-browser",
    "www-browser",
    "gnome-www-browser",
    "gnome-open",
    "gvfs-open",
    "kde-open",
    "kde-open5",
    "kde-open6",
    "kfmclient",
    "exo-open",
    "mate-open",
    "dde-open",
    "enlightenment_open",
    "chromium",
    "chromium-browser",
    "chrome",
    "chrome-browser",
    "google-chrome",
    "google-chrome-stable",
    "google-chrome-beta",
    "google-chrome-unstable",
    "firefox",
    "firefox-esr",
    "firefox-developer-edition",
    "firefox-nightly",
    "iceweasel",
    "mozilla",
    "seamonkey",
    "brave",
    "brave-browser",
    "brave-browser-stable",
    "microsoft-edge",
    "microsoft-edge-stable",
    "microsoft-edge-beta",
    "microsoft-edge-dev",
    "opera",
    "vivaldi",
    "vivaldi-stable",
    "vivaldi-snapshot",
    "epiphany",
    "epiphany-browser",
    "konqueror",
    "falkon",
    "midori",
    "librewolf",
    "zen-browser",
];

/// What programs call to ask which browser is the default, of xdg-utils.
pub const XDG_SETTINGS: &str = "xdg-settings";
pub const XDG_MIME: &str = "xdg-mime";

/// All names under which the agent is started by programs of the sandbox.
pub fn all() -> impl Iterator<Item = &'static str> {
    NAMES.into_iter().chain([XDG_SETTINGS, XDG_MIME])
}

/// Marks the processes of the CLI: it is in their environment and no other's.
pub const SOCKET_ENV: &str = "ANTEROOM_OPEN_URL_SOCKET";

/// Says that a browser is meant itself, and not to open an address for a program.
pub const REAL_BROWSER_ENV: &str = "ANTEROOM_REAL_BROWSER";

/// Where the agent listens, in its own folder.
pub const SOCKET: &str = "open-url.sock";
