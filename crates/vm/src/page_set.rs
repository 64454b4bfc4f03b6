//! Pages of a file.

use serde::{Deserialize, Serialize};

/// The size of a page in bytes, as x86-64 maps files.
pub const PAGE: u64 = 4096;

/// Pages of a file by their numbers, at most [`PageSet::MOST`]. What says which came from processes that a
/// guest may have taken over: it is no more than numbers, and each is held against the file where it is used.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<Run>", into = "Vec<Run>")]
pub struct PageSet(Vec<Run>);

/// The first of some pages in a row, and how many they are.
type Run = (u32, u32);

/// These are no pages of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the runs of pages are not in order, or have more than {} pages", PageSet::MOST)]
pub struct NotASet;

impl PageSet {
    /// The most that one has, of 128 MiB. A clone has changed some 30 MiB when its guest is seen.
    pub const MOST: usize = 32_768;

    /// The first [`Self::MOST`] of these, which are in order.
    pub(crate) fn of(pages: impl IntoIterator<Item = u32>) -> Self {
        let mut runs: Vec<Run> = Vec::new();
        for page in pages.into_iter().take(Self::MOST) {
            match runs.last_mut() {
                Some((first, count)) if first.checked_add(*count) == Some(page) => *count += 1,
                _ => runs.push((page, 1)),
            }
        }
        Self(runs)
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|(_, count)| *count as usize).sum()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Their numbers, in order.
    pub(crate) fn pages(&self) -> impl Iterator<Item = u32> {
        // No run is empty.
        self.0.iter().flat_map(|(first, count)| *first..=first.saturating_add(count - 1))
    }
}

impl TryFrom<Vec<Run>> for PageSet {
    type Error = NotASet;

    fn try_from(runs: Vec<Run>) -> Result<Self, NotASet> {
        let (mut after, mut pages) = (0_u32, 0_usize);
        for (first, count) in &runs {
            let last = first.checked_add(*count).filter(|_| *count > 0 && *first >= after);
            after = last.ok_or(NotASet)?;
            pages = pages.saturating_add(*count as usize);
        }
        if pages > Self::MOST { Err(NotASet) } else { Ok(Self(runs)) }
    }
}

impl From<PageSet> for Vec<Run> {
    fn from(set: PageSet) -> Self {
        set.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn no_more_pages_are_kept_than_may_be() {
        let every_other = PageSet::of((0..).step_by(2));
        assert_eq!((every_other.len(), every_other.0.len()), (PageSet::MOST, PageSet::MOST));
        let whole = PageSet::of(u32::MAX - 1..=u32::MAX);
        assert_eq!(whole.pages().collect::<Vec<_>>(), [u32::MAX - 1, u32::MAX]);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        for runs in [
            "[[0,32769]]",
            "[[0,32768],[70000,1]]",
            "[[0,0]]",
            "[[1,1],[0,1]]",
            "[[0,2],[1,1]]",
            "[[4294967295,2]]",
            "[[0,4294967295]]",
        ] {
            let error = serde_json::from_str::<PageSet>(runs).unwrap_err();
            assert!(error.to_string().contains("not in order"), "{runs}: {error}");
        }
        assert!(serde_json::from_str::<PageSet>("[[-1,1]]").is_err());
        assert_eq!(serde_json::from_str::<PageSet>("[]").unwrap(), PageSet::default());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(pages in prop::collection::btree_set(0_u32..2000, 0..500)) {
            let set = PageSet::of(pages.iter().copied());
            prop_assert_eq!(set.len(), pages.len());
            prop_assert_eq!(set.is_empty(), pages.is_empty());
            prop_assert_eq!(&set.pages().collect::<BTreeSet<_>>(), &pages);
            let text = serde_json::to_string(&set).unwrap();
            prop_assert_eq!(serde_json::from_str::<PageSet>(&text).unwrap(), set);
        }

        #[test]
        fn whatever_is_read_has_pages_in_order(runs in prop::collection::vec((any::<u32>(), 0_u32..40_000), 0..4)) {
            if let Ok(set) = PageSet::try_from(runs) {
                let pages: Vec<u32> = set.pages().collect();
                prop_assert!(pages.len() == set.len() && pages.len() <= PageSet::MOST);
                prop_assert!(pages.is_sorted_by(|one, next| one < next));
            }
        }
    }
}
