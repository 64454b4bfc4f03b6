//! Copies what is not zero from one sparse file to another, and digests what it copied.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::digest::{BLOCK, ContentDigest, is_zero};

/// What is read at once, in bytes: a whole number of blocks.
const PIECE: usize = 16 * BLOCK;
/// How many of these are read and not digested yet.
const IN_FLIGHT: usize = 4;

/// What of the copy is left a hole when it is all zeros.
#[derive(Clone, Copy)]
pub(crate) enum Grain {
    /// Memory is given out in pages: less of it is taken.
    Page = 4096,
    /// A file on a disk is kept in few pieces.
    Block = BLOCK as isize,
}

/// Which side failed.
#[derive(Debug)]
pub(crate) enum CopyError {
    Read(io::Error),
    Write(io::Error),
    Stopped,
}

/// Whether somebody wants it to end before it is done.
pub(crate) type IsStopped<'a> = &'a (dyn Fn() -> bool + Sync);

struct Piece {
    at: u64,
    bytes: Vec<u8>,
}

/// Copies the first `length` bytes into an empty file; their digest, in lower-case hexadecimal. Each
/// byte is read once: what was digested is what was written, whatever becomes of `from` meanwhile.
/// The position of `from` is moved.
pub(crate) fn copy(
    from: &File,
    to: &File,
    length: u64,
    grain: Grain,
    is_stopped: IsStopped<'_>,
) -> Result<String, CopyError> {
    to.set_len(length).map_err(CopyError::Write)?;
    let (filled, pieces) = channel::<Piece>();
    let (emptied, buffers) = channel();
    for _ in 0..IN_FLIGHT {
        // The other end is below, so that this cannot fail.
        let _ = emptied.send(Vec::with_capacity(PIECE));
    }
    // Digesting takes about as long as reading and writing: with a thread for each, loading took 0.56 s
    // for 700 MiB where one thread took 0.85 s.
    thread::scope(|scope| {
        let digester = thread::Builder::new().name("template-digest".into());
        let digester = digester.spawn_scoped(scope, move || digest_all(&pieces, &emptied));
        let digester = digester.map_err(CopyError::Read)?;
        let copied = Copying { from, to, length, grain, buffers, filled, is_stopped }.run();
        // The channel is closed by now, which ends the thread.
        let digest = digester.join().map_err(|_| CopyError::Read(digester_ended()))?;
        copied.map(|()| digest.finish(length))
    })
}

fn digest_all(pieces: &Receiver<Piece>, emptied: &Sender<Vec<u8>>) -> ContentDigest {
    let mut digest = ContentDigest::new();
    for Piece { at, bytes } in pieces {
        digest.update(at, &bytes);
        // Nobody waits for the last ones.
        let _ = emptied.send(bytes);
    }
    digest
}

fn digester_ended() -> io::Error {
    io::Error::other("the thread that digests it ended early")
}

struct Copying<'a> {
    from: &'a File,
    to: &'a File,
    length: u64,
    grain: Grain,
    buffers: Receiver<Vec<u8>>,
    filled: Sender<Piece>,
    is_stopped: IsStopped<'a>,
}

impl Copying<'_> {
    fn run(self) -> Result<(), CopyError> {
        let mut at = 0;
        while let Some(data) = next_data(self.from, at, self.length).map_err(CopyError::Read)? {
            at = data.start;
            while at < data.end {
                let bytes = self.buffers.recv().map_err(|_| CopyError::Read(digester_ended()))?;
                at = self.one(at, data.end, bytes)?;
            }
        }
        Ok(())
    }

    /// Copies one piece; where the next begins.
    fn one(&self, at: u64, end: u64, mut bytes: Vec<u8>) -> Result<u64, CopyError> {
        if (self.is_stopped)() {
            return Err(CopyError::Stopped);
        }
        let most = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        bytes.resize(most, 0);
        self.from.read_exact_at(&mut bytes, at).map_err(CopyError::Read)?;
        for run in runs(&bytes, self.grain as usize) {
            let place = at + run.start as u64;
            self.to.write_all_at(&bytes[run], place).map_err(CopyError::Write)?;
        }
        let next = at + bytes.len() as u64;
        let sent = self.filled.send(Piece { at, bytes });
        sent.map(|()| next).map_err(|_| CopyError::Read(digester_ended()))
    }
}

