//! Templates of this machine's images: loaded once, sealed, and shared by the VMs of all sessions.

use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anteroom_guest_link::chain;
use anteroom_guest_protocol::{ScreenSize, ServiceSpec};
use anteroom_guest_session::template::{Host, Wanted};
use anteroom_guest_session::{ImageFiles, TemplateFiles, VmFiles};
use anteroom_image::ImageStamp;
use anteroom_node_protocol::{Report, Reports, TemplateMemory};
use anteroom_session::{EndReason, Observation};
use anteroom_template::{MachineKey, TemplateFor};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::sync::mpsc;

use super::images::Images;
use super::recorded::{Recorded, Recorder};
use super::template_memory::{Look, MemoryOfTemplates, bytes_of};
use super::wakes::Wakes;

/// Reports that may wait between a clone's runner and the controller.
const WATCHED: usize = 16;

/// Clones of a template that may fail one after the other before they are awake.
const MOST_FAILURES: u32 = 2;

/// What templates are used with.
#[derive(Clone, Debug)]
pub struct TemplateSettings {
    /// The key that they were signed with.
    pub key: Arc<MachineKey>,
    /// What they were made on.
    pub host: Host,
    /// The usual desktop size.
    pub screen: ScreenSize,
    /// Names of images, each with the extra authorities (PEM) of a provider that uses it: what is loaded before
    /// anybody asks.
    pub usual: BTreeSet<(String, String)>,
}

/// A template that clones are made of.
#[derive(Debug)]
pub struct Template {
    pub id: String,
    /// Of which image, in its folder.
    pub image_dir: PathBuf,
    /// The image's files, as they were checked: its clones go on reading them.
    pub image: ImageFiles,
    /// What runs in its guest beside the desktop's own.
    pub services: Vec<ServiceSpec>,
    pub screen: ScreenSize,
    pub wake_token: String,
    /// What its desktop shows: a PNG in base64.
    pub picture: String,
    pub files: TemplateFiles,
    /// What its memory took when it was loaded, in bytes.
    pub loaded_bytes: u64,
    /// Which pages its clones change first.
    pub recorded: Recorded,
    /// Clones that failed one after the other before they were awake.
    failures: AtomicU32,
}

impl Template {
    /// The same with other files.
    pub fn copy(&self, files: TemplateFiles, recorded: Recorded) -> Self {
        Self {
            id: self.id.clone(),
            image_dir: self.image_dir.clone(),
            image: self.image.clone(),
            services: self.services.clone(),
            screen: self.screen,
            wake_token: self.wake_token.clone(),
            picture: self.picture.clone(),
            loaded_bytes: bytes_of(&files.memory),
            files,
            recorded,
            failures: AtomicU32::new(self.failures.load(Relaxed)),
        }
    }

    /// What a clone of it is made of.
    pub fn vm_files(&self) -> VmFiles {
        VmFiles { image: self.image.clone(), template: Some(self.files.clone()) }
    }
}

/// Of which image, in its folder, and with which extra authorities.
type Of = (PathBuf, String);

/// Templates by what they are of. Cheap to clone.
#[derive(Clone)]
pub struct Templates {
    settings: Option<TemplateSettings>,
    images: Images,
    /// Learns what was loaded and what is not used any more.
    wakes: Wakes,
    known: Arc<Mutex<HashMap<Of, Known>>>,
    memory: MemoryOfTemplates,
}

/// What is known of an image's template.
#[derive(Debug)]
struct Known {
    /// As it is on disk: another is looked at anew.
    stamp: Stamp,
    state: State,
}

#[derive(Debug)]
enum State {
    Loading,
    Loaded(Arc<Template>),
    /// It was said why.
    Refused,
}

impl State {
    fn loaded(&self) -> Option<&Arc<Template>> {
        match self {
            Self::Loaded(template) => Some(template),
            Self::Loading | Self::Refused => None,
        }
    }
}

/// Changes with each template that is written or removed, and with the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Stamp {
    /// Of the folder that templates are renamed into, inode and time of its last change.
    folder: (u64, i64, i64),
    image: ImageStamp,
}

