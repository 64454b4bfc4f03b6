//! Answers which browser is the desktop's default, as xdg-utils would.
//!
//! Their scripts start a dozen programs to find what we have set: two seconds of a start under
//! emulation, and Python's `webbrowser` calls one before it opens any page.

use super::desktop_entry::{ENTRY, KINDS};
use super::names::{XDG_MIME, XDG_SETTINGS};

/// What `program` prints for these arguments, where they ask for our own entry.
pub fn answer(program: &str, arguments: &[String]) -> Option<&'static str> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match (program, arguments.as_slice()) {
        (XDG_SETTINGS, ["get", "default-web-browser"])
        | (XDG_SETTINGS, ["get", "default-url-scheme-handler", "http" | "https"]) => Some(ENTRY),
        (XDG_SETTINGS, ["check", "default-web-browser", entry])
        | (XDG_SETTINGS, ["check", "default-url-scheme-handler", "http" | "https", entry]) => {
            Some(if *entry == ENTRY { "yes" } else { "no" })
        }
        (XDG_MIME, ["query", "default", kind]) => KINDS.contains(kind).then_some(ENTRY),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> Option<&'static str> {
        let (program, arguments) = line.split_once(' ').unwrap();
        answer(program, &arguments.split(' ').map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn who_asks_for_the_default_browser_is_answered() {
        for asked in [
            "xdg-settings get default-web-browser",
            "xdg-settings get default-url-scheme-handler https",
            "xdg-mime query default x-scheme-handler/https",
            "xdg-mime query default text/html",
        ] {
            assert_eq!(answered(asked), Some("anteroom-open.desktop"), "{asked}");
        }
        let check = "xdg-settings check default-web-browser";
        assert_eq!(answered(&format!("{check} anteroom-open.desktop")), Some("yes"));
        assert_eq!(answered(&format!("{check} firefox.desktop")), Some("no"));
    }

    #[test]
    fn the_programs_themselves_answer_anything_else() {
        for asked in [
            "xdg-settings --version",
            "xdg-settings set default-web-browser firefox.desktop",
            "xdg-settings get default-url-scheme-handler mailto",
            "xdg-mime query default application/pdf",
            "xdg-mime query filetype page.html",
            "xdg-open get default-web-browser",
        ] {
            assert_eq!(answered(asked), None, "{asked}");
        }
    }
}
