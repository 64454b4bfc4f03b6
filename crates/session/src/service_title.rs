//! What sentences call a sandbox's services.

/// `the X server`, `the service helper`: how a sentence names the service of this name. The names are
/// the agent's, and those of a recipe's `[[services]]`.
#[must_use]
pub fn service_title(name: &str) -> String {
    match name {
        "x" => "the X server".to_owned(),
        "cli" => "the tool".to_owned(),
        "window-manager" | "browser" | "keyring" | "agent" | "sandbox" => {
            format!("the {}", name.replace('-', " "))
        }
        "status" => "the tool's status command".to_owned(),
        declared => format!("the service {declared}"),
    }
}