impl Templates {
    pub fn new(settings: Option<TemplateSettings>, images: Images, wakes: Wakes) -> Self {
        Self {
            settings,
            images,
            wakes,
            known: Arc::default(),
            memory: MemoryOfTemplates::default(),
        }
    }

    /// The template of this VM, whose image lies in a folder, once it is loaded. The first time that it is
    /// asked for begins that, on a thread of its own: nobody waits for it.
    pub fn of(&self, image_dir: &Path, vm: Wanted<'_>) -> Option<Arc<Template>> {
        let settings = self.settings.clone()?;
        let stamp = stamp(image_dir)?;
        let of = (image_dir.to_path_buf(), vm.extra_ca_pem.to_owned());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&of) {
            Some(Known { stamp: seen, state }) if *seen == stamp => state.loaded().cloned(),
            _ => {
                known.insert(of.clone(), Known { stamp: stamp.clone(), state: State::Loading });
                let (templates, wanted) = (self.clone(), vm.on(&settings.host));
                let id = wanted.id();
                let bytes = anteroom_template::bytes_to_load(image_dir, &id);
                let counted = self.memory.loading(TemplateMemory { id, bytes });
                drop(known);
                // Those that wait and are of an earlier one end.
                self.wakes.change();
                let (services, screen) = (vm.services.to_vec(), vm.screen);
                let loading = move || {
                    let images = &templates.images;
                    let loaded = load(&settings.key, images, &of.0, &wanted, services, screen);
                    let state = loaded.map_or(State::Refused, |one| State::Loaded(Arc::new(one)));
                    let mut known = templates.known.lock().unwrap_or_else(PoisonError::into_inner);
                    if let State::Loaded(template) = &state {
                        templates.memory.loaded(&template.id, &template.files);
                    }
                    known.insert(of, Known { stamp, state });
                    drop(counted);
                    templates.wakes.change();
                };
                if let Err(error) =
                    std::thread::Builder::new().name("template".into()).spawn(loading)
                {
                    tracing::warn!("loading a template failed: {error}");
                }
                None
            }
        }
    }

    /// Passes on what a clone's runner reports, and says when its sign-in page is open. Where clones fail before
    /// they are awake, no more are made of their template: a VMM that was updated meanwhile would fail each
    /// sign-in so.
    pub fn watch(
        &self,
        template: Arc<Template>,
        mut reports: Reports,
        is_used: impl Fn() + Send + Sync + 'static,
    ) -> Reports {
        let (passed_on, received) = mpsc::channel(WATCHED);
        let templates = self.clone();
        // Until it is awake.
        let mut waking = Some(self.wakes.begin());
        let mut recorder = Recorder::default();
        tokio::spawn(async move {
            while let Some(report) = reports.recv().await {
                if let Some(vmm) = recorder.due(&report) {
                    let recorded = template.recorded.clone();
                    tokio::task::spawn_blocking(move || recorded.record(vmm));
                }
                match &report {
                    // After it was woken.
                    Report::Observed { observation: Observation::FilesInjected { .. } } => {
                        waking = None;
                        template.failures.store(0, Relaxed);
                    }
                    Report::Observed { observation: Observation::Failed(reason) }
                        if waking.is_some() =>
                    {
                        templates.failed(&template, reason);
                    }
                    Report::Observed { observation: Observation::SignInPageOpened } => is_used(),
                    _ => {}
                }
                if passed_on.send(report).await.is_err() {
                    return;
                }
            }
        });
        received
    }

    /// Those in memory, each with what it takes of it: also one that is being loaded, and one that only its
    /// clones have.
    pub fn in_memory(&self) -> Look {
        let known = self.current();
        let is_current = |memory: &Arc<OwnedFd>| {
            let mut loaded = known.values().filter_map(|known| known.state.loaded());
            loaded.any(|template| Arc::ptr_eq(&template.files.memory, memory))
        };
        self.memory.look(is_current)
    }

    /// Those that clones can be made of now: on disk they are as they were loaded.
    pub fn loaded(&self) -> Vec<Arc<Template>> {
        self.current().values().filter_map(|known| known.state.loaded().cloned()).collect()
    }

    /// What is known of templates that are on disk as they were then. Others are forgotten, and with them their
    /// memory, once no clone has it.
    fn current(&self) -> MutexGuard<'_, HashMap<Of, Known>> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|(image_dir, _), known| stamp(image_dir).as_ref() == Some(&known.stamp));
        known
    }

    /// A clone failed before it was awake. Where several do so, for a reason that is the VM's own, none is made
    /// of its template any more.
    pub fn failed(&self, template: &Arc<Template>, reason: &EndReason) {
        let is_its_own = matches!(
            reason,
            EndReason::SandboxNotStarted { .. }
                | EndReason::AgentSilent { .. }
                | EndReason::GuestLinkFailed { .. }
                | EndReason::GuestBrokeProtocol { .. }
        );
        if is_its_own && template.failures.fetch_add(1, Relaxed) + 1 >= MOST_FAILURES {
            self.refuse(template, reason.code());
        }
    }

    /// Makes clones of a copy of a template from now on; nothing happens where they are made of another already.
    pub fn replace(&self, template: &Arc<Template>, copy: Template) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |known: &&mut Known| known.state.loaded().is_some_and(|one| Arc::ptr_eq(one, template));
        if let Some(known) = known.values_mut().find(is_it) {
            self.memory.loaded(&copy.id, &copy.files);
            known.state = State::Loaded(Arc::new(copy));
            self.wakes.change();
        }
    }

    fn refuse(&self, template: &Arc<Template>, code: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let is_it =
            |known: &Known| known.state.loaded().is_some_and(|one| Arc::ptr_eq(one, template));
        let of_it = known.values_mut().find(|known| is_it(known));
        if let Some(known) = of_it {
            known.state = State::Refused;
            self.wakes.change();
            tracing::warn!(
                template = template.id,
                reason = code,
                "clones failed one after the other before they were awake: sign-ins are not started from \
                 this template any more; make it again with `anteroom image snapshot`"
            );
        }
    }
}

