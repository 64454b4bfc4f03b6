//! How sharp a frame is made, and when a still picture is sent again so that text becomes sharp.

use std::time::{Duration, Instant};

use crate::blocks::Blocks;

/// The least time between two refining frames.
pub const INTERVAL: Duration = Duration::from_millis(70);
/// The sharpest quantizer that is used (of 0 to 63).
pub const MIN_QUANTIZER: u8 = 4;
/// The coarsest quantizer that is used.
pub const MAX_QUANTIZER: u8 = 52;
/// A frame at this quantizer or below needs no refinement.
pub const SHARP_QUANTIZER: u8 = 14;

/// The coarsest quantizers of a block's refining frames, one after another.
// VP8 lags behind these and may need the last ones.
const LADDER: [u8; 6] = [38, 30, 22, SHARP_QUANTIZER, SHARP_QUANTIZER, SHARP_QUANTIZER];
/// The bytes that a block of text takes at about these quantizers (measured with libvpx 1.12).
const BLOCK_BYTES: [(u8, u64); 4] = [(SHARP_QUANTIZER, 65), (22, 50), (30, 36), (38, 24)];
/// What a frame of motion may take: it has to be gone before the next.
const MOTION_PERIOD: Duration = Duration::from_micros(16_667);

/// What to encode of the screen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What changed since the last frame.
    pub changed: Blocks,
    /// The blocks to encode: those, and such as become sharper.
    pub active: Blocks,
    /// No coarser than this.
    pub max_quantizer: u8,
}

/// Which blocks the viewer has in less than full sharpness, and when to send them again.
///
/// libvpx's rate control takes seconds to make a still page sharp. Here the coarsest quantizer of
/// each frame is set instead: a small change, such as a letter, is sharp at once, and what moved is
/// sent again in up to six steps, each no sooner than the one before has left. Parts that still
/// move do not hold it up. Then nothing is due: a still screen costs nothing.
#[derive(Debug, Default)]
pub struct Refinement {
    // Steps left for each block; 0 is sharp.
    steps_left: Vec<u8>,
    due: Option<Instant>,
}

