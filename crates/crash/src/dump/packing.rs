//! The compressions that systemd-coredump has used, read as streams of bounded memory.

use std::io::{self, BufRead, Chain, Error, ErrorKind, Read, Result};

use lz4_flex::frame::FrameDecoder as Lz4Decoder;
use lzma_rust2::XzReader;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};

/// The most memory that a decompressor may want, in KiB: twice what `xz -9` and `zstd -19` need.
pub const MAX_MEMORY_KIB: u32 = 128 * 1024;

/// A compression, recognised by the first bytes of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Packing {
    Zstd,
    Lz4,
    Xz,
}

impl Packing {
    pub fn of(head: &[u8]) -> Option<Self> {
        match head {
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Some(Self::Zstd),
            [0x04, 0x22, 0x4d, 0x18, ..] => Some(Self::Lz4),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            _ => None,
        }
    }

    /// The name of its program.
    pub fn name(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Lz4 => "lz4",
            Self::Xz => "xz",
        }
    }

    /// The command that unpacks a file.
    pub fn command(self, file: &str) -> String {
        let options = match self {
            // More memory than it takes unasked.
            Self::Zstd => "-dc --long=31",
            Self::Lz4 | Self::Xz => "-dc",
        };
        format!("`{} {options} {file} > core`", self.name())
    }

    /// What a file of it holds, checked by its checksums as far as it has any.
    pub fn reader<'a>(self, packed: impl BufRead + 'a) -> Box<dyn Read + 'a> {
        match self {
            Self::Zstd => Box::new(Zstd::new(packed)),
            Self::Lz4 => Box::new(Lz4(Some(Lz4Decoder::new(packed.chain(LZ4_EMPTY))))),
            Self::Xz => Box::new(XzReader::new_mem_limit(packed, true, MAX_MEMORY_KIB)),
        }
    }
}

/// What else a core dump is found in, and the command that makes a plain one of it.
pub fn first_command(head: &[u8], file: &str) -> Option<(&'static str, String)> {
    match head {
        [0x1f, 0x8b, ..] => Some(("compressed by gzip", format!("`gzip -dc {file} > core`"))),
        [b'B', b'Z', b'h', ..] => {
            Some(("compressed by bzip2", format!("`bzip2 -dc {file} > core`")))
        }
        [0x02, 0x21, 0x4c, 0x18, ..] => {
            Some(("an old file of lz4", format!("`lz4 -dc {file} > core`")))
        }
        [b'M', b'D', b'M', b'P', ..] => Some((
            "a minidump (Breakpad, Crashpad)",
            format!("`minidump-2-core {file} > core`, of Breakpad,"),
        )),
        _ if head.starts_with(b"ProblemType: ") => {
            Some(("a report of Apport", format!("`apport-unpack {file} FOLDER`")))
        }
        _ => None,
    }
}

/// Frames of zstd, one after the other.
struct Zstd<R> {
    packed: R,
    decoder: FrameDecoder,
}

impl<R: BufRead> Zstd<R> {
    fn new(packed: R) -> Self {
        let mut decoder = FrameDecoder::new();
        decoder.set_max_window_size(u64::from(MAX_MEMORY_KIB) * 1024);
        Self { packed, decoder }
    }

    /// Begins with the next frame; `false` at the end of the file.
    fn next(&mut self) -> Result<bool> {
        if self
            .decoder
            .get_checksum_from_data()
            .is_some_and(|written| Some(written) != self.decoder.get_calculated_checksum())
        {
            return Err(Error::other("its checksum is of something else"));
        }
        while !self.packed.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.packed) {
                Ok(()) => return Ok(true),
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    let length = u64::from(length);
                    io::copy(&mut (&mut self.packed).take(length), &mut io::sink())?;
                }
                Err(FrameDecoderError::WindowSizeTooBig { .. }) => {
                    return Err(ErrorKind::OutOfMemory.into());
                }
                Err(error) => return Err(innermost(&error)),
            }
        }
        Ok(false)
    }
}

/// What is at the bottom of the decoder's errors: each of them repeats those below.
fn innermost(error: &dyn std::error::Error) -> Error {
    let causes = std::iter::successors(Some(error), |error| error.source());
    Error::other(causes.last().unwrap_or(error).to_string())
}

impl<R: BufRead> Read for Zstd<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        loop {
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                self.decoder
                    .decode_blocks(&mut self.packed, BlockDecodingStrategy::UptoBlocks(1))
                    .map_err(|error| innermost(&error))?;
            }
            let read = self.decoder.read(into)?;
            if read > 0 || into.is_empty() || !self.next()? {
                return Ok(read);
            }
        }
    }
}

/// Frames of LZ4, one after the other. The decoder takes the end of a file for the end of a frame,
/// so an empty frame follows the last one: in the middle of another, its first bytes are an error.
struct Lz4<R: Read>(Option<Lz4Decoder<Chain<R, &'static [u8]>>>);

/// A frame with nothing in it.
const LZ4_EMPTY: &[u8] = &[4, 0x22, 0x4d, 0x18, 0x64, 0x40, 0xa7, 0, 0, 0, 0, 5, 0x5d, 0xcc, 2];

impl<R: BufRead> Read for Lz4<R> {
    fn read(&mut self, into: &mut [u8]) -> Result<usize> {
        while let Some(decoder) = &mut self.0 {
            let read = decoder.read(into)?;
            if read > 0 || into.is_empty() {
                return Ok(read);
            }
            let mut packed = self.0.take().map(Lz4Decoder::into_inner);
            if let Some(packed) = packed.take_if(|packed| !at_end(packed)) {
                self.0 = Some(Lz4Decoder::new(packed));
            }
        }
        Ok(0)
    }
}

fn at_end(packed: &mut impl BufRead) -> bool {
    packed.fill_buf().is_ok_and(<[u8]>::is_empty)
}