/// Loads the template that was made for this; it is said why where there is none.
fn load(
    key: &MachineKey,
    images: &Images,
    image_dir: &Path,
    wanted: &TemplateFor,
    services: Vec<ServiceSpec>,
    screen: ScreenSize,
) -> Option<Template> {
    // Whoever boots it says what is wrong with the image.
    let image = images.open(image_dir).ok()?;
    match anteroom_template::load(image_dir, key, wanted) {
        Ok(loaded) => {
            let id = loaded.manifest.made_for.id();
            tracing::info!(
                image = %image_dir.display(), template = id,
                "sign-ins start from a template"
            );
            let files =
                TemplateFiles { memory: Arc::new(loaded.memory), state: Arc::new(loaded.state) };
            Some(Template {
                loaded_bytes: bytes_of(&files.memory),
                recorded: Recorded::of(id.clone(), &files),
                id,
                image_dir: image_dir.to_path_buf(),
                image: image.files.clone(),
                services,
                screen,
                wake_token: loaded.manifest.wake_token,
                picture: STANDARD.encode(loaded.picture),
                files,
                failures: AtomicU32::new(0),
            })
        }
        Err(error) => {
            tracing::warn!("sign-ins are not started from a template: {}", chain(&error));
            None
        }
    }
}

fn stamp(image_dir: &Path) -> Option<Stamp> {
    let folder = fs::metadata(image_dir.join(anteroom_template::FOLDER)).ok()?;
    let folder = (folder.ino(), folder.mtime(), folder.mtime_nsec());
    Some(Stamp { folder, image: ImageStamp::of(image_dir)? })
}

#[cfg(test)]
impl Template {
    /// One that nothing can be made of.
    pub fn of_test() -> Arc<Self> {
        Self::with_memory(fs::File::open("/dev/null").unwrap().into())
    }

