//! What a guest gets to know of its sandbox and of its sign-in: the provider file in the guest's terms.

use std::collections::BTreeSet;

use anteroom_guest_protocol::{
    BeginSignIn, CliSpec, Completeness, ConfigureSandbox, CredentialFileSpec, CredentialSpec,
    KeyringSpec, PrintedSpec, Purpose, StatusSpec, Wake,
};
use anteroom_guest_session::{CloneOf, entropy_base64, unix_ms};
use anteroom_provider::{FileFormat, KeyringSecret, PrintedSecret, Provider};
use anteroom_runner_protocol::SignInConfig;

use super::config::RunnerConfig;

/// What the sandbox is, with the time as it is. Of the sign-in it takes what a desktop cannot change
/// once it runs: whom its browser trusts, and its network.
pub fn sandbox_of(config: &RunnerConfig) -> ConfigureSandbox {
    let RunnerConfig { sandbox, sign_in, candidates: _ } = config;
    let egress = &sign_in.provider.egress;
    ConfigureSandbox {
        now_unix_ms: unix_ms(),
        entropy_base64: entropy_base64(),
        browser_ip: sign_in.browser_ip,
        screen: sandbox.screen,
        purpose: Purpose::SignIn { desktop: anteroom_sign_in::desktop(sign_in.method) },
        egress_ports: egress_ports(&sign_in.provider),
        extra_ca_pem: egress.extra_ca_pem.clone(),
        services: sandbox.services.clone(),
    }
}

/// What makes a clone of a template this session's, with the time as it is.
pub fn wake_of(config: &RunnerConfig, clone: &CloneOf) -> Wake {
    Wake {
        wake_token: clone.wake_token.clone(),
        now_unix_ms: unix_ms(),
        entropy_base64: entropy_base64(),
        browser_ip: config.sign_in.browser_ip,
    }
}

/// Who signs in to what.
pub fn sign_in_of(config: &SignInConfig) -> BeginSignIn {
    let login = config.login();
    let credential = &config.provider.credential;
    let files = credential.files.iter().map(|file| CredentialFileSpec {
        path: file.path.trim_start_matches("~/").to_owned(),
        complete: match file.format {
            FileFormat::Json => Completeness::Json { pointers: file.required.clone() },
            FileFormat::Text => Completeness::Text { patterns: file.required.clone() },
            FileFormat::Binary => Completeness::Binary {},
        },
        optional: file.optional,
        max_bytes: file.max_bytes,
    });
    let status = credential.status.as_ref().map(|status| StatusSpec {
        command: status.command.clone(),
        env: status.env.clone(),
        signed_in: status.signed_in.clone(),
    });
    BeginSignIn {
        preferences: config.preferences.clone(),
        cli: CliSpec {
            command: login.command.clone(),
            env: login.env.clone(),
            callback_ports: login.callback_ports.clone(),
        },
        credential: CredentialSpec {
            keyring: credential.keyring.iter().map(keyring_spec).collect(),
            files: files.collect(),
            printed: credential.printed.iter().map(printed_spec).collect(),
            awaits_screen: credential.screen.is_some(),
            status,
        },
        recipient: config.recipient.clone(),
    }
}

fn keyring_spec(secret: &KeyringSecret) -> KeyringSpec {
    KeyringSpec {
        attributes: secret.attributes.clone(),
        optional: secret.optional,
        max_bytes: secret.max_bytes,
    }
}

fn printed_spec(secret: &PrintedSecret) -> PrintedSpec {
    PrintedSpec {
        path: secret.path.trim_start_matches("~/").to_owned(),
        begins: secret.begins.clone(),
        rest: secret.rest.clone(),
    }
}

/// TCP ports that a provider's programs may reach: the web's, and those that its list names.
pub fn egress_ports(provider: &Provider) -> Vec<u16> {
    let named =
        provider.egress.allow.iter().filter_map(|host| host.rsplit_once(':')?.1.parse().ok());
    let ports: BTreeSet<u16> = named.chain([80, 443]).collect();
    ports.into_iter().collect()
}
