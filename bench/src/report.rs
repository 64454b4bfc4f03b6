//! What the demo prints in the end.

use std::fmt::Write;
use std::path::PathBuf;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::provider::Saw;
use anteroom_testkit::end_user::Seen;

/// All that is known after one sign-in.
pub struct Outcome {
    /// The session as the API showed it last.
    pub status: Value,
    /// What the end user saw.
    pub seen: Seen,
    /// 0 when the image was cached.
    pub image_build_ms: u64,
    /// Where the sealed credential is, and its content.
    pub credential: Option<(PathBuf, Value)>,
    /// What the provider saw.
    pub provider: Saw,
    /// What was found on the machine afterwards.
    pub leftovers: Vec<String>,
    /// The key that opens the credential.
    pub identity_file: PathBuf,
    /// The host binary.
    pub anteroom: PathBuf,
}

impl Outcome {
    /// Whether all is as it should be.
    pub fn ok(&self) -> bool {
        self.status["reason"]["code"] == "completed"
            && self.credential_matches()
            && self.provider.online == Some(true)
            && self.leftovers.is_empty()
    }

    /// Why not.
    pub fn problem(&self) -> String {
        if self.status["reason"]["code"] != "completed" {
            let message = self.status["reason"]["message"].as_str().unwrap_or("without a reason");
            return format!("the session ended otherwise: {message}");
        }
        if !self.credential_matches() {
            return "the credential is not what the provider issued".to_owned();
        }
        if self.provider.online != Some(true) {
            return "the guest's browser takes itself for offline".to_owned();
        }
        format!("left over: {}", self.leftovers.join("; "))
    }

    /// Whether the opened credential holds the very tokens that the provider issued last.
    fn credential_matches(&self) -> bool {
        let (Some((_, credential)), Some(issued)) = (&self.credential, self.provider.issued.last())
        else {
            return false;
        };
        ["access_token", "refresh_token"].iter().all(|token| {
            credential[token].as_str().is_some_and(|value| {
                issued[format!("{token}_sha256")] == hex::encode(Sha256::digest(value))
            })
        })
    }

    /// The object that `--json` prints.
    pub fn json(&self) -> Value {
        let created = self.status["createdAt"].as_u64();
        let since =
            |at: Option<u64>| at.zip(created).map(|(at, created)| at.saturating_sub(created));
        json!({
            "ok": self.ok(),
            "driver": self.status["driver"],
            "accelerator": self.status["accelerator"],
            "warm": false,
            "image_build_ms": self.image_build_ms,
            "start_to_agent_ms": since(self.when("agent_connected")),
            "start_to_first_frame_ms": since(self.seen.first_frame),
            "start_to_ready_ms": since(self.seen.ready),
            "start_to_sealed_ms": since(self.when("credential_stored")),
            "credential_matches": self.credential_matches(),
            "navigator_online": self.provider.online,
            "hosts_reached": self.hosts("allowed"),
            "hosts_refused": self.hosts("refused"),
            "leftovers": self.leftovers,
        })
    }

    /// The host's time of the first timeline entry of a kind.
    fn when(&self, kind: &str) -> Option<u64> {
        self.status["timeline"].as_array()?.iter().find(|entry| entry["kind"] == kind)?["at"]
            .as_u64()
    }

    fn hosts(&self, verdict: &str) -> Vec<String> {
        let connections = self.status["egress"].as_array().cloned().unwrap_or_default();
        let mut hosts: Vec<String> = connections
            .iter()
            .filter(|c| c["verdict"].as_str().is_some_and(|v| v.starts_with(verdict)))
            .filter_map(|c| c["host"].as_str().map(str::to_owned))
            .collect();
        hosts.sort();
        hosts.dedup();
        hosts
    }

    /// The timeline and what remains, for a terminal.
    pub fn for_an_end_user(&self) -> String {
        let mut text = String::from("\nWhat happened:\n");
        let created = self.status["createdAt"].as_u64().unwrap_or(0);
        for entry in self.status["timeline"].as_array().into_iter().flatten() {
            let at = entry["at"].as_u64().unwrap_or(created).saturating_sub(created);
            let message = entry["message"].as_str().unwrap_or_default();
            let _ = writeln!(text, "  {:>6}.{:01} s  {message}", at / 1000, at % 1000 / 100);
        }
        let hosts = self.hosts("allowed");
        if !hosts.is_empty() {
            let _ = writeln!(text, "\nHosts reached: {}", hosts.join(", "));
        }
        if let Some((path, _)) = &self.credential {
            let (controller, key) =
                (path.with_file_name("controller.pem"), self.identity_file.display());
            let (path, controller) = (path.display(), controller.display());
            let anteroom = self.anteroom.display();
            let _ = writeln!(
                text,
                "\nThe sealed credential: {path}\nPut it into a home:    {anteroom} credentials open --home FOLDER -i {key} --controller-key {controller} {path}"
            );
        }
        if self.leftovers.is_empty() {
            text.push_str("\nThe VM, its runner, its sockets and files are gone; looking found nothing left.\n");
        } else {
            let _ = writeln!(text, "\nLeft over: {}", self.leftovers.join("; "));
        }
        text
    }
}

/// Medians and spread of the numbers in several results.
pub fn medians(results: &[Value]) -> Value {
    let figure = |name: &str| {
        let mut values: Vec<u64> = results.iter().filter_map(|r| r[name].as_u64()).collect();
        values.sort_unstable();
        let at = |index: usize| values.get(index).copied();
        json!({ "median": at(values.len() / 2), "min": at(0), "max": values.last() })
    };
    json!({
        "runs": results.len(),
        "ok": results.iter().filter(|r| r["ok"] == true).count(),
        "start_to_agent_ms": figure("start_to_agent_ms"),
        "start_to_first_frame_ms": figure("start_to_first_frame_ms"),
        "start_to_ready_ms": figure("start_to_ready_ms"),
        "start_to_sealed_ms": figure("start_to_sealed_ms"),
        "raw_page_ms": figure("raw_page_ms"),
        "ready_to_raw": ratio(results),
    })
}

/// The time to the sign-in page over the raw VM's, of the medians.
fn ratio(results: &[Value]) -> Option<f64> {
    let median = |name: &str| {
        let mut values: Vec<f64> = results.iter().filter_map(|r| r[name].as_f64()).collect();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    };
    let ratio = median("start_to_ready_ms")? / median("raw_page_ms")?;
    Some((ratio * 100.0).round() / 100.0)
}
