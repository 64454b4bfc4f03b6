//! Tools that end for want of a keyring: known by their words, and what to do then.

use std::sync::LazyLock;

use regex::Regex;

/// How tools and their libraries (Python's keyring, libsecret and GLib, keytar, libdbus, Go's and Rust's)
/// say that they find no keyring.
const WORDS: &str = r"(?ix)
    NoKeyringError | no\ recommended\ backend\ was\ available | org\.freedesktop\.secrets
  | secret-tool: | could\ not\ connect\ to\ secret\ service
  | no\ such\ secret\ collection | secret\ service\ (?:is\ )?(?:not\ available|unavailable|not\ found)
  | platform\ secure\ storage\ failure | no\ keyring\ is\ available | keyring\ (?:is\ )?not\ available";

/// How they say that there is no bus, which keyrings and other things are reached by.
const NO_BUS: &str = r"(?ix)
    cannot\ autolaunch\ D-Bus | dbus-launch | cannot\ spawn\ a\ message\ bus
  | unsupported\ transport\W+disabled | unknown\ address\ type | failed\ to\ connect\ to\ bus:";

/// What is said where the room has none.
const NONE: &str = "The tool wants to keep its secret in the desktop's keyring, and this room has none. \
    Whoever runs Anteroom can declare that secret in the provider file ([[credential.keyring]]), or set \
    the tool's own option to keep it in a file.";

/// What is said where the tool names no keyring.
const BUS: &str = "The tool asked for the desktop's bus, and this room has none. If it keeps its secret in a \
    keyring, which is reached by that, whoever runs Anteroom can declare the secret in the provider file \
    ([[credential.keyring]]), or set the tool's own option to keep it in a file.";

/// What is said where it has one.
const NOT_USED: &str = "The tool says that it could not use the desktop's keyring, which this room has. \
    That is not your fault: start again, and tell whoever sent you here when it says so once more.";

#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static PATTERNS: LazyLock<[Regex; 2]> =
    LazyLock::new(|| [WORDS, NO_BUS].map(|words| Regex::new(words).unwrap()));

/// What there is to say of a tool that ended with this on its screen.
pub fn advice(screen: &str, sandbox_has_one: bool) -> Option<&'static str> {
    let [keyring, bus] = PATTERNS.each_ref().map(|pattern| pattern.is_match(screen));
    match (keyring, bus) {
        (true, _) => Some(if sandbox_has_one { NOT_USED } else { NONE }),
        (false, true) => (!sandbox_has_one).then_some(BUS),
        (false, false) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_library_s_words_are_known() {
        for words in [
            "keyring.errors.NoKeyringError: No recommended backend was available.",
            // What a room's own environment makes libsecret say.
            "secret-tool: Unknown or unsupported transport “disabled” for address “disabled:”",
            "fatal: could not connect to Secret Service: Unknown or unsupported transport",
            "The name org.freedesktop.secrets was not provided by any .service files",
            "Platform secure storage failure: zbus error",
        ] {
            assert_eq!(advice(words, false), Some(NONE), "{words}");
            assert!(!advice(words, true).unwrap().contains("has none"), "{words}");
        }
        for words in [
            "exec: \"dbus-launch\": executable file not found in $PATH",
            "Could not parse server address: Unknown address type (examples of valid types are",
            "Unknown or unsupported transport “disabled” for address “disabled:”",
            "Failed to connect to bus: Connection refused",
        ] {
            assert_eq!(advice(words, false), Some(BUS), "{words}");
        }
        for words in [
            "",
            "Error: no account",
            "unsupported transport: sse",
            "the bus is late",
            "press the key and ring",
        ] {
            assert_eq!(advice(words, false), None, "{words}");
        }
    }
}
