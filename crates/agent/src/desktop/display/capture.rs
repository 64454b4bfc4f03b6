//! Reading damaged pixels out of X: XDamage says where, MIT-SHM carries them without a copy over
//! the socket.

use std::os::fd::AsFd;

use anteroom_guest_protocol::frames::{BYTES_PER_PIXEL, FrameHeader, MAX_RECTS, Rect};
use anyhow::{Context, Result, ensure};
use memmap2::Mmap;
use x11rb::connection::Connection;
use x11rb::protocol::Event;
use x11rb::protocol::damage::{self, ConnectionExt as _, ReportLevel};
use x11rb::protocol::shm::{self, ConnectionExt as _};
use x11rb::protocol::xfixes::{self, ConnectionExt as _, CursorNotifyMask};
use x11rb::protocol::xproto::{
    ChangeWindowAttributesAux, ConnectionExt as _, ImageFormat, Rectangle, Window,
};
use x11rb::rust_connection::RustConnection;

use super::server::DisplayAddress;

/// The colour of the desktop before a window is on it: a calm grey-blue, 0xRRGGBB.
const EMPTY_DESKTOP: u32 = 0x0037_4350;

/// A view of the whole desktop.
pub struct Capture {
    pub(super) connection: RustConnection,
    pub(super) root: Window,
    damage: damage::Damage,
    region: xfixes::Region,
    segment: shm::Seg,
    pixels: Mmap,
    width: u16,
    height: u16,
    sequence: u32,
}

/// What X reported since it was last asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Some pixels changed.
    pub damage: bool,
    /// The pointer's shape changed.
    pub cursor: bool,
}

impl Capture {
    /// Connects and starts to watch.
    pub fn new(address: &DisplayAddress) -> Result<Self> {
        let connection = address.connect()?;
        let screen = &connection.setup().roots[0];
        let (root, depth) = (screen.root, screen.root_depth);
        let (width, height) = (screen.width_in_pixels, screen.height_in_pixels);
        ensure!(depth == 24, "the screen has {depth} bits per pixel; 24 are needed");
        connection
            .damage_query_version(1, 1)?
            .reply()
            .context("the X server has no DAMAGE extension")?;
        connection
            .xfixes_query_version(5, 0)?
            .reply()
            .context("the X server has no XFIXES extension")?;
        connection.shm_query_version()?.reply().context("the X server has no MIT-SHM extension")?;

        let bytes = usize::from(width) * usize::from(height) * BYTES_PER_PIXEL;
        let segment = connection.generate_id()?;
        let reply = connection
            .shm_create_segment(segment, u32::try_from(bytes)?, false)?
            .reply()
            .context("the X server provided no shared memory")?;
        // SAFETY: the server writes here only while it answers our get_image, and we read only
        // after that answer; the mapping is as long as the segment we asked for.
        #[expect(unsafe_code, reason = "mapping shared memory")]
        let pixels = unsafe { memmap2::MmapOptions::new().len(bytes).map(&reply.shm_fd) }
            .context("mapping the shared memory failed")?;

        let damage = connection.generate_id()?;
        connection.damage_create(damage, root, ReportLevel::NON_EMPTY)?;
        let region = connection.generate_id()?;
        connection.xfixes_create_region(region, &[])?;
        connection.xfixes_select_cursor_input(root, CursorNotifyMask::DISPLAY_CURSOR)?;
        // A desktop that is there and empty must not look like a stream that is not.
        let background = ChangeWindowAttributesAux::new().background_pixel(EMPTY_DESKTOP);
        connection.change_window_attributes(root, &background)?;
        connection.clear_area(false, root, 0, 0, 0, 0)?;
        connection.flush()?;
        Ok(Self { connection, root, damage, region, segment, pixels, width, height, sequence: 0 })
    }

