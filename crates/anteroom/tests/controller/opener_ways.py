"""Opens an address in each way that programs have, and says what the way said of it.

Runs as the CLI of a sandbox. Each way has an address of its own, which says by what way it came.
"""

import os
import subprocess
import sys

MODULES = sys.argv[1] if len(sys.argv) > 1 else None
PAGE = "https://{}.test/authorize?state=a%20b&x=1"

# Programs of Debian, by their own path: not ours of the same name.
WAYS = {
    "xdg-open": ["/usr/bin/xdg-open", "PAGE"],
    "sensible-browser": ["/usr/bin/sensible-browser", "PAGE"],
    "x-www-browser": ["x-www-browser", "PAGE"],
    "gio": ["gio", "open", "PAGE"],
    "gtk-launch": ["gio", "launch", "ENTRY", "PAGE"],
    "browser-variable": ["sh", "-c", 'exec $BROWSER "$0"', "PAGE"],
    # Standard libraries.
    "python": ["/usr/bin/python3", "-m", "webbrowser", "PAGE"],
    "python-tab": ["/usr/bin/python3", "-m", "webbrowser", "-t", "PAGE"],
    "python-firefox": [
        "/usr/bin/python3",
        "-c",
        "import sys, webbrowser; assert webbrowser.get('firefox').open_new(sys.argv[1])",
        "PAGE",
    ],
    "python-chrome": [
        "/usr/bin/python3",
        "-c",
        "import sys, webbrowser; assert webbrowser.get('google-chrome').open(sys.argv[1])",
        "PAGE",
    ],
    # Ask for the default first; the answer has to be an entry that is there.
    "asked-default": [
        "sh",
        "-c",
        'exec gio launch "${XDG_DATA_DIRS%%:*}/applications/$(xdg-settings get default-web-browser)" "$0"',
        "PAGE",
    ],
    # Go's browser packages and Rust's: the first of these that is there.
    "gnome-open": ["gnome-open", "PAGE"],
    "kde-open": ["kde-open", "PAGE"],
    "kfmclient": ["kfmclient", "openURL", "PAGE"],
    "exo-open": ["exo-open", "--launch", "WebBrowser", "PAGE"],
    "www-browser": ["www-browser", "PAGE"],
    # Browsers by their names.
    "chromium": ["chromium", "--new-window", "PAGE"],
    "google-chrome": ["google-chrome", "--app=PAGE"],
    "firefox": ["firefox", "-new-tab", "PAGE"],
    "brave-browser": ["brave-browser", "PAGE"],
    "chrome": ["chrome", "PAGE"],
    "microsoft-edge": ["microsoft-edge", "PAGE"],
    "microsoft-edge-dev": ["microsoft-edge-dev", "PAGE"],
}
if MODULES:
    # npm's package `open` brings an xdg-open of its own.
    script = "import(process.argv[1]).then(async ({{default: open, apps}}) => await open({}))"
    page, chrome = "process.argv[2]", "process.argv[2], {app: {name: apps.chrome}}"
    module = f"{MODULES}/open/index.js"
    WAYS["node-open"] = ["node", "-e", script.format(page), module, "PAGE"]
    WAYS["node-open-chrome"] = ["node", "-e", script.format(chrome), module, "PAGE"]
    WAYS["node-bundled"] = [f"{MODULES}/open/xdg-open", "PAGE"]
    # On a host what Debian's names lead to is the host's own affair.
    ALWAYS_SET = {"browser-variable", "sensible-browser"}
else:
    # A machine of our own: also what calls a browser by its path, and what knows nothing of the sandbox.
    WAYS = {way: WAYS[way] for way in ("xdg-open", "sensible-browser", "gio", "python", "chromium")}
    WAYS["chromium-by-path"] = ["/usr/bin/chromium", "PAGE"]
    WAYS["alternative-by-path"] = ["/usr/bin/x-www-browser", "PAGE"]
    emptied = ["env", "-i", f"DISPLAY={os.environ['DISPLAY']}", "PATH=/usr/bin:/bin"]
    WAYS["empty-environment"] = [*emptied, "xdg-open", "PAGE"]
    # Is the program meant itself, it answers.
    WAYS["none"] = ["chromium", "--version"]
    ALWAYS_SET = set()


def entry():
    folders = os.environ.get("XDG_DATA_DIRS", "/usr/local/share").split(":")
    return f"{folders[0]}/applications/anteroom-open.desktop"


def run(way, command, environment):
    page = PAGE.format(way)
    words = [word.replace("PAGE", page).replace("ENTRY", entry()) for word in command]
    try:
        done = subprocess.run(
            words, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=120
        )
        said = (done.stdout + done.stderr).decode(errors="replace").replace("\n", " / ")
        print(f"way {way}: {done.returncode} {said}", flush=True)
    except FileNotFoundError:
        print(f"way {way}: not installed", flush=True)
    except subprocess.TimeoutExpired:
        print(f"way {way}: goes on for ever", flush=True)


with_browser = dict(os.environ)
without_browser = {name: value for name, value in os.environ.items() if name != "BROWSER"}
for way, command in WAYS.items():
    if MODULES:
        run(way, command, with_browser)
    if way not in ALWAYS_SET:
        run(f"{way}-unset", command, without_browser)
print("way end: all were tried", flush=True)
sys.stdin.read()
