//! The CLI's own word on a credential: asked in a home that holds nothing else, before it is sealed.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anteroom_guest_protocol::StatusSpec;
use anyhow::{Context, Result, bail};
use nix::sys::signal::Signal;
use regex::Regex;

use super::bundle::BundledFile;
use crate::report::Reporter;
use crate::room::Room;
use crate::supervise::{self, Reaper};

/// How long the CLI may take: a large one starts for a quarter of a minute under emulation.
const ANSWER: Duration = Duration::from_secs(90);

/// A home for a moment.
struct Home(PathBuf);

impl Drop for Home {
    fn drop(&mut self) {
        // What stays behind goes with the room.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Asks the CLI; the line that says that it is signed in.
pub async fn ask(
    spec: &StatusSpec,
    files: &[BundledFile],
    room: &Room,
    reaper: &Reaper,
    reporter: &Reporter,
) -> Result<String> {
    let signed_in = Regex::new(&spec.signed_in).context("signed_in is no regular expression")?;
    let [program, arguments @ ..] = spec.command.as_slice() else { bail!("it names no program") };
    let home = make_home(files, room).context("making a home for it failed")?;
    let mut command = room.command(program);
    command.args(arguments).env("HOME", &home.0).envs(&spec.env).current_dir(&home.0);
    let mut process = supervise::start("status", command, reaper, reporter)?;
    let ended = tokio::time::timeout(ANSWER, process.died()).await;
    if ended.is_err() {
        process.signal(Signal::SIGKILL);
        process.died().await;
        bail!("`{}` did not end within {} s", spec.command.join(" "), ANSWER.as_secs());
    }
    let lines = process.last_lines();
    match signed_in.find(&lines.join("\n")) {
        Some(found) => Ok(found.as_str().lines().next().unwrap_or_default().trim().to_owned()),
        None => bail!(
            "`{}` does not call it signed in; it says: {}",
            spec.command.join(" "),
            lines.join(" / ")
        ),
    }
}

/// A home with these files and nothing else.
fn make_home(files: &[BundledFile], room: &Room) -> Result<Home> {
    let home = Home(room.runtime.join("status-home"));
    make_folder(&home.0, room)?;
    for file in files {
        let path = home.0.join(&file.path);
        let folders: Vec<&Path> =
            path.ancestors().skip(1).take_while(|folder| **folder != home.0).collect();
        for folder in folders.into_iter().rev() {
            make_folder(folder, room)?;
        }
        std::fs::write(&path, &file.content)?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(file.mode))?;
        room.give_to_person(&path)?;
    }
    Ok(home)
}

fn make_folder(path: &Path, room: &Room) -> Result<()> {
    std::fs::create_dir_all(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    Ok(room.give_to_person(path)?)
}
