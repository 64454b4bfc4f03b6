//! What a provider file may not say.

use std::collections::BTreeMap;
use std::fmt;

use anteroom_session::Method;
use regex::Regex;

use crate::{FileFormat, Login, Provider, install};

/// A value that cannot be.
pub struct Wrong {
    /// Where it is, or what it is missing from.
    pub key: Key,
    /// What is wrong and what would be right; goes on after the key's name.
    pub problem: String,
}

/// A key as TOML nests it: `login[0].command`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Key(pub Vec<Step>);

/// One step down.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Into a table.
    Name(&'static str),
    /// Into a list.
    Item(usize),
}

impl Key {
    fn of(name: &'static str) -> Self {
        Self(vec![Step::Name(name)])
    }

    fn at(mut self, index: usize) -> Self {
        self.0.push(Step::Item(index));
        self
    }

    fn get(mut self, name: &'static str) -> Self {
        self.0.push(Step::Name(name));
        self
    }

    fn is(&self, problem: impl Into<String>) -> Wrong {
        Wrong { key: self.clone(), problem: problem.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, step) in self.0.iter().enumerate() {
            match step {
                Step::Name(name) if n == 0 => write!(f, "{name}")?,
                Step::Name(name) => write!(f, ".{name}")?,
                Step::Item(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// The largest compiled pattern, in bytes; patterns meet what a guest prints.
pub const MAX_PATTERN: usize = 256 * 1024;

/// Finds the first value that cannot be.
pub fn check(provider: &Provider) -> Result<(), Wrong> {
    if provider.name.trim().is_empty() {
        return Err(Key::of("name").is("is empty; it is what the person reads"));
    }
    if provider.login.is_empty() {
        return Err(Key::of("login").is("is empty; name at least one way to sign in"));
    }
    for (n, login) in provider.login.iter().enumerate() {
        let key = Key::of("login").at(n);
        if provider.login[..n].iter().any(|other| other.method == login.method) {
            let method = login.method;
            return Err(key.get("method").is(format!("is {method}, which another way is already")));
        }
        check_login(login, &key)?;
    }
    for (n, screen) in provider.screens.iter().enumerate() {
        pattern(&screen.screen, &Key::of("screens").at(n).get("screen"), 0)?;
    }
    for (n, page) in provider.pages.iter().enumerate() {
        pattern(&page.title, &Key::of("pages").at(n).get("title"), 0)?;
    }
    for (n, host) in provider.egress.allow.iter().enumerate() {
        if !is_host_pattern(host) {
            return Err(Key::of("egress").get("allow").at(n).is(format!(
                "is {host:?}, which is no host name; write example.com, *.example.com or \
                 example.com:8443"
            )));
        }
    }
    check_credential(provider)?;
    check_files(provider)?;
    check_install(&provider.install)
}

fn check_login(login: &Login, key: &Key) -> Result<(), Wrong> {
    let key = |name| key.clone().get(name);
    command(&login.command, &key("command"))?;
    environment(&login.env, &key("env"))?;
    if !(1..=3600).contains(&login.url_timeout_seconds) {
        return Err(key("url_timeout_seconds").is("must be 1 to 3600"));
    }
    pattern(&login.url_pattern, &key("url_pattern"), 0)?;
    let (is_device, is_paste) =
        (login.method == Method::DeviceCode, login.method == Method::PasteCode);
    match &login.code_pattern {
        Some(code) if is_device => drop(pattern(code, &key("code_pattern"), 1)?),
        Some(_) => return Err(key("code_pattern").is("is for the method device_code alone")),
        None if is_device => {
            return Err(key("code_pattern")
                .is("is missing; for device_code give a pattern whose first group is the code"));
        }
        None => {}
    }
    match &login.code_prompt {
        Some(prompt) if is_paste => drop(pattern(prompt, &key("code_prompt"), 0)?),
        Some(_) => return Err(key("code_prompt").is("is for the method paste_code alone")),
        None if is_paste => {
            return Err(key("code_prompt").is(
                "is missing; for paste_code say what the screen shows when the tool takes the code",
            ));
        }
        None => {}
    }
    if let Some(form) = &login.code_form {
        if !is_paste {
            return Err(key("code_form").is("is for the method paste_code alone"));
        }
        pattern(form, &key("code_form"), 0)?;
    }
    if login.callback_ports.contains(&0) || login.callback_ports.len() > 16 {
        return Err(key("callback_ports").is("must be at most 16 ports of 1 to 65535"));
    }
    for (n, answer) in login.answers.iter().enumerate() {
        let key = key("answers").at(n);
        pattern(&answer.screen, &key.clone().get("screen"), 0)?;
        if answer.keys.is_empty() || answer.keys.len() > 1024 {
            return Err(key.get("type").is("must be 1 to 1024 bytes"));
        }
        if answer.keys.contains("\\r") || answer.keys.contains("\\u") {
            let problem = "has a backslash in it; write it in double quotes for Enter to be \\r";
            return Err(key.get("type").is(problem));
        }
        if !(1..=100).contains(&answer.times) {
            return Err(key.get("times").is("must be 1 to 100"));
        }
    }
    Ok(())
}

fn check_credential(provider: &Provider) -> Result<(), Wrong> {
    let files = &provider.credential.files;
    let key = Key::of("credential").get("files");
    if files.is_empty() || files.len() > 16 {
        return Err(key.is("must name 1 to 16 files"));
    }
    if files.iter().all(|file| file.optional) {
        return Err(key.is("are all optional; one must be there"));
    }
    for (n, file) in files.iter().enumerate() {
        let key = |name| key.clone().at(n).get(name);
        // A bundle is restored into a home.
        if !is_guest_path(&file.path) || !file.path.starts_with("~/") {
            return Err(key("path").is("must start with ~/ and have no .."));
        }
        if files[..n].iter().any(|other| other.path == file.path) {
            return Err(key("path").is("is named twice"));
        }
        if !(1..=1024 * 1024).contains(&file.max_bytes) {
            return Err(key("max_bytes").is("must be 1 to 1048576"));
        }
        if file.required.is_empty() && !file.optional {
            return Err(key("required").is("is empty; name what makes the file complete"));
        }
        match file.format {
            FileFormat::Json if file.required.iter().any(|pointer| !pointer.starts_with('/')) => {
                return Err(key("required").is("holds what is no JSON pointer; they start with /"));
            }
            FileFormat::Json => {}
            FileFormat::Text => {
                for required in &file.required {
                    pattern(required, &key("required"), 0)?;
                }
            }
        }
    }
    if let Some(status) = &provider.credential.status {
        let key = |name| Key::of("credential").get("status").get(name);
        command(&status.command, &key("command"))?;
        environment(&status.env, &key("env"))?;
        pattern(&status.signed_in, &key("signed_in"), 0)?;
    }
    Ok(())
}

fn check_files(provider: &Provider) -> Result<(), Wrong> {
    for (n, file) in provider.files.iter().enumerate() {
        let key = |name| Key::of("files").at(n).get(name);
        if !is_guest_path(&file.path) {
            return Err(key("path").is("must be absolute or start with ~/ and have no .."));
        }
        if !matches!(file.owner.as_str(), "root" | "person") {
            return Err(key("owner").is("must be root or person"));
        }
        if file.mode > 0o777 {
            return Err(key("mode").is("must be at most 0o777"));
        }
        if file.content.len() > 1024 * 1024 {
            return Err(key("content").is("must be at most 1 MiB"));
        }
    }
    Ok(())
}

fn check_install(install: &install::Install) -> Result<(), Wrong> {
    let key = |name| Key::of("install").get(name);
    let is_plain = |text: &str| {
        let plain = |b: u8| b.is_ascii_alphanumeric() || b"@/._-+=".contains(&b);
        (1..=200).contains(&text.len()) && text.bytes().all(plain) && !text.starts_with('-')
    };
    let has_version = |text: &str, mark: &str| {
        text.char_indices().skip(1).any(|(at, _)| text[at..].starts_with(mark))
    };
    for (name, mark, packages) in [("npm", "@", &install.npm), ("pypi", "==", &install.pypi)] {
        if let Some(bad) = packages.iter().find(|p| !is_plain(p) || !has_version(p, mark)) {
            return Err(key(name).is(format!(
                "holds {bad:?}, which names no exact version, as in name{mark}1.2.3"
            )));
        }
    }
    for (n, archive) in install.archives.iter().enumerate() {
        let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if archive.sha256.len() != 64 || !archive.sha256.bytes().all(digit) {
            return Err(key("archives").at(n).get("sha256").is("must be 64 of 0-9 and a-f"));
        }
    }
    if let Some(smoke) = &install.smoke {
        command(&smoke.command, &key("smoke").get("command"))?;
    }
    Ok(())
}

/// A name, perhaps for its subdomains alone, perhaps with a port.
fn is_host_pattern(text: &str) -> bool {
    let (name, port) = text.rsplit_once(':').unwrap_or((text, "443"));
    let name = name.strip_prefix("*.").unwrap_or(name);
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253
        && name.split('.').all(is_label)
        && port.parse::<u16>().is_ok_and(|port| port > 0)
}

/// No program can be started with a NUL, and a guest would say so much later.
fn command(words: &[String], key: &Key) -> Result<(), Wrong> {
    if words.first().is_none_or(String::is_empty) {
        return Err(key.is("is empty; it must name a program"));
    }
    if words.iter().any(|word| word.contains('\0')) {
        return Err(key.is("holds a NUL character; no program can be given one"));
    }
    Ok(())
}

fn environment(variables: &BTreeMap<String, String>, key: &Key) -> Result<(), Wrong> {
    let is_variable = |(name, value): (&String, &String)| {
        !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
    };
    if variables.iter().all(is_variable) {
        return Ok(());
    }
    Err(key.is("holds an empty name, a name with = or a NUL character"))
}

/// A pattern that compiles within bounds and has at least so many groups.
fn pattern(text: &str, key: &Key, groups: usize) -> Result<Regex, Wrong> {
    let compiled = regex::RegexBuilder::new(text).size_limit(MAX_PATTERN).build();
    let compiled = compiled.map_err(|error| {
        // The crate's message draws the pattern over lines; the last one says what is wrong.
        let message = error.to_string();
        let last = message.lines().last().unwrap_or_default().trim_start_matches("error: ");
        key.is(format!("is no regular expression: {last}"))
    })?;
    if compiled.is_match("") {
        return Err(key.is("matches everything, also nothing; say what must be there"));
    }
    if compiled.captures_len() <= groups {
        return Err(key.is(format!("needs {groups} group in parentheses: the part that is meant")));
    }
    Ok(compiled)
}

/// Whether `path` names a place in the guest: absolute or in the home, no `..`, no NUL, ≤ 512 bytes.
#[must_use]
pub fn is_guest_path(path: &str) -> bool {
    let rest = path.strip_prefix("~/").or_else(|| path.strip_prefix('/'));
    rest.is_some_and(|rest| {
        !rest.is_empty()
            && path.len() <= 512
            && !path.contains('\0')
            && rest.split('/').all(|part| part != ".." && part != "." && !part.is_empty())
    })
}
