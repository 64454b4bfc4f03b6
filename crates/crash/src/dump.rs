//! A core dump as it lies in a file: as the kernel wrote it, or compressed, as systemd keeps it.
//!
//! Nothing is unpacked to a disk, and nothing but the head is kept: a place further on is reached by
//! unpacking up to it once more.

mod packing;

use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};

use packing::{MAX_MEMORY_KIB, Packing, first_command};

use crate::core_file::HEAD;

/// The most that a compressed dump may hold.
pub const MAX_UNPACKED: u64 = 8 * 1024 * 1024 * 1024;

/// A core dump that can be read at any place.
pub struct Dump<R> {
    file: R,
    packing: Option<Packing>,
    head: Vec<u8>,
}

/// A file whose content cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The file itself.
    #[error("the file could not be read")]
    Read(#[from] io::Error),
    /// Its compression does not hold together.
    #[error(
        "it is compressed by {by} and truncated or damaged; copy it again, or take a new one \
         (`coredumpctl dump PID -o core`)"
    )]
    Damaged {
        /// The compressor.
        by: &'static str,
        /// What its decompressor says.
        source: io::Error,
    },
    /// It is larger than what is unpacked here, or takes more memory.
    #[error("it is compressed by {by} and {what}; {command} unpacks it")]
    TooLarge {
        /// The compressor.
        by: &'static str,
        /// What is too large.
        what: String,
        /// A command of the compressor's own.
        command: String,
    },
    /// It is in a form that is not read here.
    #[error("it is {form}, which is not supported; {command} converts it")]
    OtherForm {
        /// The form.
        form: &'static str,
        /// The command that makes a plain dump of it.
        command: String,
    },
}

impl<R: Read + Seek> Dump<R> {
    /// Opens a dump by its first bytes; a compressed one is unpacked once to its end, so that nothing
    /// is said by a damaged one. `name` is the file's name quoted for a shell.
    ///
    /// # Errors
    /// When it cannot be read; the error says which command makes it readable, where there is one.
    pub fn open(file: R, name: &str) -> Result<Self, DumpError> {
        Self::open_within(file, name, MAX_UNPACKED)
    }

    fn open_within(mut file: R, name: &str, limit: u64) -> Result<Self, DumpError> {
        let mut head = Vec::new();
        file.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
        if let Some((form, command)) = first_command(&head, name) {
            return Err(DumpError::OtherForm { form, command });
        }
        let Some(packing) = Packing::of(&head) else {
            return Ok(Self { file, packing: None, head });
        };
        let (by, command) = (packing.name(), packing.command(name));
        let too_large = |what| DumpError::TooLarge { by, what, command: command.clone() };
        let failed = |source: io::Error| match source.kind() {
            ErrorKind::OutOfMemory => too_large(format!(
                "unpacking it takes more than {} MiB of memory",
                MAX_MEMORY_KIB / 1024
            )),
            _ => DumpError::Damaged { by, source },
        };
        let mut dump = Self { file, packing: Some(packing), head: Vec::new() };
        let mut unpacked = dump.unpacked(packing)?;
        head.clear();
        (&mut unpacked).take(HEAD as u64).read_to_end(&mut head).map_err(failed)?;
        let rest = io::copy(&mut unpacked.take(limit), &mut io::sink()).map_err(failed)?;
        if head.len() as u64 + rest > limit {
            return Err(too_large(format!("is larger than {} MiB", limit / (1024 * 1024))));
        }
        dump.head = head;
        Ok(dump)
    }

    /// Its first [`HEAD`] bytes, or all of it.
    pub fn head(&self) -> &[u8] {
        &self.head
    }

    /// So many bytes from a place on, or fewer where it ends.
    ///
    /// # Errors
    /// When the file cannot be read any more.
    pub fn at(&mut self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        if let Ok(start) = usize::try_from(offset)
            && let Some(held) = start.checked_add(length).and_then(|end| self.head.get(start..end))
        {
            return Ok(held.to_vec());
        }
        let mut bytes = Vec::new();
        match self.packing {
            None => {
                self.file.seek(SeekFrom::Start(offset))?;
                self.file.by_ref().take(length as u64).read_to_end(&mut bytes)?;
            }
            Some(packing) => {
                let mut unpacked = self.unpacked(packing)?;
                let offset = offset.min(MAX_UNPACKED);
                io::copy(&mut (&mut unpacked).take(offset), &mut io::sink())?;
                unpacked.take(length as u64).read_to_end(&mut bytes)?;
            }
        }
        Ok(bytes)
    }

    /// From the beginning.
    fn unpacked(&mut self, packing: Packing) -> io::Result<Box<dyn Read + '_>> {
        self.file.rewind()?;
        Ok(packing.reader(BufReader::new(&mut self.file)))
    }
}

#[cfg(test)]
mod tests;
