//! Why a session is not admitted, in one sentence.

use std::fmt;

use anteroom_session::counted::counted;

/// What there is too little of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shortage {
    /// As many sessions run as may.
    Sessions {
        /// How many.
        most: usize,
    },
    /// Those that wait are served first.
    Queue {
        /// How many.
        waiting: usize,
    },
    /// It would take more memory than all sessions may.
    TooLarge {
        /// Memory that one more takes.
        needs: u64,
        /// What is reserved.
        reserved: Reserved,
    },
    /// The memory that sessions may take is reserved.
    Budget {
        /// Memory that one more takes.
        needs: u64,
        /// What is reserved.
        reserved: Reserved,
    },
    /// The machine has less free memory than that.
    Memory {
        /// Memory that one more takes.
        needs: u64,
        /// What is free for sessions.
        free: u64,
        /// What of it sessions that run may still take.
        promised: u64,
    },
    /// The disk of the node's state is full, or nearly.
    Disk {
        /// What one more takes of it.
        needs: u64,
        /// What is free for sessions.
        free: u64,
        /// What of it sessions that start may still take.
        promised: u64,
    },
    /// The machine can start no more processes.
    Pids {
        /// How many one more takes.
        needs: u64,
        /// How many are free for sessions.
        free: u64,
        /// How many of them sessions that start may still take.
        promised: u64,
    },
}

/// What is reserved together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reserved {
    /// By how many sessions.
    pub sessions: usize,
    /// Memory of the sessions.
    pub memory_bytes: u64,
    /// Memory of the templates.
    pub templates_bytes: u64,
    /// Of how much memory.
    pub budget_bytes: u64,
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Sessions { most: 1 } => f.write_str("the only session slot is in use"),
            Self::Sessions { most } => write!(f, "all {most} session slots are in use"),
            Self::Queue { waiting: 1 } => {
                f.write_str("one session that came before waits for capacity, and is served first")
            }
            Self::Queue { waiting } => write!(
                f,
                "{waiting} sessions that came before wait for capacity, and are served first"
            ),
            Self::TooLarge { needs, reserved: Reserved { templates_bytes, budget_bytes, .. } } => {
                let (needs, budget) = (Size(needs), Size(budget_bytes));
                write!(
                    f,
                    "the session takes {needs} of memory, and all sessions together may take {budget}"
                )?;
                if templates_bytes > 0 {
                    write!(f, ", of which templates take {}", Size(templates_bytes))?;
                }
                f.write_str("; `serve --memory-budget` or a smaller `--memory` changes that")
            }
            Self::Budget { needs, reserved } => {
                let Reserved { sessions, memory_bytes, templates_bytes, budget_bytes } = reserved;
                let (memory, budget) = (Size(memory_bytes), Size(budget_bytes));
                let sessions = counted(sessions as u64, "session", "sessions");
                write!(
                    f,
                    "the machine has memory for no more sessions: {memory} of {budget} are reserved by {sessions}"
                )?;
                if templates_bytes > 0 {
                    write!(f, " and {} by templates", Size(templates_bytes))?;
                }
                write!(f, ", and one more takes {}", Size(needs))
            }
            Self::Memory { needs, free, promised } => {
                let (needs, free, promised) = (Size(needs), Size(free), Size(promised));
                write!(
                    f,
                    "the machine has too little free memory: one more session takes {needs}, and {free} are free, of which {promised} are promised to others"
                )
            }
            Self::Disk { needs, free, promised } => {
                let (needs, free, promised) = (Size(needs), Size(free), Size(promised));
                write!(
                    f,
                    "the disk of the state folder is too full: one more session takes {needs}, and {free} are free, of which {promised} are promised to others"
                )
            }
            Self::Pids { needs, free, promised } => {
                write!(
                    f,
                    "the machine can start too few processes: one more session takes {needs}, and {free} are free, of which {promised} are promised to others"
                )
            }
        }
    }
}

/// Bytes in words: in GiB with a tenth, or in MiB below one.
struct Size(u64);

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = self.0 >> 20;
        match mib {
            0..1024 => write!(f, "{mib} MiB"),
            _ => write!(f, "{}.{} GiB", mib / 1024, mib % 1024 * 10 / 1024),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn each_shortage_is_one_sentence_with_its_numbers() {
        let reserved = Reserved {
            sessions: 6,
            memory_bytes: GIB + (GIB >> 1),
            templates_bytes: 650 << 20,
            budget_bytes: 2 * GIB + (GIB >> 1),
        };
        let needs = 512 << 20;
        for (shortage, sentence) in [
            (Shortage::Sessions { most: 1 }, "the only session slot is in use"),
            (Shortage::Sessions { most: 4 }, "all 4 session slots are in use"),
            (
                Shortage::Queue { waiting: 1 },
                "one session that came before waits for capacity, and is served first",
            ),
            (
                Shortage::Queue { waiting: 2 },
                "2 sessions that came before wait for capacity, and are served first",
            ),
            (
                Shortage::Budget { needs, reserved },
                "the machine has memory for no more sessions: 1.5 GiB of 2.5 GiB are reserved by 6 sessions \
                 and 650 MiB by templates, and one more takes 512 MiB",
            ),
            (
                Shortage::TooLarge {
                    needs: 3 * GIB,
                    reserved: Reserved { templates_bytes: 0, ..reserved },
                },
                "the session takes 3.0 GiB of memory, and all sessions together may take 2.5 GiB; \
                 `serve --memory-budget` or a smaller `--memory` changes that",
            ),
            (
                Shortage::Memory { needs, free: GIB, promised: GIB },
                "the machine has too little free memory: one more session takes 512 MiB, and 1.0 GiB are \
                 free, of which 1.0 GiB are promised to others",
            ),
            (
                Shortage::Pids { needs: 256, free: 300, promised: 256 },
                "the machine can start too few processes: one more session takes 256, and 300 are free, of \
                 which 256 are promised to others",
            ),
        ] {
            assert_eq!(shortage.to_string(), sentence);
        }
    }
}
