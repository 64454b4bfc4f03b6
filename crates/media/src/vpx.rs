//! The only place that speaks to C: safe handles over `csrc/vpx_shim.h`.

use std::ffi::{CStr, c_char};
use std::ptr::NonNull;

/// A video codec of libvpx.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Codec {
    /// The one every browser has had since WebRTC began.
    Vp8,
    /// Preferred: made for screens too.
    Vp9,
}

/// What libvpx answers when something fails.
#[derive(Debug, thiserror::Error)]
#[error("libvpx reports: {0}")]
pub struct VpxError(&'static str);

/// A picture to encode: tight I420 planes of the handle's size, and a byte a 16x16 block.
pub(crate) struct Picture<'a> {
    pub planes: [&'a [u8]; 3],
    pub active: &'a [u8],
    pub pts_us: i64,
    pub duration_us: i64,
    pub force_key: bool,
    pub max_quantizer: u8,
}

/// A compressed frame, borrowed from the encoder.
pub(crate) struct Packet<'a> {
    pub data: &'a [u8],
    pub key: bool,
    pub quantizer: u8,
}

pub(crate) struct VpxEncoder(NonNull<RawEncoder>);

#[repr(C)]
struct RawEncoder {
    _opaque: [u8; 0],
}

#[repr(C)]
struct RawFrame {
    data: *const u8,
    len: usize,
    key: i32,
    quantizer: i32,
}

#[expect(unsafe_code, reason = "declares the C shim")]
// SAFETY: the declarations are those of csrc/vpx_shim.h.
unsafe extern "C" {
    fn anteroom_vpx_encoder_new(
        codec: i32,
        width: u32,
        height: u32,
        bitrate_kbps: u32,
        threads: u32,
        out: *mut *mut RawEncoder,
    ) -> i32;
    fn anteroom_vpx_encoder_encode(
        encoder: *mut RawEncoder,
        y: *const u8,
        y_len: usize,
        u: *const u8,
        v: *const u8,
        chroma_len: usize,
        active: *const u8,
        active_len: usize,
        pts_us: i64,
        duration_us: i64,
        force_key: i32,
        max_quantizer: u32,
        out: *mut RawFrame,
    ) -> i32;
    fn anteroom_vpx_encoder_set_bitrate(encoder: *mut RawEncoder, bitrate_kbps: u32) -> i32;
    fn anteroom_vpx_encoder_free(encoder: *mut RawEncoder);
    fn anteroom_vpx_error_name(result: i32) -> *const c_char;
}

impl VpxEncoder {
    /// Width and height are even and 16 to 4096; the shim refuses others.
    pub fn new(
        codec: Codec,
        width: u32,
        height: u32,
        bitrate_kbps: u32,
        threads: u32,
    ) -> Result<Self, VpxError> {
        let mut raw = std::ptr::null_mut();
        #[expect(unsafe_code, reason = "calls the C shim")]
        // SAFETY: `raw` outlives the call; the shim checks the numbers.
        let result = unsafe {
            anteroom_vpx_encoder_new(codec.id(), width, height, bitrate_kbps, threads, &raw mut raw)
        };
        check(result)?;
        NonNull::new(raw).map(Self).ok_or(VpxError("no encoder was created"))
    }

    /// None when the encoder made nothing of the picture.
    pub fn encode(&mut self, picture: &Picture<'_>) -> Result<Option<Packet<'_>>, VpxError> {
        let [y, u, v] = picture.planes;
        if u.len() != v.len() {
            return Err(VpxError("the chroma planes differ in size"));
        }
        let mut frame = RawFrame { data: std::ptr::null(), len: 0, key: 0, quantizer: 63 };
        #[expect(unsafe_code, reason = "calls the C shim")]
        // SAFETY: the handle is live and borrowed alone; each pointer comes with the length of its
        // slice (`u` and `v` share theirs, checked above), and the shim checks the lengths against
        // the size that the encoder was made for.
        let result = unsafe {
            anteroom_vpx_encoder_encode(
                self.0.as_ptr(),
                y.as_ptr(),
                y.len(),
                u.as_ptr(),
                v.as_ptr(),
                u.len(),
                picture.active.as_ptr(),
                picture.active.len(),
                picture.pts_us,
                picture.duration_us,
                i32::from(picture.force_key),
                u32::from(picture.max_quantizer),
                &raw mut frame,
            )
        };
        check(result)?;
        if frame.data.is_null() || frame.len == 0 {
            return Ok(None);
        }
        #[expect(unsafe_code, reason = "reads what libvpx made")]
        // SAFETY: libvpx keeps these bytes until the next call with this encoder, which the
        // borrow of `self` in the result forbids while they are in use.
        let data = unsafe { std::slice::from_raw_parts(frame.data, frame.len) };
        let quantizer = u8::try_from(frame.quantizer.clamp(0, 63)).unwrap_or(63);
        Ok(Some(Packet { data, key: frame.key != 0, quantizer }))
    }

    pub fn set_bitrate(&mut self, bitrate_kbps: u32) -> Result<(), VpxError> {
        #[expect(unsafe_code, reason = "calls the C shim")]
        // SAFETY: the handle is live and borrowed alone.
        let result = unsafe { anteroom_vpx_encoder_set_bitrate(self.0.as_ptr(), bitrate_kbps) };
        check(result)
    }
}

impl Drop for VpxEncoder {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "calls the C shim")]
        // SAFETY: the handle came from `anteroom_vpx_encoder_new` and is freed once, here.
        unsafe {
            anteroom_vpx_encoder_free(self.0.as_ptr());
        }
    }
}