    /// One with this memory.
    pub fn with_memory(memory: OwnedFd) -> Arc<Self> {
        let file = || Arc::new(fs::File::open("/dev/null").unwrap().into());
        let files = TemplateFiles { memory: Arc::new(memory), state: file() };
        Arc::new(Self {
            loaded_bytes: 0,
            recorded: Recorded::of("1".into(), &files),
            id: "1".into(),
            image_dir: PathBuf::new(),
            image: ImageFiles { root: file(), kernel: file(), modules: file() },
            services: Vec::new(),
            screen: ScreenSize { width: 1, height: 1 },
            wake_token: String::new(),
            picture: String::new(),
            files,
            failures: AtomicU32::new(0),
        })
    }
}

#[cfg(test)]
impl Templates {
    /// These alone.
    pub fn of_test(template: &Arc<Template>) -> Self {
        let images = Images::new(PathBuf::new());
        let templates = Self::new(None, images, Wakes::default());
        let state = State::Loaded(Arc::clone(template));
        let known = Known { stamp: Stamp::default(), state };
        templates.known.lock().unwrap().insert((PathBuf::new(), String::new()), known);
        templates
    }

    /// What it is now.
    pub fn only(&self) -> Option<Arc<Template>> {
        self.known.lock().unwrap().values().find_map(|known| known.state.loaded().cloned())
    }
}

#[cfg(test)]
mod tests {
    use anteroom_session::{EndReason, ProcessExit};

    use super::*;

    fn loaded() -> (Templates, Arc<Template>) {
        let template = Template::of_test();
        (Templates::of_test(&template), template)
    }

    /// How often it was said to be used.
    async fn watched(
        templates: &Templates,
        template: &Arc<Template>,
        observed: Vec<Observation>,
    ) -> u32 {
        let (sender, reports) = mpsc::channel(8);
        let used = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&used);
        let is_used = move || _ = counted.fetch_add(1, Relaxed);
        let mut passed_on = templates.watch(Arc::clone(template), reports, is_used);
        for observation in observed {
            sender.send(Report::Observed { observation }).await.unwrap();
        }
        let exit = ProcessExit::Exited { code: 0 };
        sender.send(Report::RunnerExited { exit }).await.unwrap();
        drop(sender);
        while passed_on.recv().await.is_some() {}
        used.load(Relaxed)
    }

    #[tokio::test]
    async fn a_clone_is_used_when_its_sign_in_page_is_open() {
        let (templates, template) = loaded();
        let awake = vec![Observation::FilesInjected { count: 0 }, Observation::SandboxReady];
        assert_eq!(watched(&templates, &template, awake).await, 0);
        let opened = vec![Observation::SignInPageOpened];
        assert_eq!(watched(&templates, &template, opened).await, 1);
    }

    #[tokio::test]
    async fn two_clones_that_never_wake_are_the_last_of_their_template() {
        let cause = || "it does not load".to_owned();
        let its_own = || Observation::Failed(EndReason::SandboxNotStarted { cause: cause() });
        let silent = || {
            let console_tail = Vec::new();
            let waited_ms = 120_000;
            Observation::Failed(EndReason::AgentSilent { waited_ms, run_state: None, console_tail })
        };
        let awake = || Observation::FilesInjected { count: 0 };
        let a_caller_s = || {
            let path = "/etc/passwd/x".to_owned();
            Observation::Failed(EndReason::FileNotInjected { path, cause: cause() })
        };
        for (clones, stays) in [
            ([vec![its_own()], vec![its_own()]], false),
            ([vec![silent()], vec![silent()]], false),
            ([vec![awake(), its_own()], vec![its_own()]], true),
            ([vec![its_own()], vec![awake(), its_own()]], true),
            ([vec![a_caller_s()], vec![a_caller_s()]], true),
        ] {
            let (templates, template) = loaded();
            for observed in clones {
                watched(&templates, &template, observed).await;
            }
            assert_eq!(templates.only().is_some(), stays);
        }
    }
}
