//! What the demo does when no progress bar shows it.

use std::io::{IsTerminal as _, stderr};
use std::time::Duration;

use indicatif::ProgressBar;

const TICK: Duration = Duration::from_millis(100);

/// One step on standard error: a spinner on a terminal, gone with the step; a line elsewhere.
pub(super) struct Step(Option<ProgressBar>);

impl Step {
    pub(super) fn start(what: &'static str) -> Self {
        if !stderr().is_terminal() {
            eprintln!("{what}");
            return Self(None);
        }
        let spinner = ProgressBar::new_spinner().with_message(what);
        spinner.enable_steady_tick(TICK);
        Self(Some(spinner))
    }
}

impl Drop for Step {
    fn drop(&mut self) {
        if let Some(spinner) = &self.0 {
            spinner.finish_and_clear();
        }
    }
}