#[expect(unsafe_code, reason = "an encoder may move to the encoder thread")]
// SAFETY: the handle owns its encoder alone, and libvpx ties no encoder to a thread.
unsafe impl Send for VpxEncoder {}

impl Codec {
    fn id(self) -> i32 {
        match self {
            Self::Vp8 => 0,
            Self::Vp9 => 1,
        }
    }
}

fn check(result: i32) -> Result<(), VpxError> {
    if result == 0 {
        return Ok(());
    }
    #[expect(unsafe_code, reason = "calls the C shim")]
    // SAFETY: the shim takes any number and answers with a static string that ends with a zero.
    let name = unsafe { CStr::from_ptr(anteroom_vpx_error_name(result)) };
    Err(VpxError(name.to_str().unwrap_or("an unnamed error")))
}

/// The other way round, to see what a viewer sees.
pub(crate) mod decoder {
    use super::{Codec, VpxError, check};

    #[repr(C)]
    struct RawDecoder {
        _opaque: [u8; 0],
    }

    #[expect(unsafe_code, reason = "declares the C shim")]
    // SAFETY: the declarations are those of csrc/vpx_shim.h.
    unsafe extern "C" {
        fn anteroom_vpx_key_frame_size(
            codec: i32,
            data: *const u8,
            len: usize,
            width: *mut u32,
            height: *mut u32,
        ) -> i32;
        fn anteroom_vpx_decoder_new(codec: i32, out: *mut *mut RawDecoder) -> i32;
        fn anteroom_vpx_decoder_decode(
            decoder: *mut RawDecoder,
            data: *const u8,
            len: usize,
            width: u32,
            height: u32,
            y: *mut u8,
            y_len: usize,
            u: *mut u8,
            v: *mut u8,
            chroma_len: usize,
        ) -> i32;
        fn anteroom_vpx_decoder_free(decoder: *mut RawDecoder);
    }

    /// Width and height of a key frame; `None` for any other.
    pub(crate) fn key_frame_size(
        codec: Codec,
        data: &[u8],
    ) -> Result<Option<(u32, u32)>, VpxError> {
        let (mut width, mut height) = (0, 0);
        #[expect(unsafe_code, reason = "calls the C shim")]
        // SAFETY: the pointer comes with the length of its slice, and both numbers outlive the call.
        let result = unsafe {
            anteroom_vpx_key_frame_size(
                codec.id(),
                data.as_ptr(),
                data.len(),
                &raw mut width,
                &raw mut height,
            )
        };
        check(result)?;
        Ok((width > 0 && height > 0).then_some((width, height)))
    }

    pub(crate) struct VpxDecoder(*mut RawDecoder);

    impl VpxDecoder {
        pub(crate) fn new(codec: Codec) -> Result<Self, VpxError> {
            let mut raw = std::ptr::null_mut();
            #[expect(unsafe_code, reason = "calls the C shim")]
            // SAFETY: `raw` outlives the call.
            check(unsafe { anteroom_vpx_decoder_new(codec.id(), &raw mut raw) })?;
            Ok(Self(raw))
        }

        /// The planes of a frame of this size.
        pub(crate) fn decode(
            &mut self,
            data: &[u8],
            width: u32,
            height: u32,
        ) -> Result<[Vec<u8>; 3], VpxError> {
            let area = usize::try_from(u64::from(width) * u64::from(height)).unwrap_or(0);
            let mut planes = [vec![0; area], vec![0; area / 4], vec![0; area / 4]];
            let [y, u, v] = &mut planes;
            #[expect(unsafe_code, reason = "calls the C shim")]
            // SAFETY: the handle is live; each plane has the length that is passed, and the shim
            // checks the lengths against the picture's size.
            let result = unsafe {
                anteroom_vpx_decoder_decode(
                    self.0,
                    data.as_ptr(),
                    data.len(),
                    width,
                    height,
                    y.as_mut_ptr(),
                    y.len(),
                    u.as_mut_ptr(),
                    v.as_mut_ptr(),
                    u.len(),
                )
            };
            check(result)?;
            Ok(planes)
        }
    }

    impl Drop for VpxDecoder {
        fn drop(&mut self) {
            #[expect(unsafe_code, reason = "calls the C shim")]
            // SAFETY: the handle came from `anteroom_vpx_decoder_new` and is freed once, here.
            unsafe {
                anteroom_vpx_decoder_free(self.0);
            }
        }
    }
}
