//! Templates of this machine's images: loaded once, sealed, and shared by the VMs of all sessions.

use std::collections::HashMap;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_guest_link::chain;
use anteroom_guest_protocol::ScreenSize;
use anteroom_guest_session::TemplateFiles;
use anteroom_guest_session::template::Host;
use anteroom_node_protocol::{Report, Reports, TemplateMemory};
use anteroom_session::Observation;
use anteroom_template::{MachineKey, TemplateFor};
use tokio::sync::mpsc;

/// Reports that may wait between a clone's runner and the controller.
const WATCHED: usize = 16;

/// What templates are used with.
#[derive(Clone, Debug)]
pub struct TemplateSettings {
    /// The key that they were signed with.
    pub key: Arc<MachineKey>,
    /// What they were made on.
    pub host: Host,
    /// The usual desktop size.
    pub screen: ScreenSize,
}

/// A template that clones are made of.
#[derive(Debug)]
pub struct Template {
    pub id: String,
    pub wake_token: String,
    pub files: TemplateFiles,
}

/// Of which image, in its folder, and with which extra authorities.
type Of = (PathBuf, String);

/// Templates by what they are of. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Templates {
    settings: Option<TemplateSettings>,
    known: Arc<Mutex<HashMap<Of, Known>>>,
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

/// Changes with each template that is written or removed: of the folder that they are renamed into, inode
/// and time of its last change.
type Stamp = (u64, i64, i64);

impl Templates {
    pub fn new(settings: Option<TemplateSettings>) -> Self {
        Self { settings, known: Arc::default() }
    }

    /// The template of the image in a folder, once it is loaded. The first time that it is asked for begins
    /// that, on a thread of its own: nobody waits for it.
    pub fn of(
        &self,
        image_dir: &Path,
        extra_ca_pem: &str,
        wanted: impl FnOnce(&Host) -> TemplateFor,
    ) -> Option<Arc<Template>> {
        let settings = self.settings.clone()?;
        let stamp = stamp(image_dir)?;
        let of = (image_dir.to_path_buf(), extra_ca_pem.to_owned());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        match known.get(&of) {
            Some(Known { stamp: seen, state }) if *seen == stamp => match state {
                State::Loaded(template) => Some(Arc::clone(template)),
                State::Loading | State::Refused => None,
            },
            _ => {
                known.insert(of.clone(), Known { stamp, state: State::Loading });
                drop(known);
                let (templates, wanted) = (self.clone(), wanted(&settings.host));
                let loading = move || templates.load(&settings.key, of, stamp, &wanted);
                if let Err(error) =
                    std::thread::Builder::new().name("template".into()).spawn(loading)
                {
                    tracing::warn!("loading a template failed: {error}");
                }
                None
            }
        }
    }

    /// Passes on what a clone's runner reports. One that fails before it is awake is the last of its
    /// template: a VMM that was updated meanwhile would fail each sign-in so.
    pub fn watch(&self, template: Arc<Template>, mut reports: Reports) -> Reports {
        let (passed_on, received) = mpsc::channel(WATCHED);
        let templates = self.clone();
        tokio::spawn(async move {
            let mut is_awake = false;
            while let Some(report) = reports.recv().await {
                match &report {
                    // After it was woken.
                    Report::Observed { observation: Observation::FilesInjected { .. } } => {
                        is_awake = true;
                    }
                    Report::Observed { observation: Observation::Failed(reason) } if !is_awake => {
                        templates.refuse(&template, reason.code());
                    }
                    _ => {}
                }
                if passed_on.send(report).await.is_err() {
                    return;
                }
            }
        });
        received
    }

