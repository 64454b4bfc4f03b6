//! Everything that reads what a stranger wrote, each reader as a function of the bytes: libFuzzer
//! calls them in `cargo xtask fuzz`, which steers by what they reach, and `tests/replay.rs` calls them
//! in every run of the tests with the inputs that are kept, and with changes of these.

#![allow(clippy::unwrap_used, reason = "what is not as it should be is to panic")]

mod core_dump;
mod cpu_template;
mod death_record;
mod elf_file;
mod guest_frames;
mod guest_hello;
mod guest_link;
mod guest_messages;
mod guest_requests;
mod provider_file;
mod recipe_file;
mod terminal;
mod text;
mod viewer_input;
mod viewer_offer;
mod viewer_packets;

/// A reader of foreign bytes.
pub struct Target {
    /// As its folders in `fuzz/seeds` and `fuzz/corpus` are named.
    pub name: &'static str,
    /// Reads an input. Panics when what it read is not what it should be.
    pub run: fn(&[u8]),
}

/// All readers of foreign bytes.
pub const TARGETS: [Target; 15] = [
    Target { name: "guest_frames", run: guest_frames::run },
    Target { name: "guest_hello", run: guest_hello::run },
    Target { name: "guest_link", run: guest_link::run },
    Target { name: "guest_messages", run: guest_messages::run },
    Target { name: "guest_requests", run: guest_requests::run },
    Target { name: "provider_file", run: provider_file::run },
    Target { name: "terminal", run: terminal::run },
    Target { name: "core_dump", run: core_dump::run },
    Target { name: "cpu_template", run: cpu_template::run },
    Target { name: "death_record", run: death_record::run },
    Target { name: "elf_file", run: elf_file::run },
    Target { name: "recipe_file", run: recipe_file::run },
    Target { name: "viewer_input", run: viewer_input::run },
    Target { name: "viewer_offer", run: viewer_offer::run },
    Target { name: "viewer_packets", run: viewer_packets::run },
];

/// The target of that name.
#[must_use]
pub fn target(name: &str) -> Option<&'static Target> {
    TARGETS.iter().find(|target| target.name == name)
}