    /// The connection's descriptor, to wait on.
    pub fn fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.connection.stream().as_fd()
    }

    /// Takes the events that have come, without waiting.
    pub fn changes(&self) -> Result<Changes> {
        let mut changes = Changes::default();
        while let Some(event) = self.connection.poll_for_event().context("the X server is gone")? {
            match event {
                Event::DamageNotify(_) => changes.damage = true,
                Event::XfixesCursorNotify(_) => changes.cursor = true,
                _ => {}
            }
        }
        Ok(changes)
    }

    /// The bytes of one answer on the frame stream: what was damaged since the last one.
    pub fn damaged(&mut self) -> Result<Vec<u8>> {
        self.connection.damage_subtract(self.damage, x11rb::NONE, self.region)?;
        let region = self.connection.xfixes_fetch_region(self.region)?.reply()?;
        let rects = self.to_rects(&region.rectangles, region.extents);
        self.answer(&rects)
    }

    /// The bytes of one answer: the whole screen.
    pub fn everything(&mut self) -> Result<Vec<u8>> {
        self.connection.damage_subtract(self.damage, x11rb::NONE, x11rb::NONE)?;
        let whole = Rect { x: 0, y: 0, width: self.width, height: self.height };
        self.answer(&[whole])
    }

    /// The bytes of an answer without pixels.
    pub fn nothing(&mut self) -> Result<Vec<u8>> {
        self.answer(&[])
    }

    fn answer(&mut self, rects: &[Rect]) -> Result<Vec<u8>> {
        self.sequence = self.sequence.wrapping_add(1);
        let header = FrameHeader {
            sequence: self.sequence,
            captured_us: monotonic_us()?,
            width: self.width,
            height: self.height,
            rects: u16::try_from(rects.len())?,
        };
        let area: usize = rects.iter().map(Rect::area).sum();
        let mut bytes = Vec::with_capacity(64 + rects.len() * 8 + area * BYTES_PER_PIXEL);
        bytes.extend(header.encode());
        for rect in rects {
            bytes.extend(rect.encode());
            self.read_pixels(rect)?;
            bytes.extend_from_slice(&self.pixels[..rect.area() * BYTES_PER_PIXEL]);
        }
        Ok(bytes)
    }

    /// Has the server copy a rectangle to the start of the shared memory.
    fn read_pixels(&self, rect: &Rect) -> Result<()> {
        let every_plane = !0;
        self.connection
            .shm_get_image(
                self.root,
                i16::try_from(rect.x)?,
                i16::try_from(rect.y)?,
                rect.width,
                rect.height,
                every_plane,
                ImageFormat::Z_PIXMAP.into(),
                self.segment,
                0,
            )?
            .reply()
            .context("reading the screen failed")?;
        Ok(())
    }

    /// X rectangles cut to the screen; one around all when there are too many.
    fn to_rects(&self, rectangles: &[Rectangle], extents: Rectangle) -> Vec<Rect> {
        let rectangles = if rectangles.len() > usize::from(MAX_RECTS) {
            std::slice::from_ref(&extents)
        } else {
            rectangles
        };
        rectangles.iter().filter_map(|r| cut(*r, self.width, self.height)).collect()
    }
}

/// The part of `rectangle` within a screen, if any.
fn cut(rectangle: Rectangle, width: u16, height: u16) -> Option<Rect> {
    let span = |start: i16, length: u16, edge: u16| {
        let first = i32::from(start).clamp(0, i32::from(edge));
        let last = (i32::from(start) + i32::from(length)).clamp(0, i32::from(edge));
        Some((u16::try_from(first).ok()?, u16::try_from(last - first).ok()?))
            .filter(|(_, n)| *n > 0)
    };
    let (x, width) = span(rectangle.x, rectangle.width, width)?;
    let (y, height) = span(rectangle.y, rectangle.height, height)?;
    Some(Rect { x, y, width, height })
}

fn monotonic_us() -> Result<u64> {
    let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * 1_000_000 + u64::try_from(now.tv_nsec())? / 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rectangles_are_cut_to_the_screen() {
        let cut = |x, y, width, height| cut(Rectangle { x, y, width, height }, 100, 50);
        assert_eq!(cut(-10, 0, 20, 10), Some(Rect { x: 0, y: 0, width: 10, height: 10 }));
        assert_eq!(cut(90, 40, 20, 20), Some(Rect { x: 90, y: 40, width: 10, height: 10 }));
        assert_eq!(cut(100, 0, 5, 5), None);
        assert_eq!(cut(-20, 0, 10, 10), None);
    }
}
