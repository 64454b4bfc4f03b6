//! Pages that a clone changes until its guest is seen: recorded of the first that is, for those that wait
//! after it.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, OnceLock};

use anteroom_guest_session::TemplateFiles;
use anteroom_node_protocol::Report;
use anteroom_session::Observation;
use anteroom_vm::{PageSet, changed_pages};

use super::pages::is_gone;

/// What was recorded of a template's clones. In memory alone: after a restart the first one is recorded again.
/// Cheap to clone.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// The template's id.
    template: String,
    memory: Arc<OwnedFd>,
    pages: Arc<OnceLock<PageSet>>,
}

impl Recorded {
    /// Nothing yet, of clones of this template.
    pub fn of(template: String, files: &TemplateFiles) -> Self {
        Self { template, memory: Arc::clone(&files.memory), pages: Arc::default() }
    }

    /// The same of a copy of the template.
    pub fn of_copy(&self, files: &TemplateFiles) -> Self {
        Self { memory: Arc::clone(&files.memory), ..self.clone() }
    }

    /// The pages, once they are known.
    pub fn pages(&self) -> PageSet {
        self.pages.get().cloned().unwrap_or_default()
    }

    /// Reads which pages this VMM's clone has changed, where none are known yet. It blocks for some milliseconds.
    pub fn record(&self, vmm: u32) {
        if self.pages.get().is_some() {
            return;
        }
        let template = &self.template;
        let pages = match changed_pages(vmm, &self.memory) {
            // It has ended meanwhile; the next one is recorded.
            Err(error) if has_ended(&error) => return,
            Ok(pages) if pages.is_empty() => return,
            Err(error) => {
                tracing::warn!(
                    "reading which pages a clone of template {template} has changed failed: {error}; \
                     clones that wait copy none ahead"
                );
                PageSet::default()
            }
            Ok(pages) => {
                tracing::info!(template, pages = pages.len(), "recorded what a clone changes");
                pages
            }
        };
        // Another may have been recorded meanwhile: one is as good as the other.
        let _ = self.pages.set(pages);
    }
}

/// Follows a clone's reports until a viewer sees its guest.
#[derive(Debug, Default)]
pub struct Recorder {
    vmm: Option<u32>,
}

impl Recorder {
    /// The VMM to be recorded now that the clone has reported this: once.
    pub fn due(&mut self, report: &Report) -> Option<u32> {
        match report {
            // The first time its guest had not run, which could have taken over who reports.
            Report::Observed { observation: Observation::SandboxStarted { pid, .. } } => {
                self.vmm.get_or_insert(*pid);
                None
            }
            Report::Observed { observation: Observation::LiveFrameShown } => self.vmm.take(),
            _ => None,
        }
    }
}

/// Its memory may end while that is read, too.
fn has_ended(error: &io::Error) -> bool {
    is_gone(error) || error.kind() == io::ErrorKind::UnexpectedEof
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use anteroom_session::{Accelerator, DriverKind};

    use super::*;

    fn started(pid: u32) -> Report {
        let (driver, accelerator) = (DriverKind::Qemu, Accelerator::Tcg);
        let observation = Observation::SandboxStarted { driver, accelerator, pid, cloned: None };
        Report::Observed { observation }
    }

    #[test]
    fn a_clone_is_recorded_once_when_it_is_seen_by_the_process_that_it_began_as() {
        let seen = Report::Observed { observation: Observation::LiveFrameShown };
        let mut recorder = Recorder::default();
        let due: Vec<Option<u32>> = [&seen, &started(7), &started(8), &seen, &seen]
            .map(|report| recorder.due(report))
            .into();
        assert_eq!(due, [None, None, None, Some(7), None]);
    }

    #[test]
    fn a_process_that_is_gone_or_does_not_map_the_template_leaves_the_next_to_be_recorded() {
        let file = || Arc::new(File::open("/dev/null").unwrap().into());
        let files = TemplateFiles { memory: file(), state: file() };
        let recorded = Recorded::of("1".to_owned(), &files);
        for pid in [i32::MAX.unsigned_abs(), std::process::id()] {
            recorded.record(pid);
            assert!(recorded.pages.get().is_none(), "{pid}");
        }
        assert!(recorded.pages().is_empty());
    }
}
