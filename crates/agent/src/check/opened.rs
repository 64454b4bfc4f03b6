//! Which programs and libraries are opened in the sandbox, as the kernel reports it (fanotify(7)).
//!
//! A file that was never opened was never run. One that was, in a sandbox where nothing died of it, held
//! no instruction that was reached and that the processor lacks.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, anyhow};
use nix::sys::fanotify::{EventFFlags, Fanotify, InitFlags, MarkFlags, MaskFlags};

/// Most paths that are kept: an image has some thousand programs and libraries.
const MAX_PATHS: usize = 20_000;

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";

/// The ELF files that were opened so far. Cheap to clone.
#[derive(Clone)]
pub struct OpenedFiles(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    in_order: Vec<String>,
    known: HashSet<String>,
    /// Why nothing (more) is seen.
    blind: Option<String>,
}

impl OpenedFiles {
    /// Begins to watch the mount that the sandbox's programs are on. Needs the guest's root.
    pub fn watch() -> Self {
        let opened = Self(Arc::default());
        let watching = opened.clone();
        match begin() {
            // A thread of its own: reading blocks, and the agent has the one other thread.
            Ok(fanotify) => drop(std::thread::spawn(move || watching.follow(&fanotify))),
            Err(error) => opened.lock().blind = Some(format!("{error:#}")),
        }
        opened
    }

    /// Paths in the order of their first opening, without the first `skip`, and whether there are
    /// more than `most`.
    pub fn after(&self, skip: usize, most: usize) -> Result<(Vec<String>, bool)> {
        let seen = self.lock();
        if let Some(why) = &seen.blind {
            return Err(anyhow!("which files were opened is not known: {why}"));
        }
        let rest = seen.in_order.get(skip..).unwrap_or_default();
        Ok((rest.iter().take(most).cloned().collect(), rest.len() > most))
    }

    fn follow(&self, fanotify: &Fanotify) {
        loop {
            let events = match fanotify.read_events() {
                Ok(events) => events,
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => {
                    self.lock().blind =
                        Some(format!("reading the kernel's events failed: {error}"));
                    return;
                }
            };
            for event in events {
                if event.mask().contains(MaskFlags::FAN_Q_OVERFLOW) {
                    self.lock().blind = Some("the kernel's queue of events overflowed".to_owned());
                    return;
                }
                if let Some(path) = event.fd().and_then(elf_path) {
                    self.lock().add(path);
                }
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seen {
    fn add(&mut self, path: String) {
        if self.in_order.len() == MAX_PATHS {
            self.blind = Some(format!("there were more than {MAX_PATHS}"));
        } else if self.known.insert(path.clone()) {
            self.in_order.push(path);
        }
    }
}

fn begin() -> Result<Fanotify> {
    let flags =
        InitFlags::FAN_CLASS_NOTIF | InitFlags::FAN_CLOEXEC | InitFlags::FAN_UNLIMITED_QUEUE;
    let fanotify = Fanotify::init(flags, EventFFlags::O_RDONLY | EventFFlags::O_CLOEXEC)
        .context("asking the kernel to report opened files failed")?;
    fanotify
        .mark(
            MarkFlags::FAN_MARK_ADD | MarkFlags::FAN_MARK_MOUNT,
            MaskFlags::FAN_OPEN,
            nix::fcntl::AT_FDCWD,
            Some("/"),
        )
        .context("watching the root file system failed")?;
    Ok(fanotify)
}

/// The path of an opened ELF file.
fn elf_path(fd: impl AsFd) -> Option<String> {
    let file = std::fs::File::from(fd.as_fd().try_clone_to_owned().ok()?);
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, 0).ok()?;
    if magic != ELF_MAGIC {
        return None;
    }
    use std::os::fd::AsRawFd;
    let path = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).ok()?;
    Some(path.to_string_lossy().into_owned())
}
