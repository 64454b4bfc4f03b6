//! What a process goes on to draw random numbers from, and would draw the same of in every clone: found
//! while it stands, and made new before it goes on.

use std::fs::{self, File, OpenOptions};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use anyhow::{Context, Result};

use super::v8_generator::Generator;
use crate::random::drawn;

const PAGE: u64 = 4096;
const INTEGER: u64 = 8;
const GENERATOR: u64 = Generator::INTEGERS as u64 * INTEGER;

/// Of an entry of `pagemap` (Documentation/admin-guide/mm/pagemap.rst): the page is in memory.
const PRESENT: u64 = 1 << 63;

/// Bytes that are read at once.
const AT_ONCE: usize = 128 * 1024;

/// The generators that a renderer has drawn from before it has a page: V8 has one for addresses, and one for
/// scripts.
const OF_A_RENDERER: usize = 2;

/// Of one process.
#[derive(Debug)]
pub struct RandomState {
    pid: u32,
    /// What the kernel empties in a child (`MADV_WIPEONFORK`, madvise(2)): a library of cryptography that finds
    /// it empty takes new random bytes of the kernel. That its machine was cloned it cannot see.
    wiped_on_fork: Vec<Range<u64>>,
    /// Where V8's generators are. Each drew of the kernel once, and every `Math.random` follows from it.
    generators: Vec<u64>,
    renderer: Option<Renderer>,
}

/// What renders pages.
#[derive(Debug)]
struct Renderer {
    /// Chromium counts them.
    number: u32,
    /// Whether those generators were found that its pages draw from.
    is_complete: bool,
}

impl RandomState {
    /// Of a process that stands.
    pub fn of(pid: u32) -> Result<Self> {
        let path = format!("/proc/{pid}/smaps");
        let smaps = fs::read_to_string(&path).with_context(|| format!("reading {path} failed"))?;
        let areas = areas(&smaps);
        let wiped = areas.iter().filter(|area| area.is_wiped_on_fork);
        let wiped_on_fork = wiped.map(|area| area.addresses.clone()).collect();
        let number = number_of_renderer(pid)?;
        let found = match number {
            Some(_) => generators(pid, &areas)
                .with_context(|| format!("reading the memory of process {pid} failed"))?,
            None => Vec::new(),
        };
        // Its pages draw from none that was never drawn from, nor from its parent's.
        let is_own = |found: &&Found| found.drawn > 0 && !found.is_inherited;
        let is_complete = found.iter().filter(is_own).count() >= OF_A_RENDERER;
        Ok(Self {
            pid,
            wiped_on_fork,
            generators: found.iter().map(|found| found.at).collect(),
            renderer: number.map(|number| Renderer { number, is_complete }),
        })
    }

    /// The renderer whose generators were not found, if there is one besides the first: that one's page may have
    /// drawn too many numbers for them to be found, and the sign-in page is shown by another.
    pub fn incomplete(states: &[Self]) -> Option<u32> {
        let mut renderers: Vec<_> =
            states.iter().filter_map(|state| Some((state.renderer.as_ref()?, state.pid))).collect();
        renderers.sort_by_key(|(renderer, _)| renderer.number);
        let mut others = renderers.into_iter().skip(1);
        others.find(|(renderer, _)| !renderer.is_complete).map(|(_, pid)| pid)
    }

    /// Makes it new; how many states there were.
    pub fn forget(&self) -> Result<usize> {
        let states = self.wiped_on_fork.len() + self.generators.len();
        if states > 0 {
            self.write_new()
                .with_context(|| format!("changing the memory of process {} failed", self.pid))?;
        }
        Ok(states)
    }

    fn write_new(&self) -> Result<()> {
        let memory = OpenOptions::new().write(true).open(format!("/proc/{}/mem", self.pid))?;
        for Range { start, end } in &self.wiped_on_fork {
            let length = usize::try_from(end - start).context("an area is too long")?;
            memory.write_all_at(&vec![0; length], *start)?;
        }
        for at in &self.generators {
            let integers = Generator::of_seed(u64::from_ne_bytes(drawn()?)).integers();
            memory.write_all_at(&integers.map(u64::to_ne_bytes).concat(), *at)?;
        }
        Ok(())
    }
}

/// A generator of V8's.
struct Found {
    at: u64,
    drawn: usize,
    /// Whether the process that this one was forked of has it too.
    is_inherited: bool,
}

