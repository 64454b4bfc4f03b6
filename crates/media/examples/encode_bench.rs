//! What encoding costs: `cargo run --release -p anteroom-media --example encode_bench [VP9|VP8]`

use std::time::{Duration, Instant};

use anteroom_guest_protocol::frames::Rect;
use anteroom_media::Codec;
use anteroom_media::blocks::Blocks;
use anteroom_media::encoder::Encoder;
use anteroom_media::refinement::Refinement;
use anteroom_media::screen::Screen;

const WIDTH: u16 = 1280;
const HEIGHT: u16 = 720;
const BITRATE_BPS: u64 = 8_000_000;

/// Words of strokes on white, three screens high: about a third is ink, as in a page of text.
fn page() -> Vec<u8> {
    let (width, height) = (usize::from(WIDTH), usize::from(HEIGHT) * 3);
    let mut pixels = vec![255; width * height * 4];
    let mut state = 1u32;
    for line in (70..height - 24).step_by(24) {
        for glyph in (40..width / 2).step_by(9) {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            if state >> 29 == 0 {
                continue;
            }
            let shape = (state >> 20) % 26;
            for stroke in 0..3 {
                let (dx, dy) =
                    ((shape * (stroke + 3) % 6) as usize, (shape * (stroke + 5) % 9) as usize);
                for step in 0..5 {
                    let (sx, sy) =
                        if (stroke + shape).is_multiple_of(2) { (0, step) } else { (step, 0) };
                    let at = ((line + dy + sy) * width + glyph + dx + sx) * 4;
                    pixels[at..at + 3].fill(30);
                }
            }
        }
    }
    pixels
}

fn part(page: &[u8], rect: &Rect, scrolled: usize) -> Vec<u8> {
    let lines = page.len() / (usize::from(WIDTH) * 4);
    (0..usize::from(rect.height))
        .flat_map(|line| {
            let line = (usize::from(rect.y) + line + scrolled) % lines;
            let start = (line * usize::from(WIDTH) + usize::from(rect.x)) * 4;
            page[start..start + usize::from(rect.width) * 4].iter().copied()
        })
        .collect()
}

fn thread_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/schedstat").unwrap_or_default();
    Duration::from_nanos(stat.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let codec = if std::env::args().any(|arg| arg == "VP8") { Codec::Vp8 } else { Codec::Vp9 };
    let page = page();
    let whole = Rect { x: 0, y: 0, width: WIDTH, height: HEIGHT };
    let mut screen = Screen::default();
    screen.resize(WIDTH, HEIGHT)?;
    screen.apply(&whole, &part(&page, &whole, 0))?;
    let mut encoder = Encoder::new(codec, WIDTH.into(), HEIGHT.into(), BITRATE_BPS)?;
    let mut refinement = Refinement::default();
    let start = Instant::now();
    let mut clock = Duration::ZERO;
    println!("{codec:?}, {WIDTH}x{HEIGHT}, {BITRATE_BPS} bit/s; CPU is of the calling thread");
    let phases: [(&str, u64, Option<Rect>); 5] = [
        ("key frame", 1, None),
        ("still", 30, None),
        ("typing", 60, Some(Rect { x: 100, y: 100, width: 12, height: 18 })),
        ("scroll", 120, Some(Rect { x: 0, y: 64, width: WIDTH, height: HEIGHT - 64 })),
        ("still", 60, None),
    ];
    for (name, frames, rect) in phases {
        let (mut applied, mut encoded) = (Duration::ZERO, Duration::ZERO);
        let (mut count, mut bytes, mut quantizer) = (0u32, 0, 0);
        for frame in 0..frames {
            clock += Duration::from_millis(17);
            let now = start + clock;
            let began = thread_time();
            if let Some(mut rect) = rect {
                let step = usize::try_from(frame)? + 1;
                if name == "typing" {
                    rect.x += u16::try_from(step)? * 12;
                }
                screen.apply(&rect, &part(&page, &rect, step * 24 / 3))?;
            }
            let between = thread_time();
            let mut changed = screen.take_damage();
            if name == "key frame" {
                changed = Blocks::all(WIDTH.into(), HEIGHT.into());
            }
            let plan = refinement.plan(now, changed, BITRATE_BPS);
            if !plan.active.is_empty()
                && let Some(frame) = encoder.encode(&screen, &plan, name == "key frame", clock)?
            {
                refinement.encoded(now, &plan, frame.quantizer, frame.data.len(), BITRATE_BPS);
                count += 1;
                bytes += frame.data.len();
                quantizer = frame.quantizer;
            }
            applied += between - began;
            encoded += thread_time() - between;
        }
        let each = count.max(1);
        println!(
            "{name:>10}: {count:3} of {frames:3} frames, apply {:?}, encode {:?} each, {} bytes each, last quantizer {quantizer}",
            applied / u32::try_from(frames)?,
            encoded / each,
            bytes / usize::try_from(each)?
        );
    }
    Ok(())
}
