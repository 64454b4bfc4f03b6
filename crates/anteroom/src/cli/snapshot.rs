//! `anteroom image snapshot`: an image's VM, started once for all sign-ins.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anteroom_controller::SCREEN;
use anteroom_guest_session::template::{Host, Wanted};
use anteroom_guest_session::{SavedVm, Snapshot};
use anteroom_image::Image;
use anteroom_image_verify::photograph;
use anteroom_node::DriverChoice;
use anteroom_private as private;
use anteroom_template::{MachineKey, Saved, Summary, TemplateError, TemplateFor};
use anyhow::{Context, Result, bail};
use serde_json::json;

use super::driver::{Driver, DriverOptions};
use super::folders::{StateDir, TEMPLATE_KEY, cache_dir, make_private};
use super::progress::Work;
use super::sessions::show;
use super::verify::{SNAPSHOTTING, sweep};
use super::{Interrupted, unless_interrupted};
use crate::embedded;

/// How the VM is booted: as `serve` is to boot it.
#[derive(clap::Args)]
#[command(mut_arg("driver", |driver| driver.value_parser(Driver::of_vms())))]
pub struct How {
    #[command(flatten)]
    driver: DriverOptions,
    #[command(flatten)]
    state: StateDir,
    /// A file with the certificate authorities (PEM) that a provider file names, for sign-ins to that
    /// provider: a running browser is not made to trust others.
    #[arg(long, value_name = "FILE")]
    trust: Option<PathBuf>,
}

/// Boots the image, saves its VM, and stores that as a template.
pub fn run(images_dir: &Path, name: &str, how: &How, as_json: bool) -> Result<()> {
    let began = Instant::now();
    let cache_dir = cache_dir();
    private::check_used(&[&cache_dir, images_dir])?;
    let DriverChoice::Vm(vm) = how.driver.choose(&cache_dir)? else {
        bail!("the `host` driver boots no VM, so there is none to take a snapshot of");
    };
    let found = anteroom_image::find(images_dir, name)?;
    vm.check_verified(&found.dir)?;
    let image = Image::open(&found.dir, &cache_dir)?;
    let _hold = image.hold()?;
    let state_dir = how.state.path();
    make_private(&state_dir)?;
    let key = MachineKey::load_or_create(&state_dir.join(TEMPLATE_KEY))?;
    let agent = embedded::agent()?;
    let extra_ca_pem = match &how.trust {
        Some(path) => private::read_text(path)
            .with_context(|| format!("reading the authorities in {} failed", path.display()))?,
        None => String::new(),
    };
    let work = Work::open_ended(format!("Starting a VM of image {name} to save it"));
    sweep(&image.dir, SNAPSHOTTING);
    let logs = Logs::new(&image.dir)?;
    let wanted = Wanted {
        image: &image.manifest.recipe_digest,
        vmm: &vm.vmm,
        memory_mib: vm.memory_mib,
        vcpus: vm.vcpus,
        screen: SCREEN,
        services: &image.manifest.services,
        extra_ca_pem: &extra_ca_pem,
    };
    let progress = |step: &str| work.at_step(step);
    let snapshot = Snapshot {
        image: &image,
        agent,
        vm: wanted,
        log_dir: logs.path(),
        progress: &progress,
        photographer: &|opener| Box::pin(async move { photograph(&opener).await }),
    };
    let made_for = wanted.on(&Host::here(&vm.vmm, agent));
    let made = async {
        let saved = snapshot.take().await?;
        progress("writing the template");
        store(image.dir.clone(), key, made_for, saved).await
    };
    let stored = unless_interrupted(made, "no template was made");
    work.finish();
    let stored = stored.map_err(|error| logs.keep(error))?;
    let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let result = json!({
        "image": name,
        "digest": image.manifest.recipe_digest,
        "template": stored.id,
        "dir": stored.dir,
        "bytes": stored.bytes,
        "tookMs": took_ms,
    });
    show(as_json, &result, |_| {
        format!(
            "template {} of image {name} ({} MiB) was made after {} s: {}\n\
             `anteroom serve` with the same driver, memory and CPU starts sign-ins from it.\n",
            stored.id,
            stored.bytes >> 20,
            took_ms / 1000,
            stored.dir.display()
        )
    })
}

/// Stores what was saved. Where nobody waits for it any more, it ends soon and leaves nothing.
async fn store(
    image_dir: PathBuf,
    key: MachineKey,
    made_for: TemplateFor,
    saved: SavedVm,
) -> Result<Summary> {
    let (memory, state) =
        (File::from(saved.memory.try_clone()?), File::from(saved.state.try_clone()?));
    let SavedVm { wake_token, picture, .. } = saved;
    let waited_for = Arc::new(());
    let waits = Arc::downgrade(&waited_for);
    let writing = tokio::task::spawn_blocking(move || {
        let (memory, state, picture) = (&memory, &state, &*picture);
        let saved = Saved { made_for, wake_token, memory, state, picture };
        anteroom_template::write(&image_dir, &key, &saved, &|| waits.strong_count() == 0)
    });
    let stored = writing.await?;
    drop(waited_for);
    Ok(stored?)
}

/// The VM's logs: kept where it failed, and named then; nobody needs them who ends the command themselves, or
/// whose template cannot be stored.
struct Logs(tempfile::TempDir);

impl Logs {
    fn new(image_dir: &Path) -> Result<Self> {
        let made = tempfile::Builder::new()
            .prefix(&format!("{SNAPSHOTTING}{}-", std::process::id()))
            .tempdir_in(image_dir);
        made.map(Self).with_context(|| format!("cannot create a folder in {}", image_dir.display()))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn keep(self, error: anyhow::Error) -> anyhow::Error {
        if error.is::<Interrupted>() || error.is::<TemplateError>() {
            return error;
        }
        let path: PathBuf = self.0.keep();
        error.context(format!("no template was made; the VM's logs are in {}", path.display()))
    }
}