    /// Those in memory, each with what it takes of it.
    pub fn loaded(&self) -> Vec<TemplateMemory> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let loaded = known.values().filter_map(|known| match &known.state {
            State::Loaded(template) => Some(template),
            State::Loading | State::Refused => None,
        });
        let memory = |template: &Arc<Template>| {
            let TemplateFiles { memory, state } = &template.files;
            let bytes = in_memory(memory) + in_memory(state);
            TemplateMemory { id: template.id.clone(), bytes }
        };
        loaded.map(memory).collect()
    }

    fn refuse(&self, template: &Arc<Template>, code: &str) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let of_it = known.values_mut().find(
            |known| matches!(&known.state, State::Loaded(loaded) if Arc::ptr_eq(loaded, template)),
        );
        if let Some(known) = of_it {
            known.state = State::Refused;
            tracing::warn!(
                template = template.id,
                reason = code,
                "a clone failed before it was awake: sign-ins are not started from this \
                 template any more; make it again with `anteroom image snapshot`"
            );
        }
    }

    fn load(&self, key: &MachineKey, of: Of, stamp: Stamp, wanted: &TemplateFor) {
        let state = match anteroom_template::load(&of.0, key, wanted) {
            Ok(loaded) => {
                let id = loaded.manifest.made_for.id();
                tracing::info!(
                    image = %of.0.display(), template = id,
                    "sign-ins start from a template"
                );
                State::Loaded(Arc::new(Template {
                    id,
                    wake_token: loaded.manifest.wake_token,
                    files: TemplateFiles {
                        memory: Arc::new(loaded.memory),
                        state: Arc::new(loaded.state),
                    },
                }))
            }
            Err(error) => {
                tracing::warn!("sign-ins are not started from a template: {}", chain(&error));
                State::Refused
            }
        };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(of, Known { stamp, state });
    }
}

/// What of a file in memory is there: its holes take nothing.
fn in_memory(file: &impl AsFd) -> u64 {
    const BLOCK: u64 = 512;
    let blocks = nix::sys::stat::fstat(file).map_or(0, |file| file.st_blocks);
    u64::try_from(blocks).unwrap_or_default() * BLOCK
}

fn stamp(image_dir: &Path) -> Option<Stamp> {
    let folder = fs::metadata(image_dir.join(anteroom_template::FOLDER)).ok()?;
    Some((folder.ino(), folder.mtime(), folder.mtime_nsec()))
}

#[cfg(test)]
mod tests {
    use anteroom_session::{EndReason, ProcessExit};

    use super::*;

    fn loaded() -> (Templates, Arc<Template>) {
        let file = || Arc::new(std::fs::File::open("/dev/null").unwrap().into());
        let files = TemplateFiles { memory: file(), state: file() };
        let template = Arc::new(Template { id: "1".into(), wake_token: String::new(), files });
        let templates = Templates::new(None);
        let state = State::Loaded(Arc::clone(&template));
        let known = Known { stamp: (0, 0, 0), state };
        templates.known.lock().unwrap().insert((PathBuf::new(), String::new()), known);
        (templates, template)
    }

    fn is_loaded(templates: &Templates) -> bool {
        let known = templates.known.lock().unwrap();
        known.values().all(|known| matches!(known.state, State::Loaded(_)))
    }

    #[tokio::test]
    async fn a_clone_that_never_wakes_is_the_last_of_its_template() {
        let failed = || {
            let cause = "it does not load".to_owned();
            Observation::Failed(EndReason::SandboxNotStarted { cause })
        };
        for (before, stays) in
            [(vec![], false), (vec![Observation::FilesInjected { count: 0 }], true)]
        {
            let (templates, template) = loaded();
            let (sender, reports) = mpsc::channel(8);
            let mut passed_on = templates.watch(template, reports);
            let observed = before.into_iter().chain([failed()]);
            for observation in observed {
                sender.send(Report::Observed { observation }).await.unwrap();
            }
            let exit = ProcessExit::Exited { code: 0 };
            sender.send(Report::RunnerExited { exit }).await.unwrap();
            drop(sender);
            while passed_on.recv().await.is_some() {}
            assert_eq!(is_loaded(&templates), stays);
        }
    }
}
