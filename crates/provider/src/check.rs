//! What a provider file may not say.

mod egress;

use std::collections::BTreeMap;
use std::fmt;

use anteroom_session::Method;

use crate::terms::is_date;
use crate::{
    CredentialFile, FileFormat, KeyringSecret, PrintedSecret, Provider, SignInMethod, install,
};

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

    fn at(&self, index: usize) -> Self {
        self.with(Step::Item(index))
    }

    fn get(&self, name: &'static str) -> Self {
        self.with(Step::Name(name))
    }

    fn with(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
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

/// Finds the values that cannot be.
pub fn check(provider: &Provider) -> Vec<Wrong> {
    let mut wrong = Mistakes::default();
    if provider.name.trim().is_empty() {
        wrong.add(&Key::of("name"), "is empty; it is shown to the end user");
    }
    // As a recipe's (crates/image).
    let of_image = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let image = provider.image.as_bytes();
    if !(1..=64).contains(&image.len()) || !image.iter().copied().all(of_image) {
        let problem =
            format!("is {:?}, which is not a valid image name: use a-z, 0-9 and -", provider.image);
        wrong.add(&Key::of("image"), problem);
    }
    if provider.login.is_empty() {
        wrong.add(&Key::of("login"), "is empty; it must name at least one way to sign in");
    }
    for (n, login) in provider.login.iter().enumerate() {
        let key = Key::of("login").at(n);
        if provider.login[..n].iter().any(|other| other.method == login.method) {
            let method = login.method;
            wrong.add(&key.get("method"), format!("is {method}, which is used twice"));
        }
        wrong.login(login, &key);
    }
    for (n, screen) in provider.screens.iter().enumerate() {
        wrong.pattern(&screen.screen, &Key::of("screens").at(n).get("screen"), 0);
    }
    for (n, page) in provider.pages.iter().enumerate() {
        wrong.pattern(&page.title, &Key::of("pages").at(n).get("title"), 0);
    }
    wrong.terms(provider);
    wrong.credential(provider);
    wrong.egress(&provider.egress);
    wrong.injected(provider);
    wrong.install(&provider.install);
    wrong.0
}

/// What was found so far.
#[derive(Default)]
struct Mistakes(Vec<Wrong>);

impl Mistakes {
    fn add(&mut self, key: &Key, problem: impl Into<String>) {
        self.0.push(Wrong { key: key.clone(), problem: problem.into() });
    }

    fn login(&mut self, login: &SignInMethod, key: &Key) {
        let key = |name| key.get(name);
        if login.instructions.trim().is_empty() {
            self.add(&key("instructions"), "is empty; it is shown to the end user");
        }
        self.command(&login.command, &key("command"));
        self.environment(&login.env, &key("env"));
        if !(1..=3600).contains(&login.url_timeout_seconds) {
            self.add(&key("url_timeout_seconds"), "must be 1 to 3600");
        }
        if login.gives_up_after_seconds.is_some_and(|seconds| !(1..=86_400).contains(&seconds)) {
            self.add(&key("gives_up_after_seconds"), "must be 1 to 86400");
        }
        if !(50..=10_000).contains(&login.quiet_ms) {
            self.add(&key("quiet_ms"), "must be 50 to 10000");
        }
        self.pattern(&login.url_pattern, &key("url_pattern"), 0);
        self.only_for(Method::DeviceCode, login, "code_pattern", &login.code_pattern, &key);
        self.only_for(Method::PasteCode, login, "code_prompt", &login.code_prompt, &key);
        self.only_for(Method::PasteCode, login, "code_form", &login.code_form, &key);
        match login.method {
            Method::DeviceCode if login.code_pattern.is_none() => self.add(
                &key("code_pattern"),
                "is missing; device_code needs a pattern whose first group is the code",
            ),
            Method::PasteCode if login.code_prompt.is_none() => self.add(
                &key("code_prompt"),
                "is missing; paste_code needs a pattern for the screen on which the tool accepts the code",
            ),
            _ => {}
        }
        if login.callback_ports.contains(&0) || login.callback_ports.len() > 16 {
            self.add(&key("callback_ports"), "must be at most 16 ports from 1 to 65535");
        }
        for (n, answer) in login.answers.iter().enumerate() {
            let key = key("answers").at(n);
            self.pattern(&answer.screen, &key.get("screen"), 0);
            if answer.keys.is_empty() || answer.keys.len() > 1024 {
                self.add(&key.get("type"), "must be 1 to 1024 bytes");
            }
            if answer.keys.contains("\\r") || answer.keys.contains("\\u") {
                let problem =
                    "contains a backslash; write it in double quotes so that \\r is Enter";
                self.add(&key.get("type"), problem);
            }
            if !(1..=100).contains(&answer.times) {
                self.add(&key.get("times"), "must be 1 to 100");
            }
        }
    }

    /// A pattern that one method alone has a use for; a device's code is its first group.
    fn only_for(
        &mut self,
        method: Method,
        login: &SignInMethod,
        name: &'static str,
        pattern: &Option<String>,
        key: &dyn Fn(&'static str) -> Key,
    ) {
        match pattern {
            Some(_) if login.method != method => {
                self.add(&key(name), format!("is only for the method {method}"));
            }
            Some(pattern) => {
                self.pattern(pattern, &key(name), usize::from(method == Method::DeviceCode));
            }
            None => {}
        }
    }

    fn terms(&mut self, provider: &Provider) {
        let Some(terms) = &provider.terms else { return };
        let key = |name| Key::of("terms").get(name);
        if !terms.page.starts_with("https://") || terms.page.contains(char::is_whitespace) {
            self.add(&key("page"), "must be the https:// address of the page that was read");
        }
        if !is_date(&terms.read) {
            self.add(&key("read"), "must be the date on which it was read, such as 2026-11-27");
        }
    }

    fn credential(&mut self, provider: &Provider) {
        let credential = &provider.credential;
        let (files, secrets) = (&credential.files, &credential.keyring);
        let printed = &credential.printed;
        let key = |name| Key::of("credential").get(name);
        let none = files.is_empty() && secrets.is_empty() && printed.is_empty();
        if files.len() > 16 || secrets.len() > 16 || printed.len() > 4 || none {
            let problem = "must name 1 to 16 files, or [[credential.keyring]] secrets, or at most 4 \
                           [[credential.printed]] secrets";
            self.add(&key("files"), problem);
            return;
        }
        let optional = files.iter().map(|file| file.optional);
        let optional = optional.chain(secrets.iter().map(|secret| secret.optional));
        if printed.is_empty() && optional.clone().all(|optional| optional) {
            self.add(&key("files"), "are all optional; at least one must be required");
        }
        for (n, file) in files.iter().enumerate() {
            let before = files[..n].iter().map(|other| &other.path);
            self.credential_file(file, before, &key("files").at(n));
        }
        for (n, secret) in secrets.iter().enumerate() {
            self.keyring_secret(secret, &key("keyring").at(n));
        }
        for (n, secret) in printed.iter().enumerate() {
            let before = files.iter().map(|file| &file.path);
            let before = before.chain(printed[..n].iter().map(|other| &other.path));
            self.printed(secret, before, &key("printed").at(n));
        }
        if let Some(screen) = &credential.screen {
            self.pattern(screen, &Key::of("credential").get("screen"), 0);
        }
        if let Some(status) = &credential.status {
            let key = |name| Key::of("credential").get("status").get(name);
            self.command(&status.command, &key("command"));
            self.environment(&status.env, &key("env"));
            self.pattern(&status.signed_in, &key("signed_in"), 0);
        }
    }

    fn credential_file<'a>(
        &mut self,
        file: &CredentialFile,
        before: impl Iterator<Item = &'a String>,
        key: &Key,
    ) {
        let key = |name| key.get(name);
        // A bundle is restored into a home.
        if !is_guest_path(&file.path) || !file.path.starts_with("~/") {
            self.add(&key("path"), "must start with ~/ and not contain ..");
        }
        if file.path == "~/.anteroom" || file.path.starts_with("~/.anteroom/") {
            self.add(&key("path"), "is in ~/.anteroom, which is reserved");
        }
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        if file.path.matches('*').count() > 1 || folder.contains('*') {
            self.add(&key("path"), "may have at most one *, in its last component");
        }
        if file.path.ends_with("/*") {
            self.add(
                &key("path"),
                "would match every file in a folder; add what the names have in common",
            );
        }
        self.apart(&file.path, before, &key("path"));
        if !(1..=1024 * 1024).contains(&file.max_bytes) {
            self.add(&key("max_bytes"), "must be 1 to 1048576");
        }
        match file.format {
            FileFormat::Binary if file.required.is_empty() => {}
            FileFormat::Binary => {
                self.add(&key("required"), "is only for json and text; binary files are not read");
            }
            _ if file.required.is_empty() && !file.optional => {
                self.add(&key("required"), "is empty; it must say what makes the file complete");
            }
            FileFormat::Json if file.required.iter().any(|one| !one.starts_with('/')) => {
                self.add(
                    &key("required"),
                    "contains an invalid JSON pointer; pointers start with /",
                );
            }
            FileFormat::Json => {}
            FileFormat::Text => {
                for required in &file.required {
                    self.pattern(required, &key("required"), 0);
                }
            }
        }
    }

    fn printed<'a>(
        &mut self,
        secret: &PrintedSecret,
        before: impl Iterator<Item = &'a String>,
        key: &Key,
    ) {
        let key = |name| key.get(name);
        let own = secret.path.starts_with("~/.anteroom/");
        if !is_guest_path(&secret.path) || !secret.path.starts_with("~/") || own {
            self.add(&key("path"), "must start with ~/, not contain .., and not be in ~/.anteroom");
        }
        if secret.path.contains('*') {
            self.add(&key("path"), "contains a *; it must be the file's exact name");
        }
        self.apart(&secret.path, before, &key("path"));
        let is_plain = secret.begins.bytes().all(|byte| byte.is_ascii_graphic());
        if !(3..=64).contains(&secret.begins.len()) || !is_plain {
            self.add(
                &key("begins"),
                "must be the 3 to 64 characters that the secret always starts with",
            );
        }
        self.pattern(&secret.rest, &key("rest"), 0);
    }

    fn keyring_secret(&mut self, secret: &KeyringSecret, key: &Key) {
        let key = |name| key.get(name);
        if secret.label.trim().is_empty() || secret.label.contains(char::is_control) {
            self.add(&key("label"), "must be one line of text, as the keyring shows it");
        }
        if secret.attributes.keys().any(String::is_empty) || secret.attributes.len() > 16 {
            self.add(&key("attributes"), "must be at most 16 attributes, each with a name");
        }
        if secret.attributes.values().all(|value| value == "*") {
            let problem = "must have at least one value that is not *, or it matches any secret";
            self.add(&key("attributes"), problem);
        }
        if !(1..=1024 * 1024).contains(&secret.max_bytes) {
            self.add(&key("max_bytes"), "must be 1 to 1048576");
        }
    }

    fn injected(&mut self, provider: &Provider) {
        for (n, file) in provider.files.iter().enumerate() {
            let key = |name| Key::of("files").at(n).get(name);
            if let Some(problem) = guest_path_problem(&file.path) {
                self.add(&key("path"), problem);
            }
            let before = provider.files[..n].iter().map(|other| &other.path);
            self.apart(&file.path, before, &key("path"));
            if !matches!(file.owner.as_str(), "root" | "person") {
                self.add(&key("owner"), "must be root or person");
            }
            if file.mode > 0o777 {
                self.add(&key("mode"), "must be at most 0o777");
            }
            if file.content.len() > 1024 * 1024 {
                self.add(&key("content"), "must be at most 1 MiB");
            }
        }
    }

    /// A path is not another's, nor a file where another has a folder; one mistake for each.
    fn apart<'a>(&mut self, path: &str, others: impl Iterator<Item = &'a String>, key: &Key) {
        let within = |path: &str, folder: &str| {
            path.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'))
        };
        if !is_guest_path(path) {
            return;
        }
        let clash = others
            .filter(|other| is_guest_path(other))
            .find(|other| path == *other || within(path, other) || within(other, path));
        match clash {
            Some(other) if path == other => self.add(key, "is named twice"),
            Some(other) => {
                self.add(key, format!("and {other} conflict: one of them would be a folder"));
            }
            None => {}
        }
    }

    fn install(&mut self, install: &install::Install) {
        let key = |name| Key::of("install").get(name);
        for (n, text) in install.packages.iter().enumerate() {
            if install::DebianPackage::parse(text).is_none() {
                let problem = format!(
                    "{text:?} is not name, name=version or name=version@sha256:DIGEST, with the digest as 64 characters of 0-9 and a-f as `apt-cache show` prints it"
                );
                self.add(&key("packages").at(n), problem);
            }
        }
        for (n, package) in install.npm.iter().enumerate() {
            if let Err(problem) = package.check() {
                self.add(&key("npm").at(n), problem);
            }
        }
        for bad in install.pypi.iter().filter(|text| !install::is_pypi_package(text)) {
            let problem = format!(
                "contains {bad:?}, which is not name==1.2.3 --hash=sha256:DIGEST, with each digest as 64 characters of 0-9 and a-f as `pip hash WHEEL` prints it"
            );
            self.add(&key("pypi"), problem);
        }
        for (n, archive) in install.archives.iter().enumerate() {
            if !install::is_sha256(&archive.sha256) {
                let key = key("archives").at(n).get("sha256");
                self.add(
                    &key,
                    "must be 64 characters of 0-9 and a-f, as `sha256sum` of the archive prints it",
                );
            }
        }
        if let Some(smoke) = &install.smoke {
            self.command(&smoke.command, &key("smoke").get("command"));
        }
    }

    /// No program can be started with a NUL, and a guest would say so much later.
    fn command(&mut self, argv: &[String], key: &Key) {
        if argv.first().is_none_or(String::is_empty) {
            self.add(key, "is empty; it must name a program");
        }
        if argv.iter().any(|argument| argument.contains('\0')) {
            self.add(key, "contains a NUL character, which cannot be passed to a program");
        }
    }

    fn environment(&mut self, variables: &BTreeMap<String, String>, key: &Key) {
        let is_variable = |(name, value): (&String, &String)| {
            !name.is_empty() && !name.contains(['=', '\0']) && !value.contains('\0')
        };
        if !variables.iter().all(is_variable) {
            self.add(key, "contains an empty name, a name with =, or a NUL character");
        }
    }

    /// A pattern that compiles within bounds and has at least so many groups.
    fn pattern(&mut self, text: &str, key: &Key, groups: usize) {
        let compiled = regex::RegexBuilder::new(text).size_limit(MAX_PATTERN).build();
        match compiled {
            Err(error) => {
                // The crate's message draws the pattern over lines; the last one says what is wrong.
                let message = error.to_string();
                let last = message.lines().last().unwrap_or_default();
                let last = last.trim_start_matches("error: ");
                self.add(key, format!("is not a valid regular expression: {last}"));
            }
            Ok(pattern) if pattern.is_match("") => {
                self.add(key, "also matches an empty text; say what must be there");
            }
            Ok(pattern) if pattern.captures_len() <= groups => {
                let problem =
                    format!("needs {groups} group in parentheses for the part that is meant");
                self.add(key, problem);
            }
            Ok(_) => {}
        }
    }
}

/// Whether `path` names a place in the guest: absolute or in the home, no `..`, no NUL, ≤ 512 bytes.
#[must_use]
pub fn is_guest_path(path: &str) -> bool {
    guest_path_problem(path).is_none()
}

/// What is wrong with a path in the guest, as "it …"; nothing where it is valid.
#[must_use]
pub fn guest_path_problem(path: &str) -> Option<&'static str> {
    let Some(rest) = path.strip_prefix("~/").or_else(|| path.strip_prefix('/')) else {
        return Some("must be absolute or start with ~/");
    };
    if path.len() > 512 {
        return Some("may have at most 512 bytes");
    }
    if path.contains('\0') {
        return Some("may not contain a NUL character");
    }
    if rest.split('/').any(|part| part == ".." || part == ".") {
        return Some("may not contain the parts . or ..");
    }
    let names_a_file = rest.split('/').all(|part| !part.is_empty());
    (!names_a_file).then_some("must name a file, with one / between its parts and none at its end")
}
