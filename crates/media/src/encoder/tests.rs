use anteroom_guest_protocol::frames::Rect;

use super::*;
use crate::blocks::Blocks;
use crate::refinement::Refinement;
use crate::viewed::psnr;
use crate::vpx::decoder::VpxDecoder;

const WIDTH: u16 = 640;
const HEIGHT: u16 = 360;

/// Dark strokes on white, as a page of text has them.
fn page(seed: u32) -> Vec<u8> {
    let (width, height) = (usize::from(WIDTH), usize::from(HEIGHT));
    let mut pixels = vec![255; width * height * 4];
    let mut state = seed | 1;
    for line in (8..height - 16).step_by(18) {
        for glyph in (10..width - 20).step_by(9) {
            for stroke in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (dx, dy) = ((state >> 8) % 6, (state >> 16) % 10);
                let (x, y) = (glyph + dx as usize, line + dy as usize);
                for step in 0..5 {
                    let (x, y) = if stroke % 2 == 0 { (x, y + step) } else { (x + step, y) };
                    let at = (y.min(height - 1) * width + x.min(width - 1)) * 4;
                    pixels[at..at + 3].fill(20);
                }
            }
        }
    }
    pixels
}

fn whole() -> Rect {
    Rect { x: 0, y: 0, width: WIDTH, height: HEIGHT }
}

fn everything(screen: &Screen) -> Plan {
    let all = Blocks::all(screen.width(), screen.height());
    Plan { changed: all.clone(), active: all, max_quantizer: MAX_QUANTIZER }
}

struct Viewer {
    encoder: Encoder,
    decoder: VpxDecoder,
    refinement: Refinement,
    seen: Vec<u8>,
    start: std::time::Instant,
    now: std::time::Instant,
    bytes: usize,
    bitrate_bps: u64,
}

impl Viewer {
    fn new(codec: Codec, bitrate_bps: u64) -> Self {
        let start = std::time::Instant::now();
        Self {
            encoder: Encoder::new(codec, WIDTH.into(), HEIGHT.into(), bitrate_bps).unwrap(),
            decoder: VpxDecoder::new(codec).unwrap(),
            refinement: Refinement::default(),
            seen: Vec::new(),
            start,
            now: start,
            bytes: 0,
            bitrate_bps,
        }
    }

    fn show(&mut self, screen: &mut Screen, force_key: bool) -> EncodedFrame {
        let changed = screen.take_damage();
        let plan = self.refinement.plan(self.now, changed, self.bitrate_bps);
        let pts = self.now - self.start;
        let frame = self.encoder.encode(screen, &plan, force_key, pts).unwrap().unwrap();
        self.refinement.encoded(
            self.now,
            &plan,
            frame.quantizer,
            frame.data.len(),
            self.bitrate_bps,
        );
        self.bytes += frame.data.len();
        let [y, _, _] = self.decoder.decode(&frame.data, WIDTH.into(), HEIGHT.into()).unwrap();
        self.seen = y;
        frame
    }

    /// Lets time pass until nothing more is sent; how many frames were.
    fn settle(&mut self, screen: &mut Screen) -> usize {
        let mut frames = 0;
        while let Some(due) = self.refinement.due() {
            self.now = due;
            self.show(screen, false);
            frames += 1;
        }
        frames
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(17);
    }
}

fn text_becomes_sharp(codec: Codec) {
    let mut screen = Screen::default();
    screen.resize(WIDTH, HEIGHT).unwrap();
    screen.apply(&whole(), &page(1)).unwrap();
    let mut viewer = Viewer::new(codec, 2_000_000);
    assert!(viewer.show(&mut screen, true).key);
    viewer.settle(&mut screen);
    // Scrolling: everything changes, several times.
    for seed in 2..8 {
        viewer.step();
        screen.apply(&whole(), &page(seed)).unwrap();
        assert!(!viewer.show(&mut screen, false).key);
    }
    let soft = psnr(screen.planes()[0], &viewer.seen);
    let frames = viewer.settle(&mut screen);
    let sharp = psnr(screen.planes()[0], &viewer.seen);
    println!(
        "{codec:?}: {soft:.1} dB moving, {sharp:.1} dB after {frames} refining frames, {} bytes in all",
        viewer.bytes
    );
    assert!(frames <= 8);
    assert!(sharp > 35.0, "{codec:?}: {soft:.1} dB moving, {sharp:.1} dB after {frames} frames");
}

