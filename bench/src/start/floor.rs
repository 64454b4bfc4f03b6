//! The floor: a VM that is restored from the template by the same driver, with nothing of Anteroom around it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anteroom_confine::Confinement;
use anteroom_guest_protocol::Preamble;
use anteroom_image::Image;
use anteroom_session::SessionId;
use anteroom_template::{Summary, TemplateFor};
use anteroom_vm::{
    ConsoleFile, Driver, Firecracker, Installed, PageSet, Qemu, SandboxSpec, VmAccelerator, VmSpec,
    VmStart,
};
use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::template::{KEY, Template};

/// How often it is measured.
const FLOORS: usize = 10;

/// How long a restored VM may take to answer.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came of it, some times.
#[derive(Default)]
pub struct Floors {
    /// Milliseconds from before the VMM's process is started to the first byte of its guest.
    pub answered: Vec<u64>,
    /// Of these, microseconds for which the driver waited for the VMM: what a session's `waited` has too.
    pub load: Vec<u64>,
}

/// Measures it.
pub fn floors(template: &Template) -> Result<Floors> {
    let key = anteroom_template::MachineKey::load_or_create(&template.state_dir.join(KEY))?;
    let made_for = summary(template)?.made_for;
    let loaded = anteroom_template::load(&template.image_dir, &key, &made_for)?;
    let start = VmStart::Clone {
        memory: Arc::new(loaded.memory),
        state: Arc::new(loaded.state),
        ahead: PageSet::default(),
    };
    let mut floors = Floors::default();
    for _ in 0..FLOORS {
        floors.add(&template.image_dir, &made_for, &start)?;
    }
    Ok(floors)
}

/// What runs the code of the template's guest.
pub fn accelerator(template: &Template) -> Result<String> {
    Ok(summary(template)?.made_for.accelerator)
}

fn summary(template: &Template) -> Result<Summary> {
    let mut made = anteroom_template::list(&template.image_dir).into_iter();
    made.find(|one| one.id == template.id).context("there is no template")
}

impl Floors {
    fn add(&mut self, image_dir: &Path, made_for: &TemplateFor, start: &VmStart) -> Result<()> {
        let folder = tempfile::Builder::new().prefix("xtask-floor-").tempdir()?;
        let image = Image::open(image_dir, folder.path())?;
        let vm = VmSpec {
            kernel: Arc::clone(&image.files.kernel),
            // A clone reads none.
            initramfs: Vec::new(),
            root_image: Arc::clone(&image.files.root),
            memory_mib: made_for.memory_mib,
            vcpus: made_for.vcpus,
            start: start.clone(),
        };
        let sandbox = SandboxSpec {
            name: SessionId::generate().to_string().parse()?,
            confinement: Confinement::of_this_machine(None),
            console: ConsoleFile { path: folder.path().join("console.log"), limit: 1024 * 1024 },
        };
        let driver = driver(made_for, vm)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        tokio::task::LocalSet::new().block_on(&runtime, async {
            let began = Instant::now();
            let mut vm = driver.boot(&sandbox).await?;
            vm.start_guest().await?;
            let mut link = vm.take_link();
            link.write_all(&Preamble::new([1; 16]).encode()).await?;
            let answered = tokio::time::timeout(PATIENCE, link.read_u8()).await;
            let took = u64::try_from(began.elapsed().as_millis())?;
            vm.kill().await;
            answered.context("the restored VM did not answer")??;
            let waited = vm.clone_start().context("the driver did not say how long it waited")?;
            self.answered.push(took);
            self.load.push(u64::try_from((waited.vmm_start + waited.resume).as_micros())?);
            Ok(())
        })
    }
}

/// As the template was made; the guest's processor is in its state.
fn driver(made_for: &TemplateFor, vm: VmSpec) -> Result<Box<dyn Driver>> {
    if made_for.driver == "firecracker" {
        let program = Installed::find()?.path;
        return Ok(Box::new(Firecracker { vm, program, cpu_template: None }));
    }
    let accelerator = match made_for.accelerator.as_str() {
        "kvm" => VmAccelerator::Kvm,
        _ => VmAccelerator::Tcg,
    };
    Ok(Box::new(Qemu { vm, accelerator, cpu: None }))
}
