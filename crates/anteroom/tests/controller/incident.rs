//! The incident that Anteroom comes from, replayed with real Node.js in real VMs under a CPU without
//! AVX and SSE4: what died then with no evidence is named by the gate and by the supervisor.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use serde_json::Value;

use crate::support::{Server, Setup, eventually_within};

const ANTEROOM: &str = env!("CARGO_BIN_EXE_anteroom");
const HERE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/incident");
const CPU: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/examples/no-avx-no-sse4.json");

/// The recipe and all it names in a folder.
fn recipe_in(folder: &Path) -> PathBuf {
    let copied = Command::new("cp").arg("-r").arg(HERE).arg(folder).status().unwrap();
    assert!(copied.success());
    let recipe = folder.join("incident");
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    std::fs::copy(root.join("images/files/openbox.xml"), recipe.join("openbox.xml")).unwrap();
    let built = Command::new("gcc")
        .args(["-nostdlib", "-static", "-Wl,--build-id", "-o"])
        .args([recipe.join("transcoder"), recipe.join("transcoder.S")])
        .status()
        .unwrap();
    assert!(built.success());
    recipe.join("incident.toml")
}

/// A component's verdict, what was observed, and the whole of it.
fn component<'a>(record: &'a Value, name: &str) -> (&'a str, &'a str, &'a Value) {
    let components = record["components"].as_array().unwrap();
    let found = components.iter().find(|component| component["name"] == name);
    let found = found.unwrap_or_else(|| panic!("{name} in {record}"));
    (found["verdict"].as_str().unwrap(), found["observed"].as_str().unwrap(), found)
}

fn serve(images: &Path, options: &[&str]) -> Server {
    let mut setup = Setup::machines().option("--images-dir").option(images.to_str().unwrap());
    for option in ["--cpu", CPU].iter().chain(options) {
        setup = setup.option(option);
    }
    setup.start_with_cli("exec sleep 1000", 600)
}

/// What is said of a service's end in the timeline.
fn said_of(session: &Value, service: &str) -> String {
    let entries = session["timeline"].as_array().unwrap();
    let begins = format!("the service {service} ");
    let of_it = |entry: &&Value| {
        !entry["explanation"].is_null() && entry["message"].as_str().unwrap().starts_with(&begins)
    };
    entries.iter().find(of_it).map_or(String::new(), |e| e["message"].as_str().unwrap().to_owned())
}

/// The gate says it of the image, when that is built.
fn before_use(building: &Output) {
    let said = String::from_utf8_lossy(&building.stderr);
    assert!(!building.status.success(), "the gate lets no such image pass");
    assert!(said.contains("failed verification for no-avx-no-sse4"), "{said}");

    // Before use: the gate names both, and lets Node.js 20 alone, which was accused then.
    let built: Value = serde_json::from_slice(&building.stdout).unwrap();
    let record = &built["verifications"][0]["record"];
    for name in ["program node-20", "service master-controller", "browser", "media path"] {
        let (verdict, observed, _) = component(record, name);
        assert_eq!(verdict, "passed", "{name}: {observed}");
    }
    let (verdict, observed, transcoder) = component(record, "service transcoder");
    assert_eq!(verdict, "failed");
    assert!(
        observed.starts_with(
            "the service transcoder crashed with an illegal instruction: `vpmovzxbd ymm0, [rsp]` at \
             transcoder+0x1000 needs AVX2; this VM's CPU profile no-avx-no-sse4 lacks AVX2"
        ),
        "{observed}"
    );
    assert!(transcoder["advice"].as_str().unwrap().contains("AVX2"), "{transcoder}");
    let (verdict, observed, _) = component(record, "service stream-server");
    assert_eq!(verdict, "failed");
    assert!(observed.contains("SyntaxError: Unexpected token '.'"), "{observed}");
    let findings = record["inventory"]["findings"].as_array().unwrap();
    let finding = |path: &str| findings.iter().find(|f| f["path"] == path).unwrap();
    assert_eq!(finding("/srv/transcoder")["reached"], "reached");
    assert_eq!(finding("/srv/transcoder")["chooses"], Value::Null);
    assert_eq!(finding("/opt/node-20/bin/node")["reached"], "opened_only");
}

