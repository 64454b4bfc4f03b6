//! `cargo xtask bench doors`: attacks, each made against the program that users run, and whether each
//! was refused. A file a door; [`DOORS`] names them.

mod credentials;
mod egress;
mod files;
mod foreign_files;
mod health;
mod host_driver;
mod hosts;
mod keys;
mod links;
mod meaning;
mod media;
mod neighbours;

use std::path::Path;

use anyhow::{Result, bail};
use serde_json::json;

use xtask::interrupt;

/// A group of attacks: its name, and what makes them.
type Door = (&'static str, fn(&Path, &mut Tries) -> Result<()>);

const DOORS: [Door; 11] = [
    ("credentials", credentials::attack),
    ("links", links::attack),
    ("media", media::attack),
    ("neighbours", neighbours::attack),
    ("host_driver", host_driver::attack),
    ("health", health::attack),
    ("files", files::attack),
    ("foreign_files", foreign_files::attack),
    ("hosts", hosts::attack),
    ("egress", egress::attack),
    ("keys", keys::attack),
];

/// What became of one attack.
#[derive(Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was refused.
    Refused,
    /// It got what it wanted: this was seen.
    Passed(String),
}

/// All attacks so far.
#[derive(Debug, Default)]
pub struct Tries {
    door: &'static str,
    made: usize,
    passed: Vec<String>,
}

impl Tries {
    /// Counts one attack and prints its outcome.
    pub fn record(&mut self, attack: &str, outcome: Outcome) {
        self.made += 1;
        match outcome {
            Outcome::Refused => eprintln!("  refused  {}: {attack}", self.door),
            Outcome::Passed(seen) => {
                let line = format!("{}: {attack}: {seen}", self.door);
                eprintln!("  PASSED   {line}");
                self.passed.push(line);
            }
        }
    }
}

/// Makes the attacks of every door whose name holds `only`; the last line is one JSON object.
pub fn run(anteroom: &Path, only: Option<&str>) -> Result<()> {
    let mut tries = Tries::default();
    for (name, attack) in DOORS {
        if only.is_some_and(|only| !name.contains(only)) {
            continue;
        }
        interrupt::check()?;
        tries.door = name;
        attack(anteroom, &mut tries)?;
    }
    let passed = tries.passed.len();
    println!(
        "{}",
        json!({ "tries": tries.made, "refused": tries.made - passed, "passed": passed })
    );
    if tries.made == 0 {
        bail!("no door's name contains that");
    }
    if passed > 0 {
        bail!("{passed} of {} attacks got through:\n{}", tries.made, tries.passed.join("\n"));
    }
    Ok(())
}
