//! A controller of a command's own, for as long as the command runs: its state is in a folder that goes
//! with it.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anteroom_private::quoted;
use anyhow::{Context, Result, bail};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::client::Client;
use super::driver::Driver;
use super::folders::ImagesDir;

/// How long it may take to be ready, and to end.
const READY: Duration = Duration::from_secs(30);
const END: Duration = Duration::from_secs(30);

/// Its sandboxes.
#[derive(clap::Args)]
pub struct Sandboxes {
    /// What boots the sandbox.
    #[arg(long, value_enum, default_value = "qemu")]
    driver: Driver,
    #[command(flatten)]
    images: ImagesDir,
}

/// A running controller.
pub struct Temporary {
    child: Child,
    folder: tempfile::TempDir,
}

impl Temporary {
    /// Starts one with this provider alone beside the shipped ones, with further options of `serve`.
    pub fn start(
        provider: &str,
        sandboxes: &Sandboxes,
        options: &[&str],
    ) -> Result<(Self, Client)> {
        let folder = tempfile::Builder::new()
            .prefix("anteroom-")
            .tempdir()
            .context("cannot create a folder for a temporary controller")?;
        let providers = folder.path().join("providers");
        std::fs::create_dir(&providers)?;
        std::fs::write(providers.join("provider.toml"), provider)?;
        let ready_file = folder.path().join("ready.json");
        let log = std::fs::File::create(folder.path().join("serve.log"))?;
        let program = std::env::current_exe().context("cannot find this program")?;
        let mut command = Command::new(program);
        command
            .args(["serve", "--listen", "127.0.0.1:0", "--allow-weak-isolation"])
            .args(["--allow-unverified-images", "--driver", &sandboxes.driver.name()])
            .arg("--state-dir")
            .arg(folder.path().join("state"))
            .arg("--providers")
            .arg(&providers)
            .arg("--ready-file")
            .arg(&ready_file)
            .arg("--until-end-of-input")
            .arg(folder.path())
            .args(options);
        if let Some(dir) = sandboxes.images.named() {
            command.arg("--images-dir").arg(dir);
        }
        let child = command
            // Ctrl-C is this command's to handle; it ends the controller when it is done.
            .process_group(0)
            // However this command ends, this ends with it.
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .context("cannot start a temporary controller")?;
        let mut temporary = Self { child, folder };
        let ready = temporary.wait_until_ready(&ready_file)?;
        let text = |name: &str| ready[name].as_str().unwrap_or_default();
        let state_dir = format!(" --state-dir {}", quoted(&temporary.folder.path().join("state")));
        let client = Client::new(text("url"), text("apiKey")).found_by(state_dir);
        Ok((temporary, client))
    }

    fn wait_until_ready(&mut self, file: &Path) -> Result<Value> {
        let started = Instant::now();
        loop {
            if let Ok(bytes) = std::fs::read(file) {
                return serde_json::from_slice(&bytes).context("its ready file is not valid JSON");
            }
            let ended = self.child.try_wait()?.is_some();
            if ended || started.elapsed() > READY {
                let log = std::fs::read_to_string(self.folder.path().join("serve.log"));
                bail!("the temporary controller did not start: {}", log.unwrap_or_default().trim());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let Ok(pid) = i32::try_from(self.child.id()) else { return };
        let pid = nix::unistd::Pid::from_raw(pid);
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let asked = Instant::now();
        while asked.elapsed() < END {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns at the end of this process's input: the command that this controller is for holds the other
/// end, and is gone, whatever ended it.
pub async fn command_ended() {
    let (report, ended) = tokio::sync::oneshot::channel();
    // Not a thread of the runtime's, which would wait for it at its own end.
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        let _ = report.send(());
    });
    let _ = ended.await;
}

/// Removes the folder of a controller whose command is gone. One that lives does so itself, and reads
/// the log first.
pub fn remove_after_command(folder: &Path) {
    let stdin = std::io::stdin();
    let mut input = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
    let polled = poll(&mut input, PollTimeout::ZERO);
    let is_gone = input[0].revents().is_some_and(|seen| seen.contains(PollFlags::POLLHUP));
    if polled.is_ok() && is_gone {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// The text of a provider: a file's, or that of a shipped one by its id.
pub fn provider_text(name_or_file: &str) -> Result<String> {
    let path = Path::new(name_or_file);
    if path.extension().is_some_and(|extension| extension == "toml") {
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|file| file.take(1024 * 1024).read_to_string(&mut text))
            .with_context(|| {
                format!("reading the provider file {} failed; pass its path, or a shipped provider's id (see `anteroom provider list`)", path.display())
            })?;
        return Ok(text);
    }
    let shipped = crate::embedded::providers();
    let wanted = format!("{name_or_file}.toml");
    let found = shipped.into_iter().find(|(name, _)| name.rsplit('/').next() == Some(&*wanted));
    let (_, text) = found.with_context(|| {
        format!("{name_or_file} is not a shipped provider (see `anteroom provider list`) or a file that ends with .toml")
    })?;
    Ok(text)
}