#[test]
fn what_died_without_evidence_is_named_before_use_and_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let (images, recipe) = (folder.path().join("images"), recipe_in(folder.path()));
    let images_dir = images.to_str().unwrap();
    let building = Command::new(ANTEROOM)
        .args(["image", "build", recipe.to_str().unwrap(), "--json", "--cpu", CPU])
        .args(["--images-dir", images_dir])
        .output()
        .unwrap();
    before_use(&building);

    // It is refused, with the reason.
    let server = serve(&images, &[]);
    let refused = server.post("/api/auth/start", r#"{"provider":"demo"}"#);
    assert_eq!(refused.body["code"], "image_not_verified", "{}", refused.body);
    let detail = refused.body["detail"].as_str().unwrap();
    assert!(detail.contains("SyntaxError") || detail.contains("vpmovzxbd"), "{detail}");
    drop(server);

    // In use, against that advice: a server that ends by itself is looked at for longer than 45 s.
    let webrtc = folder.path().join("webrtc.toml");
    std::fs::write(
        &webrtc,
        "[[services]]\nname = \"webrtc-server\"\nready = { port = 8082 }\nrestarts = 0\n\
         command = [\"/opt/node-20/bin/node\", \"/srv/webrtc-server.js\"]\n",
    )
    .unwrap();
    let options = ["--allow-unverified-images", "--services", webrtc.to_str().unwrap()];
    let server = serve(&images, &options);
    let id = server.started();
    eventually_within(Duration::from_secs(180), "the session ended", || {
        let session = server.get(&format!("/api/auth/session/{id}")).body;
        (session["state"] == "ended").then_some(())
    });
    let session = server.torn_down(&id);
    assert_eq!(session["reason"]["code"], "service_failed", "{session}");
    let why = session["reason"]["message"].as_str().unwrap();
    // A minute by its own clock, and what Node.js takes to start: longer than anybody looked then.
    let lived = why.split_once("webrtc-server exited with code 1 after ").and_then(|(_, rest)| {
        let (seconds, _) = rest.split_once(" s; it reported")?;
        seconds.parse::<f64>().ok()
    });
    assert!(lived.is_some_and(|seconds| seconds >= 60.0), "{why}");
    assert!(why.contains("no offer within 60 s"), "{why}");
    assert!(said_of(&session, "transcoder").contains("needs AVX2"), "{session}");
    assert!(said_of(&session, "stream-server").contains("SyntaxError"), "{session}");
    drop(server);

    // One that can never run ends the session before anybody is asked to sign in.
    let needed = folder.path().join("needed.toml");
    std::fs::write(
        &needed,
        "[[services]]\nname = \"needed-stream-server\"\nready = { port = 8081 }\n\
         command = [\"/opt/node-12/bin/node\", \"/srv/stream-server.js\"]\n",
    )
    .unwrap();
    let options = ["--allow-unverified-images", "--services", needed.to_str().unwrap()];
    let server = serve(&images, &options);
    let session = server.torn_down(&server.started());
    assert_eq!(session["reason"]["code"], "service_failed", "{session}");
    let why = session["reason"]["message"].as_str().unwrap();
    assert!(why.contains("needed-stream-server") && why.contains("SyntaxError"), "{why}");
    assert!(why.contains("it will not be restarted, because that would not help"), "{why}");
    let kinds: Vec<&str> =
        session["timeline"].as_array().unwrap().iter().filter_map(|e| e["kind"].as_str()).collect();
    assert!(!kinds.contains(&"sign_in_url"), "{kinds:?}");
}
