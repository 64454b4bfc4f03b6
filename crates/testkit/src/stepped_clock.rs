//! A wall clock that is off, for a program that is started with it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Lets `clock_gettime` of the wall clock be off by as many seconds as a file says.
const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <sys/syscall.h>
#include <unistd.h>
int clock_gettime(clockid_t id, struct timespec *now) {
    int result = syscall(SYS_clock_gettime, id, now);
    long off = 0;
    FILE *file = id == CLOCK_REALTIME ? fopen(getenv("CLOCK_OFF_FILE"), "r") : NULL;
    if (file) { if (fscanf(file, "%ld", &off) == 1) now->tv_sec += off; fclose(file); }
    return result;
}
"#;

/// A clock that can be stepped while the program runs. What that starts has it too, unless it gets another
/// environment.
pub struct SteppedClock {
    library: PathBuf,
    off: PathBuf,
}

impl SteppedClock {
    /// One that is right yet, with its files in this folder.
    ///
    /// # Errors
    /// When there is no C compiler.
    pub fn right(folder: &Path) -> Result<Self> {
        let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
        std::fs::write(&source, SOURCE)?;
        let mut compiler = Command::new("gcc");
        compiler.args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source);
        let built = compiler.status().context("starting gcc failed")?;
        ensure!(built.success(), "gcc did not make {}", library.display());
        let clock = Self { library, off: folder.join("clock-off") };
        clock.step_to(0)?;
        Ok(clock)
    }

    /// Has it off by so many seconds.
    ///
    /// # Errors
    /// When its file cannot be written.
    pub fn step_to(&self, seconds: i64) -> Result<()> {
        std::fs::write(&self.off, seconds.to_string()).context("stepping the clock failed")
    }

    /// What has a program take it: names and values of its environment.
    #[must_use]
    pub fn environment(&self) -> [(&'static str, &Path); 2] {
        [("LD_PRELOAD", &self.library), ("CLOCK_OFF_FILE", &self.off)]
    }
}