#[test]
fn vp9_text_becomes_sharp_after_motion() {
    text_becomes_sharp(Codec::Vp9);
}

#[test]
fn vp8_text_becomes_sharp_after_motion() {
    text_becomes_sharp(Codec::Vp8);
}

#[test]
fn blocks_that_are_not_active_stay() {
    for codec in [Codec::Vp9, Codec::Vp8] {
        let mut screen = Screen::default();
        screen.resize(WIDTH, HEIGHT).unwrap();
        screen.apply(&whole(), &page(1)).unwrap();
        let mut viewer = Viewer::new(codec, 4_000_000);
        viewer.show(&mut screen, true);
        viewer.settle(&mut screen);
        let before = viewer.seen.clone();
        // A letter is typed: one block.
        viewer.step();
        screen.apply(&Rect { x: 36, y: 36, width: 8, height: 8 }, &[0; 256]).unwrap();
        assert_eq!(screen.damage().len(), 1);
        let frame = viewer.show(&mut screen, false);
        println!(
            "{codec:?}: a letter costs {} bytes at quantizer {}",
            frame.data.len(),
            frame.quantizer
        );
        assert!(frame.data.len() < 1500, "{codec:?}: {} bytes", frame.data.len());
        // The encoder may touch up what is not active, but no more than that.
        let drift = psnr(&before, &viewer.seen);
        assert!(drift > 36.0, "{codec:?}: {drift:.1} dB from the picture before");
    }
}

#[test]
fn a_key_frame_comes_on_demand_and_only_then() {
    for codec in [Codec::Vp9, Codec::Vp8] {
        let mut screen = Screen::default();
        screen.resize(WIDTH, HEIGHT).unwrap();
        let mut viewer = Viewer::new(codec, 2_000_000);
        let keys: Vec<bool> = (0..12)
            .map(|frame| {
                viewer.step();
                screen.apply(&whole(), &page(frame)).unwrap();
                viewer.show(&mut screen, frame == 0 || frame == 7).key
            })
            .collect();
        let wanted: Vec<bool> = (0..12).map(|frame| frame == 0 || frame == 7).collect();
        assert_eq!(keys, wanted, "{codec:?}");
    }
}

#[test]
fn small_and_odd_sizes_encode_and_wrong_ones_are_refused() {
    for codec in [Codec::Vp9, Codec::Vp8] {
        for (width, height) in [(16, 16), (18, 300), (301, 17), (1366, 768)] {
            let mut screen = Screen::default();
            screen.resize(width, height).unwrap();
            let mut encoder =
                Encoder::new(codec, screen.coded_width(), screen.coded_height(), 1_000_000)
                    .unwrap();
            for frame in 0..3 {
                let pts = Duration::from_millis(16 * frame);
                assert!(
                    encoder.encode(&screen, &everything(&screen), false, pts).unwrap().is_some()
                );
            }
            encoder.set_bitrate(3_000_000).unwrap();
        }
        assert!(Encoder::new(codec, 8, 8, 1_000_000).is_err());
        assert!(Encoder::new(codec, 8192, 64, 1_000_000).is_err());
        let mut encoder = Encoder::new(codec, 64, 64, 1_000_000).unwrap();
        let mut screen = Screen::default();
        screen.resize(128, 64).unwrap();
        assert!(encoder.encode(&screen, &everything(&screen), false, Duration::ZERO).is_err());
    }
}
