//! What templates take of this machine's memory: from when one begins to be loaded, for as long as clones are made
//! of it, and after that until the last of them has ended.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use anteroom_guest_session::TemplateFiles;
use anteroom_node_protocol::TemplateMemory;

/// Every template that has memory. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct MemoryOfTemplates(Arc<Mutex<Vec<Held>>>);

/// A template for as long as somebody has it.
#[derive(Debug)]
enum Held {
    /// It is being loaded: what it takes on the disk is what it will take.
    Loading(Weak<TemplateMemory>),
    /// It is in memory, in these files.
    Loaded { id: String, memory: Weak<OwnedFd>, state: Weak<OwnedFd> },
}

/// What they take at some moment.
#[derive(Debug, Default)]
pub struct Look {
    /// By template; of one that was loaded again, both together.
    pub templates: Vec<TemplateMemory>,
    /// All together.
    pub bytes: u64,
    /// Of them, those of templates that are being loaded, or that no clone is made of any more.
    pub unsettled_bytes: u64,
}

impl MemoryOfTemplates {
    /// One is being loaded, until this is dropped.
    pub fn loading(&self, memory: TemplateMemory) -> Arc<TemplateMemory> {
        let loading = Arc::new(memory);
        self.with(|held| held.push(Held::Loading(Arc::downgrade(&loading))));
        loading
    }

    /// One was loaded.
    pub fn loaded(&self, id: &str, TemplateFiles { memory, state }: &TemplateFiles) {
        let (memory, state) = (Arc::downgrade(memory), Arc::downgrade(state));
        self.with(|held| held.push(Held::Loaded { id: id.to_owned(), memory, state }));
    }

    /// What they take now; `is_current` says whether clones are made of the template with this memory.
    pub fn look(&self, is_current: impl Fn(&Arc<OwnedFd>) -> bool) -> Look {
        let mut look = Look::default();
        let mut by_id: BTreeMap<String, u64> = BTreeMap::new();
        self.with(|held| {
            held.retain(|held| {
                let Some((id, bytes, is_settled)) = held.now(&is_current) else { return false };
                *by_id.entry(id).or_default() += bytes;
                look.bytes += bytes;
                look.unsettled_bytes += if is_settled { 0 } else { bytes };
                true
            });
        });
        look.templates =
            by_id.into_iter().map(|(id, bytes)| TemplateMemory { id, bytes }).collect();
        look
    }

    fn with<T>(&self, with: impl FnOnce(&mut Vec<Held>) -> T) -> T {
        with(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Held {
    /// Its id, its bytes, and whether new clones are made of it; `None` once nobody has it.
    fn now(&self, is_current: impl Fn(&Arc<OwnedFd>) -> bool) -> Option<(String, u64, bool)> {
        match self {
            Self::Loading(loading) => {
                let TemplateMemory { id, bytes } = &*loading.upgrade()?;
                Some((id.clone(), *bytes, false))
            }
            Self::Loaded { id, memory, state } => {
                let (memory, state) = (memory.upgrade(), state.upgrade());
                let files = memory.iter().chain(&state);
                let bytes = files.clone().map(bytes_of).sum();
                files.clone().next()?;
                Some((id.clone(), bytes, memory.as_ref().is_some_and(is_current)))
            }
        }
    }
}

/// What of a file in memory is there: its holes take nothing.
pub fn bytes_of(file: &impl AsFd) -> u64 {
    const BLOCK: u64 = 512;
    let blocks = nix::sys::stat::fstat(file).map_or(0, |file| file.st_blocks);
    u64::try_from(blocks).unwrap_or_default() * BLOCK
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    const MIB: u64 = 1 << 20;

    fn files(mib: usize) -> TemplateFiles {
        let file = |mib: usize| {
            let mut file = anteroom_template::in_memory("template").unwrap();
            file.write_all(&vec![1; mib << 20]).unwrap();
            Arc::new(OwnedFd::from(file))
        };
        TemplateFiles { memory: file(mib), state: file(1) }
    }

    #[test]
    fn a_template_counts_from_its_load_to_the_end_of_its_last_clone() {
        let memory = MemoryOfTemplates::default();
        let take = |current: Option<&TemplateFiles>| {
            let is_current =
                |file: &Arc<OwnedFd>| current.is_some_and(|files| Arc::ptr_eq(&files.memory, file));
            let look = memory.look(is_current);
            (look.templates.len(), look.bytes / MIB, look.unsettled_bytes / MIB)
        };
        let loading = || TemplateMemory { id: "t".to_owned(), bytes: 5 * MIB };
        let first_load = memory.loading(loading());
        assert_eq!(take(None), (1, 5, 5));
        let first = files(3);
        memory.loaded("t", &first);
        drop(first_load);
        assert_eq!(take(Some(&first)), (1, 4, 0));
        // It is loaded again while a clone has it.
        let second_load = memory.loading(loading());
        assert_eq!(take(None), (1, 9, 9));
        let second = files(2);
        memory.loaded("t", &second);
        drop(second_load);
        assert_eq!(take(Some(&second)), (1, 7, 4));
        let of_a_clone = Arc::clone(&first.state);
        drop(first);
        assert_eq!(take(Some(&second)), (1, 4, 1));
        drop(of_a_clone);
        assert_eq!(take(Some(&second)), (1, 3, 0));
        drop(second);
        assert_eq!(take(None), (0, 0, 0));
    }
}
