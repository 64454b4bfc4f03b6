//! What sessions, templates and clones that wait take of the machine's memory, for people.

use serde_json::Value;

use super::table::table;
use crate::counted::counted;

const UNKNOWN: &str = "unknown";

/// A line for each session, one for all, one for each template, and one for all clones that wait, if any do.
pub fn lines(memory: &Value) -> String {
    let sessions = memory["sessions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let row = |session: &Value| {
        [
            text(session, "sessionId").to_owned(),
            text(session, "provider").to_owned(),
            text(session, "state").to_owned(),
            mib(&session["privateBytes"]),
            mib(&session["sharedBytes"]),
            mib(&session["reservedBytes"]),
        ]
    };
    let count = counted(sessions.len() as u64, "session", "sessions");
    let known = |field: &str| sessions.iter().filter_map(|session| session[field].as_u64()).sum();
    let has_all = |field: &str| sessions.iter().all(|session| session[field].is_u64());
    let total = |field: &str| {
        let sum: u64 = known(field);
        let at_least = if has_all(field) { "" } else { "at least " };
        format!("{at_least}{} MiB", sum >> 20)
    };
    let rows = sessions.iter().map(row);
    let mut lines = table(["SESSION", "PROVIDER", "STATE", "PRIVATE", "SHARED", "RESERVED"], rows);
    lines.push_str(&format!(
        "\n{count}: {} private; {} of {} reserved\n",
        total("privateBytes"),
        mib(&memory["reservedBytes"]),
        mib(&memory["budgetBytes"]),
    ));
    for template in memory["templates"].as_array().into_iter().flatten() {
        let clones =
            counted(template["clones"].as_u64().unwrap_or_default(), "session", "sessions");
        let size = mib(&template["bytes"]);
        lines.push_str(&format!("template {}: {size}, shared by {clones}\n", text(template, "id")));
    }
    let waiting = memory["waitingClones"].as_array().map(Vec::as_slice).unwrap_or_default();
    if !waiting.is_empty() {
        let clones = counted(waiting.len() as u64, "waiting clone", "waiting clones");
        let private =
            waiting.iter().filter_map(|clone| clone["privateBytes"].as_u64()).sum::<u64>();
        lines.push_str(&format!("{clones}: {} MiB private\n", private >> 20));
    }
    lines
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn mib(bytes: &Value) -> String {
    bytes.as_u64().map_or_else(|| UNKNOWN.to_owned(), |bytes| format!("{} MiB", bytes >> 20))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_not_known_is_said_and_not_counted_as_nothing() {
        let session = |id: &str, private: Value| {
            json!({
                "sessionId": id, "provider": "demo", "state": "booting", "privateBytes": private,
                "sharedBytes": private, "reservedBytes": 384 * MIB,
            })
        };
        let memory = json!({
            "budgetBytes": 4096 * MIB, "reservedBytes": 768 * MIB,
            "sessions": [session("a", json!(90 * MIB)), session("b", Value::Null)],
            "templates": [{ "id": "t", "bytes": 650 * MIB, "clones": 1 }],
            "waitingClones": [
                { "template": "t", "privateBytes": 40 * MIB, "sharedBytes": 600 * MIB },
                { "template": "t", "privateBytes": 31 * MIB, "sharedBytes": 600 * MIB },
            ],
        });
        let expected = [
            "SESSION  PROVIDER  STATE    PRIVATE  SHARED   RESERVED\n",
            "a        demo      booting  90 MiB   90 MiB   384 MiB\n",
            "b        demo      booting  unknown  unknown  384 MiB\n",
            "\n",
            "2 sessions: at least 90 MiB private; 768 MiB of 4096 MiB reserved\n",
            "template t: 650 MiB, shared by 1 session\n",
            "2 waiting clones: 71 MiB private\n",
        ];
        assert_eq!(lines(&memory), expected.concat());
    }

    #[test]
    fn no_sessions_take_nothing() {
        let memory = json!({ "budgetBytes": MIB, "reservedBytes": 0, "sessions": [], "templates": [], "waitingClones": [] });
        assert!(lines(&memory).ends_with("\n0 sessions: 0 MiB private; 0 MiB of 1 MiB reserved\n"));
    }
}
