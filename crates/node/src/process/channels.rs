//! Channels of a session's viewers: each viewer has so many, and the newest wins.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use anteroom_session::AccessGrant;
use tokio_util::sync::CancellationToken;

/// Channels of one viewer at a time. One more closes the oldest: nobody is turned away because of what
/// is open, which a browser may have forgotten.
const MAX_CHANNELS: usize = 8;

/// The channels that are open.
#[derive(Debug, Default)]
pub struct Places(Mutex<VecDeque<(AccessGrant, CancellationToken)>>);

/// A channel's place, until it is dropped.
#[derive(Debug)]
pub struct Place {
    token: CancellationToken,
    places: Arc<Places>,
}

impl Places {
    /// A place for a viewer's channel; their oldest is closed if they have too many.
    pub fn take(self: &Arc<Self>, viewer: AccessGrant) -> Place {
        let token = CancellationToken::new();
        let mut places = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_theirs = |(of, _): &&(AccessGrant, CancellationToken)| *of == viewer;
        if places.iter().filter(is_theirs).count() >= MAX_CHANNELS
            && let Some(oldest) = places.iter().position(|(of, _)| *of == viewer)
            && let Some((_, closed)) = places.remove(oldest)
        {
            closed.cancel();
        }
        places.push_back((viewer, token.clone()));
        Place { token, places: Arc::clone(self) }
    }
}

impl Place {
    /// Comes when the place is given to a newer channel; keeps it until then, or until dropped.
    pub async fn evicted(self) {
        self.token.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Marks it as the one to take out.
        self.token.cancel();
        let mut places = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|(_, token)| !token.is_cancelled());
    }
}

#[cfg(test)]
mod tests {
    use anteroom_session::HolderGeneration;

    use super::*;

    #[test]
    fn one_viewer_s_newest_channels_stay_and_another_s_are_not_touched() {
        let places = Arc::new(Places::default());
        let end_user = AccessGrant::Link { generation: HolderGeneration::FIRST };
        let caller = places.take(AccessGrant::ApiKey { key: "ci".parse().unwrap() });
        let mut open: Vec<Place> =
            (0..MAX_CHANNELS).map(|_| places.take(end_user.clone())).collect();
        assert!(open.iter().all(|place| !place.token.is_cancelled()));
        open.push(places.take(end_user.clone()));
        let closed: Vec<bool> = open.iter().map(|place| place.token.is_cancelled()).collect();
        assert_eq!(closed.iter().filter(|closed| **closed).count(), 1);
        assert!(closed[0] && !caller.token.is_cancelled());
        // One that is closed frees its place.
        open.pop();
        let again = places.take(end_user.clone());
        assert!(!again.token.is_cancelled() && !open[1].token.is_cancelled());
        drop((open, caller, again));
        assert!(places.0.lock().unwrap().is_empty());
    }
}
