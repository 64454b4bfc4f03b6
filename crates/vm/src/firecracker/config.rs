//! The bodies of the requests that configure a VM.

use serde::{Deserialize, Serialize};

use crate::VmSpec;

/// `PUT /machine-config`.
#[derive(Debug, Serialize)]
pub struct MachineConfig {
    vcpu_count: u8,
    mem_size_mib: u32,
}

/// `PUT /boot-source`.
#[derive(Debug, Serialize)]
pub struct BootSource {
    kernel_image_path: String,
    initrd_path: String,
    boot_args: &'static str,
}

/// `PUT /drives/{drive_id}`.
#[derive(Debug, Serialize)]
pub struct Drive {
    drive_id: &'static str,
    path_on_host: String,
    is_root_device: bool,
    is_read_only: bool,
}

/// `PUT /vsock`.
#[derive(Debug, Serialize)]
pub struct Vsock {
    guest_cid: u32,
    uds_path: String,
}

/// `PUT /balloon`: none of the guest's memory is taken, but what it does not use comes back.
#[derive(Debug, Serialize)]
pub struct Balloon {
    amount_mib: u32,
    deflate_on_oom: bool,
    free_page_reporting: bool,
}

/// `PUT /serial`.
#[derive(Debug, Serialize)]
pub struct Serial {
    rate_limiter: TokenBucket,
}

/// So many bytes at once, and so many again in `refill_time` milliseconds.
#[derive(Debug, Serialize)]
struct TokenBucket {
    size: u64,
    refill_time: u64,
}

/// `PUT /logger`.
#[derive(Debug, Serialize)]
pub struct Logger {
    log_path: String,
    level: &'static str,
    show_level: bool,
}

/// `PUT /metrics`.
#[derive(Debug, Serialize)]
pub struct MetricsPath {
    metrics_path: String,
}

/// `PUT /actions`.
#[derive(Debug, Serialize)]
pub struct Action {
    action_type: &'static str,
}

/// `PATCH /vm`.
#[derive(Debug, Serialize)]
pub struct Vm {
    state: &'static str,
}

/// `PUT /snapshot/create`.
#[derive(Debug, Serialize)]
pub struct SnapshotCreate {
    snapshot_type: &'static str,
    snapshot_path: String,
    mem_file_path: String,
}

/// `PUT /snapshot/load`.
#[derive(Debug, Serialize)]
pub struct SnapshotLoad {
    snapshot_path: String,
    mem_backend: MemoryBackend,
    resume_vm: bool,
    vsock_override: VsockOverride,
}

/// Mapped privately.
#[derive(Debug, Serialize)]
struct MemoryBackend {
    backend_type: &'static str,
    backend_path: String,
}

/// Without a file tree of its own a VM's folder is another than its template's.
#[derive(Debug, Serialize)]
struct VsockOverride {
    uds_path: String,
}

/// `GET /version`.
#[derive(Debug, Deserialize)]
pub struct Version {
    pub firecracker_version: String,
}

/// `GET /`.
#[derive(Debug, Deserialize)]
pub struct InstanceInfo {
    pub state: String,
}

/// The guest's address; the host's is 2 (vsock(7)).
const GUEST_CID: u32 = 3;

/// Of the console in bytes a second: more is a flood, which Firecracker drops.
const CONSOLE_RATE: u64 = 1024 * 1024;

/// `reboot=k` and `panic=-1` end Firecracker with its guest. The rest spares the kernel the search for
/// what Firecracker has not, on which it waits.
const KERNEL_LINE: &str = "console=ttyS0 reboot=k panic=-1 quiet 8250.nr_uarts=1 i8042.noaux \
                           i8042.nomux i8042.dumbkbd";

impl MachineConfig {
    pub fn of(vm: &VmSpec) -> Self {
        Self { vcpu_count: vm.vcpus, mem_size_mib: vm.memory_mib }
    }
}

impl BootSource {
    pub fn new(kernel: String, initramfs: String) -> Self {
        Self { kernel_image_path: kernel, initrd_path: initramfs, boot_args: KERNEL_LINE }
    }
}

impl Drive {
    /// The image, whose root the agent mounts.
    pub fn image(path: String) -> Self {
        let drive_id = "image";
        Self { drive_id, path_on_host: path, is_root_device: false, is_read_only: true }
    }
}

impl Vsock {
    pub fn at(uds_path: String) -> Self {
        Self { guest_cid: GUEST_CID, uds_path }
    }
}

impl Balloon {
    pub fn empty() -> Self {
        Self { amount_mib: 0, deflate_on_oom: true, free_page_reporting: true }
    }
}

impl Serial {
    pub fn bounded() -> Self {
        Self { rate_limiter: TokenBucket { size: CONSOLE_RATE, refill_time: 1000 } }
    }
}

impl Logger {
    pub fn to(log_path: String) -> Self {
        Self { log_path, level: "Info", show_level: true }
    }
}

impl MetricsPath {
    pub fn at(metrics_path: String) -> Self {
        Self { metrics_path }
    }
}

impl Action {
    pub const INSTANCE_START: Self = Self { action_type: "InstanceStart" };
}

impl Vm {
    pub const PAUSED: Self = Self { state: "Paused" };
    pub const RESUMED: Self = Self { state: "Resumed" };
}

impl SnapshotCreate {
    pub fn of(state: String, memory: String) -> Self {
        Self { snapshot_type: "Full", snapshot_path: state, mem_file_path: memory }
    }
}

impl SnapshotLoad {
    pub fn of(state: String, memory: String, vsock: String) -> Self {
        Self {
            snapshot_path: state,
            mem_backend: MemoryBackend { backend_type: "File", backend_path: memory },
            resume_vm: false,
            vsock_override: VsockOverride { uds_path: vsock },
        }
    }
}
