//! A provider file: what is taken can be started in a guest, and says the same when written again.

use anteroom_egress::{Mapping, Policy};
use anteroom_provider::{Provider, is_guest_path};
use anteroom_sign_in::RuleEngine;

use crate::text::text;

/// Panics where the reader does not hold what is written above.
pub fn run(bytes: &[u8]) {
    let text = text(bytes);
    let Ok(provider) = Provider::parse("fuzz.toml", text) else { return };
    for login in &provider.login {
        assert!(login.command.first().is_some_and(|program| !program.is_empty()));
        // What a program is started with goes through C strings, and `=` ends a variable's name.
        assert!(!login.command.iter().any(|word| word.contains('\0')));
        for (name, value) in &login.env {
            assert!(!name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0'));
        }
        // Its patterns compile within bounds.
        assert!(RuleEngine::new(&provider, login).is_ok());
    }
    let credential = &provider.credential;
    assert!(credential.files.iter().all(|file| file.path.starts_with("~/")));
    let paths = provider.files.iter().map(|file| &file.path);
    for path in paths.chain(credential.files.iter().map(|file| &file.path)) {
        assert!(is_guest_path(path) && !path.split('/').any(|part| part == ".."));
    }
    for file in &provider.files {
        assert!(file.mode & !0o777 == 0 && ["root", "person"].contains(&file.owner.as_str()));
    }
    // What may be reached is checked by the gate, which has to get that far.
    let map = provider.egress.map.iter();
    let map: Vec<Mapping> =
        map.map(|to| Mapping { host: to.host.clone(), port: to.port, to: to.to }).collect();
    let _ = Policy::new(&provider.egress.allow, &map);

    let written = toml::to_string(&provider).expect("what was taken can be written");
    assert_eq!(Provider::parse("fuzz.toml", &written).expect("and read again"), provider);
}