impl Refinement {
    /// When the next refining frame is due, if one is.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        self.due
    }

    /// What a frame at `now` should encode when `changed` is the damage.
    #[must_use]
    pub fn plan(&self, now: Instant, changed: Blocks, bitrate_bps: u64) -> Plan {
        let mut active = changed.clone();
        let mut max_quantizer = affordable(changed.len(), bitrate_bps, MOTION_PERIOD);
        if self.steps_left.len() == changed.marks().len() && self.due.is_some_and(|due| due <= now)
        {
            active.insert_where(|index| self.steps_left[index] > 0);
            if changed.is_empty() {
                let most = self.steps_left.iter().copied().max().unwrap_or(0);
                let step = LADDER.len().saturating_sub(usize::from(most));
                let affordable = affordable(active.len(), bitrate_bps, INTERVAL);
                max_quantizer =
                    affordable.min(LADDER.get(step).copied().unwrap_or(SHARP_QUANTIZER));
            }
        }
        Plan { changed, active, max_quantizer }
    }

    /// Takes note of the frame that `plan` led to at `now`.
    pub fn encoded(
        &mut self,
        now: Instant,
        plan: &Plan,
        quantizer: u8,
        bytes: usize,
        bitrate_bps: u64,
    ) {
        let Plan { changed, active, .. } = plan;
        if self.steps_left.len() != active.marks().len() {
            self.steps_left = vec![0; active.marks().len()];
            self.due = None;
        }
        let sharp = quantizer <= SHARP_QUANTIZER;
        let mut refined = false;
        for ((left, changed), active) in
            self.steps_left.iter_mut().zip(changed.marks()).zip(active.marks())
        {
            match (*changed, *active) {
                _ if sharp && *active == 1 => *left = 0,
                (1, _) => *left = STEPS,
                (_, 1) => {
                    refined = true;
                    *left = left.saturating_sub(1);
                }
                _ => {}
            }
        }
        let soft = self.steps_left.iter().any(|left| *left > 0);
        self.due = match self.due {
            _ if !soft => None,
            Some(due) if !refined && due > now => Some(due),
            _ => Some(now + INTERVAL.max(sending_time(bytes, bitrate_bps))),
        };
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the ladder is short")]
const STEPS: u8 = LADDER.len() as u8;

/// The sharpest quantizer at which this many blocks can be sent within a period.
fn affordable(blocks: usize, bitrate_bps: u64, period: Duration) -> u8 {
    let micros = u64::try_from(period.as_micros()).unwrap_or(u64::MAX);
    let bytes = bitrate_bps.saturating_mul(micros) / 8_000_000;
    let blocks = blocks as u64;
    BLOCK_BYTES
        .iter()
        .find(|(_, each)| blocks.saturating_mul(*each) <= bytes)
        .map_or(MAX_QUANTIZER, |(quantizer, _)| *quantizer)
}

fn sending_time(bytes: usize, bitrate_bps: u64) -> Duration {
    Duration::from_micros((bytes as u64).saturating_mul(8_000_000) / bitrate_bps.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    const COARSE: u8 = 40;
    const RATE: u64 = 8_000_000;

    fn block(column: usize) -> Blocks {
        let mut blocks = none();
        blocks.insert(column, 0);
        blocks
    }

    fn none() -> Blocks {
        Blocks::none(64, 16)
    }

    fn encode(refinement: &mut Refinement, now: Instant, changed: Blocks, quantizer: u8) -> Plan {
        let plan = refinement.plan(now, changed, RATE);
        refinement.encoded(now, &plan, quantizer, 100, RATE);
        plan
    }

    #[test]
    fn a_sharp_frame_needs_nothing_more() {
        let mut refinement = Refinement::default();
        encode(&mut refinement, Instant::now(), block(1), SHARP_QUANTIZER);
        assert_eq!(refinement.due(), None);
    }

    #[test]
    fn a_coarse_frame_is_refined_a_few_times_and_then_never() {
        let mut refinement = Refinement::default();
        encode(&mut refinement, Instant::now(), block(1), COARSE);
        for _ in 0..STEPS {
            let now = refinement.due().unwrap();
            assert_eq!(encode(&mut refinement, now, none(), COARSE).active.len(), 1);
        }
        assert_eq!(refinement.due(), None);
    }

    #[test]
    fn the_steps_become_sharper_and_stop_once_sharp() {
        let all = Blocks::all(4096, 4096);
        let rate = 1_000_000;
        let mut refinement = Refinement::default();
        let mut now = Instant::now();
        let mut caps = Vec::new();
        let mut changed = all.clone();
        loop {
            let plan = refinement.plan(now, changed, rate);
            caps.push(plan.max_quantizer);
            refinement.encoded(now, &plan, plan.max_quantizer, 100, rate);
            changed = Blocks::none(4096, 4096);
            match refinement.due() {
                Some(due) => now = due,
                None => break,
            }
        }
        assert_eq!(caps, [MAX_QUANTIZER, 38, 30, 22, SHARP_QUANTIZER]);
    }

    #[test]
    fn a_letter_is_sharp_at_once_and_a_page_is_not() {
        let refinement = Refinement::default();
        let now = Instant::now();
        assert_eq!(refinement.plan(now, block(0), RATE).max_quantizer, SHARP_QUANTIZER);
        assert_eq!(
            refinement.plan(now, Blocks::all(1920, 1080), RATE).max_quantizer,
            MAX_QUANTIZER
        );
    }

    #[test]
    fn a_step_waits_until_the_one_before_has_left() {
        let mut refinement = Refinement::default();
        let now = Instant::now();
        let plan = refinement.plan(now, block(0), RATE);
        refinement.encoded(now, &plan, COARSE, 1_000_000, RATE);
        assert_eq!(refinement.due(), Some(now + Duration::from_secs(1)));
    }

    #[test]
    fn motion_elsewhere_does_not_hold_it_up() {
        let mut refinement = Refinement::default();
        let start = Instant::now();
        encode(&mut refinement, start, block(0), COARSE);
        let refined = (1..100)
            .map(|frame| {
                let now = start + Duration::from_millis(16 * frame);
                encode(&mut refinement, now, block(3), COARSE)
            })
            .filter(|plan| plan.active.contains(0, 0))
            .count();
        assert_eq!(refined, usize::from(STEPS));
    }

    #[test]
    fn a_new_size_starts_afresh() {
        let mut refinement = Refinement::default();
        encode(&mut refinement, Instant::now(), block(0), COARSE);
        encode(&mut refinement, Instant::now(), Blocks::all(128, 128), SHARP_QUANTIZER);
        assert_eq!(refinement.due(), None);
    }
}