/// The next bytes that are not a hole, in whole blocks; none where the file has no more, also because
/// it was cut meanwhile.
fn next_data(file: &File, at: u64, length: u64) -> io::Result<Option<Range<u64>>> {
    if at >= length {
        return Ok(None);
    }
    let block = BLOCK as u64;
    let found = seek(file, SeekFrom::Data(at))
        .and_then(|start| Ok(start..seek(file, SeekFrom::Hole(start))?));
    match found {
        Ok(data) if data.start < length => {
            let start = data.start - data.start % block;
            Ok(Some(start..data.end.div_ceil(block).saturating_mul(block).min(length)))
        }
        Ok(_) | Err(Errno::NXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

/// Where bytes are not zeros, in whole grains; neighbours are one.
fn runs(bytes: &[u8], grain: usize) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for (index, part) in bytes.chunks(grain).enumerate().filter(|(_, part)| !is_zero(part)) {
        let start = index * grain;
        let end = start + part.len();
        match runs.last_mut() {
            Some(last) if last.end == start => last.end = end,
            _ => runs.push(start..end),
        }
    }
    runs
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use proptest::prelude::*;

    use super::*;

    /// Bytes of one value each, with where they begin.
    type Parts = Vec<(usize, usize, u8)>;

    fn parts() -> impl Strategy<Value = (usize, Parts)> {
        (1..40 * BLOCK).prop_flat_map(|length| {
            let part = (0..length, 1..3 * BLOCK, 0_u8..3);
            (Just(length), proptest::collection::vec(part, 0..8))
        })
    }

    fn content(length: usize, parts: &Parts) -> Vec<u8> {
        let mut content = vec![0; length];
        for (start, many, byte) in parts {
            content[*start..length.min(start + many)].fill(*byte);
        }
        content
    }

    /// A file that has holes wherever nothing was written.
    fn sparse(length: usize, parts: &Parts) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(length as u64).unwrap();
        for (start, many, byte) in parts {
            let many = length.min(start + many) - start;
            file.write_all_at(&vec![*byte; many], *start as u64).unwrap();
        }
        file
    }

    fn dense(content: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    fn copied(from: &File, length: usize, grain: Grain) -> (Vec<u8>, u64, String) {
        // In memory: file systems count blocks of their own with a file's.
        let to = crate::sealed::in_memory("copy").unwrap();
        let digest = copy(from, &to, length as u64, grain, &|| false).unwrap();
        let mut content = vec![0; length];
        to.read_exact_at(&mut content, 0).unwrap();
        let metadata = to.metadata().unwrap();
        assert_eq!(metadata.len(), length as u64);
        (content, metadata.blocks() * 512, digest)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn holes_and_zeros_are_the_same((length, parts) in parts()) {
            let content = content(length, &parts);
            let (from_sparse, kept, digest) = copied(&sparse(length, &parts), length, Grain::Page);
            let (from_dense, _, same) = copied(&dense(&content), length, Grain::Block);
            prop_assert!(from_sparse == content && from_dense == content);
            prop_assert_eq!(&digest, &same);
            let filled = content.chunks(4096).filter(|page| !is_zero(page)).count() as u64;
            prop_assert!(kept <= filled * 4096, "{} bytes of {} pages", kept, filled);
            let mut alone = ContentDigest::new();
            alone.update(0, &content);
            prop_assert_eq!(&digest, &alone.finish(length as u64));
        }

        #[test]
        fn any_other_content_has_another_digest(
            (length, parts) in parts(), at: prop::sample::Index, by in 1_u8..,
        ) {
            let mut content = content(length, &parts);
            let (.., before) = copied(&dense(&content), length, Grain::Block);
            content[at.index(length)] ^= by;
            let (.., after) = copied(&dense(&content), length, Grain::Block);
            prop_assert_ne!(&before, &after);
            content[at.index(length)] ^= by;
            content.push(0);
            let (.., longer) = copied(&dense(&content), length + 1, Grain::Block);
            prop_assert_ne!(before, longer);
        }

        #[test]
        fn the_order_of_blocks_counts(first in 0_usize..6, second in 0_usize..6) {
            prop_assume!(first != second);
            let mut content: Vec<u8> = (1..=6).flat_map(|byte| vec![byte; BLOCK]).collect();
            content[3 * BLOCK..4 * BLOCK].fill(0);
            let (.., before) = copied(&dense(&content), content.len(), Grain::Block);
            let (low, high) = (first.min(second), first.max(second));
            let (start, end) = content.split_at_mut(high * BLOCK);
            start[low * BLOCK..][..BLOCK].swap_with_slice(&mut end[..BLOCK]);
            let (.., after) = copied(&dense(&content), content.len(), Grain::Block);
            prop_assert_ne!(before, after);
        }
    }

    #[test]
    fn a_file_that_grows_or_is_cut_while_it_is_read_is_read_to_the_length_it_had() {
        let content = vec![7; 2 * BLOCK];
        let file = dense(&content);
        let (_, _, expected) = copied(&file, content.len(), Grain::Page);
        file.write_all_at(&content, content.len() as u64).unwrap();
        assert_eq!(copied(&file, content.len(), Grain::Page).2, expected);
        let to = tempfile::tempfile().unwrap();
        file.set_len(BLOCK as u64 + 5).unwrap();
        match copy(&file, &to, content.len() as u64, Grain::Page, &|| false) {
            Err(CopyError::Read(error)) => {
                assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
            }
            other => panic!("{other:?}"),
        }
        // Cut where a block ends, it looks like a hole, and the digest is another.
        file.set_len(BLOCK as u64).unwrap();
        assert_ne!(copied(&file, content.len(), Grain::Page).2, expected);
    }
}
