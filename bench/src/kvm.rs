//! Sign-ins in VMs with KVM, as tests: with QEMU, and with Firecracker where that is installed; as root, and
//! as a user of KVM's group.
//!
//! They run in a machine that QEMU emulates, where a desktop takes minutes: the tool signs in by itself, so
//! that nobody has to see it.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use anteroom_vm::Installed;
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use xtask::{build, interrupt, shell};

use crate::demo::TTL_SECONDS;
use crate::identity::new_identity;
use crate::leftovers;
use crate::nested;
use crate::server::{Server, User};
use crate::template::{Template, until_loaded};

/// How long a sign-in may take. The image is read for half a minute first.
const PATIENCE: Duration = Duration::from_secs(240);

/// Sign-ins from one template.
const WARM: usize = 3;

/// What the tool writes; the provider file requires both.
const CREDENTIAL: &str = r#"{"access_token":"of-the-nested-machine","refresh_token":"none"}"#;

/// All of them, in a nested machine.
pub fn run_nested(anteroom: &Path) -> Result<()> {
    // The nested machine has these for itself.
    if ["/tmp", "/run"].iter().any(|folder| anteroom.starts_with(folder)) {
        eprintln!(
            "Skipped: sign-ins with KVM, in whose machine {} is not seen",
            anteroom.display()
        );
        return Ok(());
    }
    let image = build::golden_image(anteroom, false)?.dir;
    let mut command: Vec<OsString> = vec![
        std::env::current_exe().context("finding this program failed")?.into(),
        "sign-ins-with-kvm".into(),
        anteroom.into(),
        image.ancestors().nth(2).context("an image is in a folder of images")?.into(),
        "qemu".into(),
    ];
    match Installed::find() {
        Ok(Installed { version, path }) => {
            eprintln!("Firecracker {version} at {}", path.display());
            command.push("firecracker".into());
        }
        Err(error) => eprintln!("Skipped: sign-ins with Firecracker. {error}"),
    }
    let passed = tempfile::Builder::new().prefix("xtask-kvm-").tempdir()?;
    nested::succeed(&nested::Options {
        out: Some(passed.path().to_owned()),
        ..nested::Options::of(command, vec![image])
    })
}

/// One sign-in from a template with this driver, on this machine, which has KVM, as root. The folder
/// `templates` of the image must be writable.
pub fn run_warm(anteroom: &Path, images: &Path, driver: &str) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("xtask-demo-").tempdir()?;
    let images = images.to_str().context("the images' folder has no name in UTF-8")?;
    let options = [
        "--driver",
        driver,
        "--accelerator",
        "kvm",
        "--allow-unverified-images",
        "--images-dir",
        images,
    ];
    let template = Template::make(anteroom, folder.path(), &options, "")?;
    println!("{}", template.report);
    let served = folder.path().join("served");
    let mut server =
        template.serve_by(driver, anteroom, &served, &provider_file()?, &options[4..])?;
    until_loaded(&server)?;
    let identity = new_identity(folder.path())?;
    for _ in 0..WARM {
        let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
        let view = server.wait_until_ended(&session.id, PATIENCE)?;
        server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
        let began = view["createdAt"].as_u64().unwrap_or_default();
        for entry in view["timeline"].as_array().into_iter().flatten() {
            let after = entry["at"].as_u64().unwrap_or_default().saturating_sub(began);
            println!("{after} ms: {}", entry["message"]);
        }
        if view["reason"]["code"] != "completed" {
            bail!("the session ended otherwise: {}\n{}", view["reason"], server.logs(&session.id)?);
        }
        ensure!(view["timeline"].to_string().contains(&template.id), "the VM was booted");
    }
    server.stop()
}

/// Those with these drivers, on a nested machine. One that passed before the machine failed is not repeated.
pub fn run(anteroom: &Path, images: &Path, drivers: &[String]) -> Result<()> {
    for driver in drivers {
        for user in [User::Root, User::InKvmGroup] {
            let who = match user {
                User::Root => "root",
                User::InKvmGroup => "a user of KVM's group",
            };
            let passed = Path::new(nested::OUT).join(format!("{driver}-{user:?}"));
            if passed.exists() {
                continue;
            }
            eprintln!("One sign-in with {driver} and KVM, as {who} …");
            if let Err(error) = sign_in(anteroom, images, driver, user) {
                interrupt::check()?;
                // On an emulated processor a guest has been seen to stall, and its VMM to end.
                eprintln!("It failed, and is tried once more: {error:#}");
                sign_in(anteroom, images, driver, user)
                    .with_context(|| format!("the sign-in with {driver} and KVM failed twice"))?;
            }
            std::fs::write(&passed, "").context("noting a sign-in that passed failed")?;
        }
    }
    Ok(())
}

fn sign_in(anteroom: &Path, images: &Path, driver: &str, user: User) -> Result<()> {
    let before = leftovers::Before::look();
    let folder = tempfile::Builder::new().prefix("xtask-demo-").tempdir()?;
    let identity = new_identity(folder.path())?;
    let images = images.to_str().context("the images' folder has no name in UTF-8")?;
    // The image is verified for the CPU of emulated VMs.
    let options = ["--allow-unverified-images", "--images-dir", images];
    let mut server =
        Server::start_as(user, anteroom, folder.path(), &provider_file()?, driver, &options)?;
    let session = server.start_session(&identity.recipient, TTL_SECONDS)?;
    let view = server.wait_until_ended(&session.id, PATIENCE)?;
    server.wait_until_torn_down(&session.id, Duration::from_secs(60))?;
    if view["reason"]["code"] != "completed" {
        let console = folder.path().join("state/logs").join(&session.id).join("console.log");
        let console = std::fs::read_to_string(console).unwrap_or_default();
        bail!("the session ended otherwise: {}; its console:\n{console}", view["reason"]);
    }
    let sealed = server.credential(&session.id)?;
    server.stop()?;
    let (_, credential) = identity.open(anteroom, folder.path(), &sealed)?;
    let written: Value = serde_json::from_str(CREDENTIAL)?;
    ensure!(credential == written, "the credential is not what the tool wrote: {credential}");
    let shown = (&view["driver"], &view["accelerator"]);
    ensure!(shown == (&driver.into(), &"kvm".into()), "the session says it ran by {shown:?}");
    println!("{}", view["confinement"]);
    let left = leftovers::of_session(&session.id, folder.path(), &before)?;
    ensure!(left.is_empty(), "left over: {}", left.join("; "));
    Ok(())
}

/// The demo's, whose tool is this shell script, and needs nobody.
pub fn provider_file_with(script: &str) -> Result<String> {
    let shipped = std::fs::read_to_string(shell::root().join("providers/demo.toml"))?;
    let command = Value::from(["sh", "-c", script].map(Value::from).to_vec());
    let login = r#"["demo-login", "login"]"#;
    ensure!(shipped.contains(login), "the demo's provider file has no command {login}");
    Ok(shipped.replace(login, &command.to_string()))
}

/// Its tool signs in by itself.
fn provider_file() -> Result<String> {
    provider_file_with(&format!(
        "umask 077; mkdir -p ~/.demo-login; printf %s '{CREDENTIAL}' > ~/.demo-login/credentials.json"
    ))
}
