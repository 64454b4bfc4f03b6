//! From an image to a frozen VM on disk: booted, brought to a desktop whose browser is open and ready for an
//! address, stopped, saved. Nobody has signed in to anything in it.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anteroom_confine::ProcessStat;
use anteroom_crash::agent_failed;
use anteroom_guest_link::Opener;
use anteroom_guest_protocol::{
    ConfigureSandbox, GuestMessage, Purpose, ServiceEvent, printable, service_name,
};
use anteroom_image::Image;
use anteroom_session::{DriverKind, EndReason};
use anteroom_vm::{LinkStream, RemoveError, SaveError, VmStart};
use tokio::time::{Instant, timeout};

use crate::control::unix_ms;
use crate::conversation::{Conversation, entropy_base64};
use crate::end::{DiagnosedEnd, start_guest, until_end};
use crate::failure::broken;
use crate::freeze::FreezableLink;
use crate::own_sandbox::OwnSandbox;
use crate::sandbox::{boot, vm_spec};
use crate::service_log::ServiceLog;
use crate::template::Wanted;

/// How long the desktop may take to be ready, in seconds; as long as a session's browser may.
const READY_SECONDS: u64 = 300;

/// A VM is at rest when it takes less than this of one processor for so long; where it never is, it is
/// saved all the same after the last.
const AT_REST_PERCENT: u64 = 10;
const AT_REST: Duration = Duration::from_secs(2);
const RESTLESS: Duration = Duration::from_secs(60);

/// How long a picture of the desktop may take.
const PHOTOGRAPHED: Duration = Duration::from_secs(30);

/// The address of its guest's interface; each clone has its own.
const ADDRESS: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 77, 0, 2);

/// What is to be saved.
pub struct Snapshot<'a> {
    /// The image, checked.
    pub image: &'a Image,
    /// The agent's program, the VM's first process.
    pub agent: &'a [u8],
    /// The VM, as its template is described.
    pub vm: Wanted<'a>,
    /// Where console and services' logs of the VM go.
    pub log_dir: &'a Path,
    /// Gets each step, in a few words.
    pub progress: &'a dyn Fn(&str),
    /// Takes a picture of the desktop.
    pub photographer: Photographer<'a>,
}

/// Takes a picture of the desktop of the guest that streams are opened to: a PNG, or a sentence why there
/// is none.
pub type Photographer<'a> =
    &'a dyn Fn(Opener) -> Pin<Box<dyn Future<Output = Result<Vec<u8>, String>>>>;

/// A VM that was saved.
pub struct SavedVm {
    /// The guest's memory: a file without a name, as long as it.
    pub memory: Arc<OwnedFd>,
    /// The state of processors and devices, as the VMM wrote it: such a file too.
    pub state: Arc<OwnedFd>,
    /// What its desktop shows, as a PNG.
    pub picture: Vec<u8>,
    /// What wakes its clones.
    pub wake_token: String,
}

