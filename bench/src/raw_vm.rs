//! The floor that the time to the sign-in page is compared with: the same VM, booted by the same
//! driver from the same image, with neither agent, link, gate nor stream. A shell script starts X,
//! the window manager and Chromium on the same page, which writes to the serial console when it is
//! drawn.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anteroom_confine::Confinement;
use anteroom_image::{Image, initramfs_with_agent, initramfs_with_program};
use anteroom_session::SessionId;
use anteroom_vm::{ConsoleFile, Driver, Qemu, SandboxSpec, VmAccelerator, VmSpec, VmStart};
use anyhow::{Context, Result, bail};

use xtask::{interrupt, machine, shell};

const DRAWN: &str = "anteroom: the page is drawn";
const PATIENCE: Duration = Duration::from_secs(240);
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The flags that the agent starts Chromium with: the browser is the same too.
const BROWSER_FLAGS: &str = "crates/agent/src/desktop/browser/flags.txt";
/// As `anteroom serve` has them.
const MEMORY_MIB: u32 = 2048;
const VCPUS: u8 = 2;

/// Boots the image in `image_dir` raw; milliseconds until it has drawn the sign-in page.
pub fn time_to_page(image_dir: &Path) -> Result<u64> {
    let folder = tempfile::Builder::new().prefix("xtask-raw-").tempdir()?;
    let console = folder.path().join("console.log");
    let image = Image::open(image_dir, folder.path())?;
    let vm = VmSpec {
        kernel: Arc::clone(&image.files.kernel),
        initramfs: initramfs(&image)?,
        root_image: Arc::clone(&image.files.root),
        memory_mib: MEMORY_MIB,
        vcpus: VCPUS,
        start: VmStart::PowerOn,
    };
    let sandbox = SandboxSpec {
        name: SessionId::generate().to_string().parse()?,
        confinement: Confinement::of_this_machine(None),
        console: ConsoleFile { path: console.clone(), limit: 1024 * 1024 },
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, async {
        let started = Instant::now();
        let qemu = Qemu { vm, accelerator: VmAccelerator::Tcg, cpu: None };
        let mut vm = qemu.boot(&sandbox).await?;
        let drawn = tokio::select! {
            drawn = page_drawn(&console, started) => drawn,
            exit = vm.wait() => Err(anyhow::anyhow!("the raw VM ended: it {exit}")),
        };
        let last_lines = vm.console_tail(20).join("\n");
        vm.kill().await;
        drawn.with_context(|| format!("its console ends so:\n{last_lines}"))
    })
}

async fn page_drawn(console: &Path, started: Instant) -> Result<u64> {
    loop {
        interrupt::check()?;
        let took = started.elapsed();
        if std::fs::read(console).is_ok_and(|text| String::from_utf8_lossy(&text).contains(DRAWN)) {
            return Ok(u64::try_from(took.as_millis())?);
        }
        if took > PATIENCE {
            bail!("the raw VM did not draw the page within {} s", PATIENCE.as_secs());
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

fn initramfs(image: &Image) -> Result<Vec<u8>> {
    let modules = image.files.read_modules().context("reading the image's modules failed")?;
    let busybox = std::fs::read(machine::unpacked("busybox-static", "bin/busybox")?)?;
    let scripts = shell::root().join("bench/raw-vm");
    let mut bytes = initramfs_with_agent(&modules, &std::fs::read(scripts.join("init.sh"))?);
    for (path, content) in [
        ("anteroom/busybox", busybox),
        ("anteroom/flags", std::fs::read(shell::root().join(BROWSER_FLAGS))?),
        ("anteroom/desktop", std::fs::read(scripts.join("desktop.sh"))?),
        ("anteroom/page.html", sign_in_page()?.into_bytes()),
    ] {
        bytes = initramfs_with_program(bytes, path, &content);
    }
    Ok(bytes)
}

/// The provider's page as it is sent, and a script that waits until it was painted.
fn sign_in_page() -> Result<String> {
    let program = "import { signInPage } from './demo/oidc-provider/sign-in-page.mjs';\
        process.stdout.write(signInPage({ action: '/', cancelAction: '/', clientName: 'demo-login', email: '' }))";
    let page = shell::output(Command::new("node").current_dir(shell::root()).args([
        "--input-type=module",
        "-e",
        program,
    ]))?;
    Ok(format!(
        "{page}<script>requestAnimationFrame(() => requestAnimationFrame(() => \
         console.log('{DRAWN}')))</script>"
    ))
}
