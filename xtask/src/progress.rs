//! Progress over the units: a bar on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::collections::BTreeMap;
use std::fmt::Display;
use std::time::{Duration, Instant};

use crate::terminal;

/// Seconds between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(15);

/// Shows how many units are done and how long the rest may take.
pub struct Progress {
    bar: Option<ProgressBar>,
    num_units: usize,
    num_done: usize,
    jobs: usize,
    last_line: Instant,
    /// Units to come and time spent, by step: runs of one step take about equally long.
    steps: BTreeMap<String, StepTime>,
}

#[derive(Default)]
struct StepTime {
    remaining: usize,
    finished: usize,
    elapsed: Duration,
}

impl Progress {
    /// Progress over units with the given step names.
    pub fn new(steps: impl Iterator<Item = String>, jobs: usize) -> Self {
        let mut times: BTreeMap<String, StepTime> = BTreeMap::new();
        for step in steps {
            times.entry(step).or_default().remaining += 1;
        }
        let num_units = times.values().map(|step| step.remaining).sum();
        let bar = terminal::is_interactive().then(|| {
            let bar = ProgressBar::with_draw_target(Some(num_units as u64), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{wide_bar} {pos}/{len} units  {elapsed}  {msg}");
            bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
        });
        Self { bar, num_units, num_done: 0, jobs, last_line: Instant::now(), steps: times }
    }

    /// Counts a unit that ended, successfully or not.
    pub fn finish_unit(&mut self, step: &str, elapsed: Duration) {
        self.num_done += 1;
        if let Some(step) = self.steps.get_mut(step) {
            step.remaining -= 1;
            step.finished += 1;
            step.elapsed += elapsed;
        }
        if let Some(bar) = &self.bar {
            bar.set_position(self.num_done as u64);
        }
    }

    /// Shows what runs now.
    pub fn show(&mut self, running: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(format!("{}  {}", self.remaining_text(), running()));
        } else if self.last_line.elapsed() >= LINE_INTERVAL {
            self.last_line = Instant::now();
            let (done, all) = (self.num_done, self.num_units);
            terminal::note(format_args!(
                "{done}/{all} units, {}, running {}",
                self.remaining_text(),
                running()
            ));
        }
    }

    /// Writes a line above the bar.
    pub fn note(&self, line: impl Display) {
        match &self.bar {
            Some(bar) => bar.suspend(|| terminal::note(line)),
            None => terminal::note(line),
        }
    }

    /// Takes the bar away.
    pub fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    /// Time left: units to come of each step times the mean of its finished ones. Steps of which none has finished
    /// are not counted, which `at least` says.
    fn remaining_text(&self) -> String {
        let mut left = Duration::ZERO;
        let mut is_complete = true;
        for step in self.steps.values().filter(|step| step.remaining > 0) {
            if step.finished == 0 {
                is_complete = false;
            } else {
                left += step.elapsed * step.remaining as u32 / step.finished as u32;
            }
        }
        let left = terminal::duration(Duration::from_secs((left / self.jobs as u32).as_secs()));
        if is_complete { format!("about {left} left") } else { format!("at least {left} left") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_left_comes_from_finished_units_of_the_same_step() {
        let names = ["train", "train", "train", "test"].map(str::to_owned);
        let mut progress = Progress::new(names.into_iter(), 2);
        progress.finish_unit("train", Duration::from_secs(60));
        assert_eq!(progress.remaining_text(), "at least 1 min 00 s left");
        progress.finish_unit("test", Duration::from_secs(1));
        assert_eq!(progress.remaining_text(), "about 1 min 00 s left");
    }
}