/// A VM could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// It did not start, or did not become ready.
    #[error("{}", reason.sentence(*driver))]
    NotReady {
        /// What booted it.
        driver: DriverKind,
        /// Why it did not.
        reason: EndReason,
    },
    /// Its VMM did not save it.
    #[error("saving the VM failed")]
    NotSaved(#[source] SaveError),
    /// The machine's memory does not hold it.
    #[error("making a file in memory failed")]
    NoMemory(#[source] io::Error),
    /// What it left on this machine cannot be removed.
    #[error(transparent)]
    NotRemoved(#[from] RemoveError),
}

impl Snapshot<'_> {
    /// Boots the image, waits until its desktop is ready and at rest, and saves it. On a `LocalSet`.
    ///
    /// # Errors
    /// When it does not become ready, or cannot be saved; nothing is left of the VM.
    pub async fn take(&self) -> Result<SavedVm, SnapshotError> {
        let sandbox = OwnSandbox::record(self.vm.vmm, self.log_dir)
            .map_err(|error| self.not_ready(broken(&format!("writing it down failed: {error}"))))?;
        let saved = self.boot_and_save(&sandbox).await;
        sandbox.remove()?;
        saved
    }

    async fn boot_and_save(
        &self,
        OwnSandbox { name, confinement }: &OwnSandbox,
    ) -> Result<SavedVm, SnapshotError> {
        (self.progress)("booting");
        let memory = in_memory("anteroom-memory", u64::from(self.vm.memory_mib) << 20)?;
        let state = in_memory("anteroom-state", 0)?;
        let mut vm = vm_spec(&self.image.files, self.agent, self.vm.memory_mib, self.vm.vcpus)
            .map_err(|reason| self.not_ready(reason))?;
        vm.start = VmStart::ToBeSaved { memory: memory.clone(), state: state.clone() };
        let driver = self.vm.vmm.driver(vm);
        let booted = boot(&*driver, name, confinement, self.log_dir).await;
        let mut vm = booted.map_err(|reason| self.not_ready(reason))?;
        start_guest(&mut vm).await.map_err(|reason| self.not_ready(reason))?;
        let (link, pid) = (vm.take_link(), vm.pid);
        let wake_token = hex::encode(rand::random::<[u8; 16]>());
        let frozen = until_end(&mut vm, self.until_frozen(link, pid, wake_token.clone())).await;
        let picture = match frozen.and_then(|frozen| frozen) {
            Ok(picture) => picture,
            Err(reason) => {
                let reason = DiagnosedEnd::of(&mut vm, reason).await.reason;
                vm.kill().await;
                return Err(self.not_ready(reason));
            }
        };
        (self.progress)("saving");
        let saved = vm.save().await.map_err(SnapshotError::NotSaved);
        vm.kill().await;
        saved.map(|()| SavedVm { memory, state, picture, wake_token })
    }

    fn not_ready(&self, reason: EndReason) -> SnapshotError {
        SnapshotError::NotReady { driver: self.vm.vmm.kind(), reason }
    }

    async fn until_frozen(
        &self,
        link: LinkStream,
        pid: u32,
        wake_token: String,
    ) -> Result<Vec<u8>, EndReason> {
        let mut log = ServiceLog::create(self.log_dir)
            .map_err(|error| broken(&format!("creating the log failed: {error}")))?;
        let mut log = |service: &str, stream, line: &str| {
            // Evidence; a full disk does not change what is saved.
            let _ = log.line(anteroom_session::Timestamp(unix_ms()), service, stream, line);
        };
        let (link, mut conversation, _) = FreezableLink::begin(link).await?;
        (self.progress)("setting the guest up");
        conversation.configure(self.configuration(), &mut log).await?;
        conversation.start_services().await?;
        (self.progress)("waiting for its desktop");
        let ready = self.until_ready(&mut conversation, &mut log);
        let late = |_| broken(&format!("the desktop was not ready within {READY_SECONDS} s"));
        timeout(Duration::from_secs(READY_SECONDS), ready).await.map_err(late)??;
        (self.progress)("waiting until it is at rest");
        tokio::select! {
            failed = listen(&mut conversation, &mut log) => return Err(failed),
            () = until_at_rest(pid) => {}
        }
        let photographed = timeout(PHOTOGRAPHED, (self.photographer)(conversation.opener.clone()));
        let picture = tokio::select! {
            failed = listen(&mut conversation, &mut log) => return Err(failed),
            photographed = photographed => photographed.unwrap_or_else(|_| {
                Err(format!("it was not there within {} s", PHOTOGRAPHED.as_secs()))
            }),
        };
        let picture = picture
            .map_err(|cause| broken(&format!("taking a picture of the desktop failed: {cause}")))?;
        (self.progress)("freezing");
        link.freeze(conversation, wake_token, &mut log).await?;
        Ok(picture)
    }

    fn configuration(&self) -> ConfigureSandbox {
        ConfigureSandbox {
            now_unix_ms: unix_ms(),
            entropy_base64: entropy_base64(),
            browser_ip: ADDRESS,
            screen: self.vm.screen,
            purpose: Purpose::Template {},
            egress_ports: vec![80, 443],
            extra_ca_pem: self.vm.extra_ca_pem.to_owned(),
            services: self.vm.services.to_vec(),
        }
    }

    /// Listens until all that a desktop has is ready.
    async fn until_ready(
        &self,
        conversation: &mut Conversation,
        log: &mut Log<'_>,
    ) -> Result<(), EndReason> {
        let own = ["x", "window-manager", "browser"];
        let mut awaited: Vec<&str> =
            own.into_iter().chain(self.vm.services.iter().map(|one| one.name.as_str())).collect();
        while !awaited.is_empty() {
            if let Some(name) = heard(conversation, log).await? {
                awaited.retain(|one| *one != name);
            }
        }
        Ok(())
    }
}

type Log<'a> = dyn FnMut(&str, anteroom_guest_protocol::LogStream, &str) + 'a;

/// Takes the guest's next message; the service that it says is ready.
async fn heard(
    conversation: &mut Conversation,
    log: &mut Log<'_>,
) -> Result<Option<String>, EndReason> {
    let message = conversation.messages.next().await?;
    conversation.sender.answer_heartbeat(&message).await?;
    match message {
        GuestMessage::Log { service, stream, line } => log(&service, stream, &line),
        GuestMessage::Service { name, event: ServiceEvent::Ready {} } => return Ok(Some(name)),
        GuestMessage::Service { name, event: ServiceEvent::Failed { cause, last_lines, .. } } => {
            return Err(EndReason::ServiceFailed {
                service: service_name(&name),
                cause: printable(&cause),
                last_lines: last_lines.iter().map(|line| printable(line)).collect(),
                explanation: None,
            });
        }
        GuestMessage::Fatal { cause } => return Err(agent_failed(&cause)),
        _ => {}
    }
    Ok(None)
}

/// Listens until something fails.
async fn listen(conversation: &mut Conversation, log: &mut Log<'_>) -> EndReason {
    loop {
        if let Err(reason) = heard(conversation, log).await {
            return reason;
        }
    }
}

/// Waits until the VM's process takes next to no processor time.
async fn until_at_rest(pid: u32) {
    let until = Instant::now() + RESTLESS;
    while Instant::now() < until {
        let before = processor_ms(pid);
        tokio::time::sleep(AT_REST).await;
        let most = u128::from(AT_REST_PERCENT) * AT_REST.as_millis() / 100;
        if u128::from(processor_ms(pid).saturating_sub(before)) < most {
            return;
        }
    }
}

/// Processor time of a process in milliseconds.
fn processor_ms(pid: u32) -> u64 {
    ProcessStat::of(pid).map_or(0, |stat| stat.processor_ms)
}

fn in_memory(name: &str, bytes: u64) -> Result<Arc<OwnedFd>, SnapshotError> {
    let make = || -> io::Result<OwnedFd> {
        let file = anteroom_template::in_memory(name)?;
        file.set_len(bytes)?;
        Ok(file.into())
    };
    make().map(Arc::new).map_err(SnapshotError::NoMemory)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_time() {
        let began = std::time::Instant::now();
        while processor_ms(std::process::id()) == 0 {
            assert!(began.elapsed() < Duration::from_secs(20));
        }
        assert_eq!(processor_ms(u32::MAX), 0);
    }
}
