//! How many rooms there may be at a time, and who waits for one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Most rooms that are ever chosen by the machine's memory.
const MOST_BY_MEMORY: u64 = 64;

/// Memory that is left to the rest of the machine, in MiB.
const RESERVE_MIB: u64 = 1024;

/// What the operator allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Rooms at a time.
    pub max_sessions: usize,
    /// Sessions that may wait for a room.
    pub max_queued: usize,
}

/// The rooms that are free, and the places in the queue.
#[derive(Debug)]
pub struct Admission {
    limits: Limits,
    rooms: Arc<Semaphore>,
    sessions: Arc<Semaphore>,
}

/// A session's right to be there, until dropped.
#[derive(Debug)]
pub struct Admitted {
    rooms: Arc<Semaphore>,
    _session: OwnedSemaphorePermit,
}

/// A room that is taken, until dropped.
#[derive(Debug)]
pub struct TakenRoom(
    #[expect(dead_code, reason = "the permit is what counts")] OwnedSemaphorePermit,
);

impl Admission {
    /// Nothing is taken yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            rooms: Arc::new(Semaphore::new(limits.max_sessions)),
            sessions: Arc::new(Semaphore::new(limits.max_sessions + limits.max_queued)),
        }
    }

    /// What was allowed.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Admits a session; `None` when all rooms and all places in the queue are taken.
    pub fn admit(&self) -> Option<Admitted> {
        let session = Arc::clone(&self.sessions).try_acquire_owned().ok()?;
        Some(Admitted { rooms: Arc::clone(&self.rooms), _session: session })
    }
}

impl Admitted {
    /// A room, if one is free now.
    pub fn try_room(&self) -> Option<TakenRoom> {
        Arc::clone(&self.rooms).try_acquire_owned().ok().map(TakenRoom)
    }

    /// A room, once one is free; first come, first served. May be dropped and called again, at the
    /// price of the place in the queue.
    pub fn room(&self) -> impl Future<Output = TakenRoom> + Send + Sync + use<> {
        let rooms = Arc::clone(&self.rooms);
        async move {
            match rooms.acquire_owned().await {
                Ok(room) => TakenRoom(room),
                // Nobody closes it.
                Err(_) => std::future::pending().await,
            }
        }
    }
}

/// How many rooms of `room_mib` the machine's free memory holds, at least one.
pub fn rooms_by_memory(room_mib: u64) -> usize {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    rooms_in(available_mib(&text).unwrap_or_default(), room_mib)
}

fn rooms_in(available_mib: u64, room_mib: u64) -> usize {
    let rooms = available_mib.saturating_sub(RESERVE_MIB) / room_mib.max(1);
    usize::try_from(rooms.clamp(1, MOST_BY_MEMORY)).unwrap_or(1)
}

/// `MemAvailable` of /proc/meminfo, which has it in kB.
fn available_mib(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? / 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn rooms_go_round_and_the_queue_ends() {
        let admission = Admission::new(Limits { max_sessions: 1, max_queued: 1 });
        let first = admission.admit().unwrap();
        let room = first.try_room().unwrap();
        let second = admission.admit().unwrap();
        assert!(second.try_room().is_none());
        assert!(admission.admit().is_none());
        let waiting = tokio::spawn(second.room());
        drop((room, first));
        waiting.await.unwrap();
        assert!(admission.admit().is_some());
    }

    #[test]
    fn a_small_machine_has_one_room() {
        let meminfo = "MemTotal:  24000000 kB\nMemAvailable:    8388608 kB\n";
        assert_eq!(available_mib(meminfo), Some(8192));
        assert_eq!(rooms_in(8192, 2816), 2);
        assert_eq!(rooms_in(100, 2816), 1);
        assert_eq!(rooms_in(1_000_000, 100), 64);
    }
}
