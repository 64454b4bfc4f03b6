//! Names of hosts.

/// Whether a name (in lower case, no address) is a network's own, as those of cloud machines' metadata
/// are: no resolver is asked for it (RFC 6761, 6762, 8375, and what ICANN keeps for private use).
#[must_use]
pub fn is_local_name(host: &str) -> bool {
    const LOCAL: [&str; 8] =
        ["local", "localhost", "localdomain", "internal", "intranet", "lan", "home.arpa", "onion"];
    let is_in = |zone: &&str| {
        host.strip_suffix(*zone).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    };
    !host.contains('.') || LOCAL.iter().any(is_in)
}
