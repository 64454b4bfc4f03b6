//! How far long work is: a bar on a terminal, a line a step where there is none.

use std::cell::RefCell;
use std::io::Write;
use std::time::Duration;

use anteroom_image::{BuildStep, Progress};
use indicatif::{ProgressBar, ProgressStyle};

/// Work under way.
pub struct Work {
    bar: ProgressBar,
    what: String,
    /// The step that was reported last.
    step: RefCell<String>,
}

impl Work {
    /// Work whose end can be foreseen.
    pub fn measured(what: String) -> Self {
        let style = "{prefix} [{bar:30}] {percent:>3}% {msg} ({elapsed})";
        Self::new(ProgressBar::new(1000), style, what)
    }

    /// Work that takes as long as it takes.
    pub fn open_ended(what: String) -> Self {
        Self::new(ProgressBar::new_spinner(), "{prefix} {spinner} {msg} ({elapsed})", what)
    }

    fn new(bar: ProgressBar, style: &str, what: String) -> Self {
        let style = ProgressStyle::with_template(style).expect("the template is fixed");
        bar.set_style(style.progress_chars("=> "));
        bar.set_prefix(what.clone());
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar, what, step: RefCell::default() }
    }

    /// It is at this step.
    pub fn at_step(&self, step: &str) {
        self.bar.set_message(step.to_owned());
        self.report_once(step);
    }

    /// It is over, well or not.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    /// A log has a line for each step that begins.
    fn report_once(&self, step: &str) {
        if self.bar.is_hidden() && *self.step.borrow() != step {
            // Nobody may be listening any more, and the work goes on.
            let _ = writeln!(std::io::stderr(), "{}: {step}", self.what);
            step.clone_into(&mut self.step.borrow_mut());
        }
    }
}

impl Progress for Work {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a part is 0 to 1")]
    fn at(&self, step: BuildStep, part: f32, detail: &str) {
        self.bar.set_position((part.clamp(0.0, 1.0) * 1000.0) as u64);
        self.bar.set_message(format!("{}: {detail}", step.name()));
        self.report_once(step.name());
    }
}
