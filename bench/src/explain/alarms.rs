//! False alarms of the image verifier: images of real tools, with nothing wrong in them.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result};
use serde_json::Value;

use super::runtimes;
use xtask::shell;

/// Which images are verified, and for which CPU.
const IMAGES: [&str; 2] = ["demo", runtimes::IMAGE];
const PROFILE: &str = "x86-64-v2";

/// The image with Node.js 20 and 22, Bun and the three CLIs, unless it is there.
pub fn build_image(anteroom: &Path, folder: &Path) -> Result<()> {
    let recipe = folder.join("runtimes.toml");
    std::fs::write(&recipe, runtimes::recipe()?)?;
    let mut command = Command::new(anteroom);
    command.args(["image", "build", "--no-verify"]).arg(recipe);
    shell::run(command.stdout(Stdio::null()))
}

/// How many components of them the verifier fails; each line of its reports is printed.
pub fn count(anteroom: &Path) -> Result<usize> {
    let mut alarms = 0;
    for image in IMAGES {
        eprintln!("verifying the image {image} for {PROFILE}");
        let output = Command::new(anteroom)
            .args(["image", "verify", image, "--cpu", PROFILE, "--json"])
            .stderr(Stdio::inherit())
            .output()
            .context("starting `anteroom image verify` failed")?;
        let report: Value = serde_json::from_slice(&output.stdout)
            .context("reading the verifier's report failed")?;
        let components = report["verifications"][0]["record"]["components"].as_array();
        for component in components.context("the verifier's report has no components")? {
            let verdict = component["verdict"].as_str().unwrap_or_default();
            alarms += usize::from(verdict != "passed");
            let (name, observed) = (&component["name"], &component["observed"]);
            println!(
                "{verdict:8} {image:9}{:24} {}",
                name.as_str().unwrap_or_default(),
                observed.as_str().unwrap_or_default()
            );
        }
    }
    Ok(alarms)
}
