//! What a provider's credential may consist of.

use anteroom_guest_protocol::SQLITE_COMPANIONS;
use anteroom_provider::{FileFormat, Provider};
use anteroom_vault::Declared;

/// All that may come out of a credential of this provider's.
pub fn declared(provider: &Provider) -> Vec<Declared> {
    let credential = &provider.credential;
    let files = credential.files.iter().flat_map(|file| {
        let name = file.path.trim_start_matches("~/");
        let beside: &[&str] =
            if file.format == FileFormat::Binary { &SQLITE_COMPANIONS } else { &[] };
        let names = beside.iter().map(move |suffix| format!("{name}{suffix}"));
        std::iter::once(name.to_owned()).chain(names)
    });
    let printed = credential.printed.iter().map(|secret| &secret.path);
    let files = files.chain(printed.map(|path| path.trim_start_matches("~/").to_owned()));
    let files = files.map(|name| match name.contains('*') {
        true => Declared::Files { pattern: name },
        false => Declared::File { path: name },
    });
    let secrets = credential.keyring.iter().map(|secret| Declared::KeyringSecret {
        label: secret.label.clone(),
        attributes: secret.attributes.clone(),
    });
    files.chain(secrets).collect()
}

/// The files among what may come out.
pub fn files_of(declared: &[Declared]) -> Vec<String> {
    let name = |one: &Declared| match one {
        Declared::File { path } => Some(path.clone()),
        Declared::Files { pattern } => Some(pattern.clone()),
        Declared::KeyringSecret { .. } => None,
    };
    declared.iter().filter_map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_provider_file_names_may_come_out() {
        let text = include_str!("../../../providers/demo.toml");
        let more = "[[credential.files]]\npath = '~/.demo-login/db'\nformat = 'binary'\n\
                    [[credential.files]]\npath = '~/.demo-login/*.yml'\noptional = true\n\
                    [[credential.printed]]\npath = '~/.demo-login/token'\nbegins = 'tok-'\nrest = 'x+'\n\
                    [[credential.keyring]]\nlabel = 'Demo'\nattributes = { service = 'demo' }\n\
                    [egress]";
        let provider = Provider::parse("demo", &text.replace("[egress]", more)).unwrap();
        let file = |path: &str| Declared::File { path: path.to_owned() };
        let label = "Demo".to_owned();
        let attributes = [("service".to_owned(), "demo".to_owned())].into();
        assert_eq!(
            declared(&provider),
            [
                file(".demo-login/credentials.json"),
                file(".demo-login/db"),
                file(".demo-login/db-wal"),
                file(".demo-login/db-shm"),
                file(".demo-login/db-journal"),
                Declared::Files { pattern: ".demo-login/*.yml".to_owned() },
                file(".demo-login/token"),
                Declared::KeyringSecret { label, attributes },
            ]
        );
    }
}