/// Of one of Chromium's that render pages, its number.
fn number_of_renderer(pid: u32) -> Result<Option<u32>> {
    let path = format!("/proc/{pid}/cmdline");
    let command = fs::read(&path).with_context(|| format!("reading {path} failed"))?;
    // It writes its own, with spaces.
    let mut arguments = command.split(|byte| matches!(byte, 0 | b' '));
    Ok(arguments.find_map(|argument| {
        let number = argument.strip_prefix(b"--renderer-client-id=")?;
        std::str::from_utf8(number).ok()?.parse().ok()
    }))
}

fn generators(pid: u32, areas: &[Area]) -> Result<Vec<Found>> {
    let memory = Memory::of(pid)?;
    let parents = Memory::of(parent(pid)?)?;
    let mut found = Vec::new();
    for area in areas.iter().filter(|area| area.is_own_data) {
        found.extend(in_area(&memory, &parents, &area.addresses)?);
    }
    Ok(found)
}

fn in_area(memory: &Memory, parents: &Memory, addresses: &Range<u64>) -> Result<Vec<Found>> {
    let mut found = Vec::new();
    for Range { start, end } in memory.present(addresses)? {
        for start in (start..end).step_by(AT_ONCE) {
            // One may begin at the end of what is read.
            let end = end.min(start + AT_ONCE as u64 + GENERATOR - INTEGER);
            for (place, drawn) in Generator::find(&memory.integers(start..end)?) {
                let at = start + place as u64 * INTEGER;
                let its = memory.integers(at..at + GENERATOR)?;
                let of_parent = parents.integers(at..at + GENERATOR);
                let is_inherited = of_parent.is_ok_and(|parents| parents == its);
                found.push(Found { at, drawn, is_inherited });
            }
        }
    }
    Ok(found)
}

/// Of a process that stands.
struct Memory {
    bytes: File,
    /// One for each page.
    entries: File,
}

impl Memory {
    fn of(pid: u32) -> Result<Self> {
        let open = |name| {
            let path = format!("/proc/{pid}/{name}");
            File::open(&path).with_context(|| format!("opening {path} failed"))
        };
        Ok(Self { bytes: open("mem")?, entries: open("pagemap")? })
    }

    /// Which of these addresses are of pages that are there: the others hold zeros, where they may be read.
    fn present(&self, addresses: &Range<u64>) -> Result<Vec<Range<u64>>> {
        let mut present: Vec<Range<u64>> = Vec::new();
        let mut read = vec![0; AT_ONCE];
        let pages = addresses.start / PAGE..addresses.end / PAGE;
        for first in pages.clone().step_by(AT_ONCE / size_of::<u64>()) {
            let some = usize::try_from((pages.end - first) * INTEGER)?.min(AT_ONCE);
            self.entries.read_exact_at(&mut read[..some], first * INTEGER)?;
            for (page, entry) in (first..).zip(integers(&read[..some])) {
                let (start, end) = (page * PAGE, (page + 1) * PAGE);
                match present.last_mut() {
                    _ if entry & PRESENT == 0 => {}
                    Some(last) if last.end == start => last.end = end,
                    _ => present.push(start..end),
                }
            }
        }
        Ok(present)
    }

    fn integers(&self, addresses: Range<u64>) -> Result<Vec<u64>> {
        let mut bytes = vec![0; usize::try_from(addresses.end - addresses.start)?];
        self.bytes.read_exact_at(&mut bytes, addresses.start)?;
        Ok(integers(&bytes).collect())
    }
}

fn integers(bytes: &[u8]) -> impl Iterator<Item = u64> {
    bytes.as_chunks().0.iter().map(|bytes| u64::from_ne_bytes(*bytes))
}

fn parent(pid: u32) -> Result<u32> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("reading {path} failed"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("PPid:"));
    line.and_then(|pid| pid.trim().parse().ok()).with_context(|| format!("{path} names no parent"))
}

/// What a process has mapped in one piece.
#[derive(Debug, PartialEq, Eq)]
struct Area {
    addresses: Range<u64>,
    is_wiped_on_fork: bool,
    /// Whether it is memory of its own that it may write to, and of no file.
    is_own_data: bool,
}

/// Those of an `smaps` (proc_pid_smaps(5)).
fn areas(smaps: &str) -> Vec<Area> {
    let mut areas: Vec<Area> = Vec::new();
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if let Some(last) = areas.last_mut() {
                last.is_wiped_on_fork = flags.split_whitespace().any(|flag| flag == "wf");
            }
        } else {
            areas.extend(area(line));
        }
    }
    areas
}

