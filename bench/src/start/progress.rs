//! How far a row of sign-ins is: a bar on a terminal, a line for each ten where there is none.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A line is for so many.
const LINE_EVERY: usize = 10;

/// A row under way; the bar goes with it.
pub struct Progress {
    bar: ProgressBar,
    what: &'static str,
    count: usize,
}

impl Progress {
    /// So many of these.
    pub fn of(what: &'static str, count: usize) -> Self {
        let bar = ProgressBar::new(count as u64);
        // As the command line shows long work.
        let style = "{prefix} [{bar:30}] {pos}/{len} {msg} ({elapsed})";
        if let Ok(style) = ProgressStyle::with_template(style) {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(what);
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, what, count }
    }

    /// This many are done; `last` is of the last one.
    pub fn done(&self, number: usize, last: &str) {
        self.bar.set_position(number as u64);
        self.bar.set_message(last.to_owned());
        if self.bar.is_hidden() && (number.is_multiple_of(LINE_EVERY) || number == self.count) {
            eprintln!("{}: {number} of {}; the last: {last}", self.what, self.count);
        }
    }

    /// A line of its own.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
