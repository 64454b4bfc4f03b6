//! Tools that end for want of a keyring: recognised by their messages, with advice for the end user.

use std::sync::LazyLock;

use regex::Regex;

/// Messages of tools and their libraries (Python's keyring, libsecret and GLib, keytar, libdbus, Go's and
/// Rust's) that find no keyring.
const NO_KEYRING: &str = r"(?ix)
    NoKeyringError | no\ recommended\ backend\ was\ available | org\.freedesktop\.secrets
  | secret-tool: | could\ not\ connect\ to\ secret\ service
  | no\ such\ secret\ collection | secret\ service\ (?:is\ )?(?:not\ available|unavailable|not\ found)
  | platform\ secure\ storage\ failure | no\ keyring\ is\ available | keyring\ (?:is\ )?not\ available";

/// Their messages when there is no bus, over which keyrings and other services are reached.
const NO_BUS: &str = r"(?ix)
    cannot\ autolaunch\ D-Bus | dbus-launch | cannot\ spawn\ a\ message\ bus
  | unsupported\ transport\W+disabled | unknown\ address\ type | failed\ to\ connect\ to\ bus:";

/// Where the sandbox has none.
const NONE: &str = "The tool keeps its secret in a keyring, and the sign-in desktop has none. Whoever runs \
    Anteroom can declare the secret in the provider file ([[credential.keyring]]), or set the tool's \
    option to keep it in a file.";

/// Where the tool does not name a keyring.
const BUS: &str = "The tool needs a message bus (D-Bus), and the sign-in desktop has none. If the tool keeps \
    its secret in a keyring, which is reached over the bus, whoever runs Anteroom can declare the secret \
    in the provider file ([[credential.keyring]]), or set the tool's option to keep it in a file.";

/// Where the sandbox has one.
const NOT_USED: &str = "The tool could not use the keyring of the sign-in desktop. That is not your fault: \
    start again, and contact whoever sent you here if it happens again.";

#[expect(clippy::unwrap_used, reason = "a constant pattern, compiled by every test")]
static PATTERNS: LazyLock<[Regex; 2]> =
    LazyLock::new(|| [NO_KEYRING, NO_BUS].map(|pattern| Regex::new(pattern).unwrap()));

/// Advice for the end user of a tool that ended with this on its screen.
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
    fn each_library_s_messages_are_known() {
        for printed in [
            "keyring.errors.NoKeyringError: No recommended backend was available.",
            // What a sandbox's own environment makes libsecret print.
            "secret-tool: Unknown or unsupported transport “disabled” for address “disabled:”",
            "fatal: could not connect to Secret Service: Unknown or unsupported transport",
            "The name org.freedesktop.secrets was not provided by any .service files",
            "Platform secure storage failure: zbus error",
        ] {
            assert_eq!(advice(printed, false), Some(NONE), "{printed}");
            assert!(!advice(printed, true).unwrap().contains("has none"), "{printed}");
        }
        for printed in [
            "exec: \"dbus-launch\": executable file not found in $PATH",
            "Could not parse server address: Unknown address type (examples of valid types are",
            "Unknown or unsupported transport “disabled” for address “disabled:”",
            "Failed to connect to bus: Connection refused",
        ] {
            assert_eq!(advice(printed, false), Some(BUS), "{printed}");
        }
        for printed in [
            "",
            "Error: no account",
            "unsupported transport: sse",
            "the bus is late",
            "press the key and ring",
        ] {
            assert_eq!(advice(printed, false), None, "{printed}");
        }
    }
}