/// What a line begins the description of.
fn area(line: &str) -> Option<Area> {
    let mut fields = line.split_whitespace();
    let (start, end) = fields.next()?.split_once('-')?;
    let address = |text| u64::from_str_radix(text, 16).ok();
    let addresses = address(start)?..address(end)?;
    let rights = fields.next()?;
    let inode = fields.nth(2)?;
    let is_own_data = rights.starts_with("rw") && rights.ends_with('p') && inode == "0";
    Some(Area { addresses, is_wiped_on_fork: false, is_own_data })
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    const SEED: u64 = 0xe544_e3bd_1349_24ce;

    #[test]
    fn areas_and_what_they_are_of() {
        let smaps = "\
7f00a000-7f00b000 rw-p 00000000 00:00 0 \nSize:  4 kB\nVmFlags: rd wr mr mw me ac wf sd \n\
7f00b000-7f00d000 rw-p 00001000 fe:00 7   /lib/c.so\nSize:  8 kB\nVmFlags: rd wr mr mw me ac sd \n\
7ffe0000-7fff0000 rw-p 00000000 00:00 0 [stack]\nVmFlags: rd wr gd wf ac \n\
7fff0000-7fff4000 r--p 00000000 00:00 0 [vvar]\nVmFlags: rd mr de \n";
        let area = |addresses, is_wiped_on_fork, is_own_data| Area {
            addresses,
            is_wiped_on_fork,
            is_own_data,
        };
        let expected = [
            area(0x7f00_a000..0x7f00_b000, true, true),
            area(0x7f00_b000..0x7f00_d000, false, false),
            area(0x7ffe_0000..0x7fff_0000, true, true),
            area(0x7fff_0000..0x7fff_4000, false, false),
        ];
        assert_eq!(areas(smaps), expected);
    }

    #[test]
    fn what_is_found_is_made_new() {
        let mut page = vec![7_u8; 64];
        let mut generator = Generator::of_seed(SEED).integers();
        let start = page.as_mut_ptr() as u64;
        let state = RandomState {
            pid: std::process::id(),
            wiped_on_fork: iter::once(start..start + 32).collect(),
            generators: vec![generator.as_mut_ptr() as u64],
            renderer: None,
        };
        assert_eq!(state.forget().unwrap(), 2);
        assert_eq!(std::hint::black_box(&mut page)[..33], [&[0; 32][..], &[7]].concat());
        let new = *std::hint::black_box(&mut generator);
        assert_ne!(new, Generator::of_seed(SEED).integers());
        assert_eq!(new, Generator::of_seed(new[0]).integers());
    }

    #[test]
    fn a_generator_is_found_in_memory_also_between_two_reads() {
        let memory = Memory::of(std::process::id()).unwrap();
        let mut kept = vec![1_u64; 4 * AT_ONCE / size_of::<u64>()];
        let start = (kept.as_ptr() as u64).next_multiple_of(PAGE);
        let before = usize::try_from((start - kept.as_ptr() as u64) / INTEGER).unwrap();
        for at_step in [0, 1, 2] {
            let place = before + AT_ONCE / size_of::<u64>() - at_step;
            kept[place..place + 3].copy_from_slice(&Generator::of_seed(SEED).integers());
            let addresses = start..start + 3 * AT_ONCE as u64;
            let _ = std::hint::black_box(&kept);
            let found = in_area(&memory, &memory, &addresses).unwrap();
            let expected = start + (AT_ONCE as u64) - at_step as u64 * INTEGER;
            assert_eq!(found.iter().map(|found| found.at).collect::<Vec<_>>(), [expected]);
            kept[place..place + 3].fill(1);
        }
    }

    #[test]
    fn the_generators_of_each_renderer_but_the_first_must_be_found() {
        let process = |pid, renderer: Option<(u32, bool)>| RandomState {
            pid,
            wiped_on_fork: Vec::new(),
            generators: Vec::new(),
            renderer: renderer.map(|(number, is_complete)| Renderer { number, is_complete }),
        };
        let [browser, waits, ahead] = [(7, None), (9, Some((5, false))), (8, Some((6, true)))]
            .map(|(pid, of)| process(pid, of));
        assert_eq!(RandomState::incomplete(&[browser, ahead, waits]), None);
        let states = [process(9, Some((5, true))), process(8, Some((6, false)))];
        assert_eq!(RandomState::incomplete(&states), Some(8));
    }
}
