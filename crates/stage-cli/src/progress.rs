//! Progress: a bar on a terminal, otherwise a plain line at most every ten seconds.

use std::fmt;
use std::io::{self, IsTerminal as _, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// Time between two lines where no bar can be drawn.
const LINE_EVERY: Duration = Duration::from_secs(10);

/// How progress is shown.
#[derive(Debug, Clone)]
pub struct Display {
    /// The bars, on a terminal.
    bars: Option<MultiProgress>,
}

impl Display {
    /// Bars if stderr is a terminal and `bars` allows them.
    pub fn new(bars: bool) -> Self {
        let drawn =
            bars && io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|t| t != "dumb");
        Self { bars: drawn.then(MultiProgress::new) }
    }

    /// Progress over `total` steps.
    pub fn progress(&self, label: &str, total: u64) -> Progress {
        let bar = self.bars.as_ref().map(|bars| {
            let bar = bars.add(ProgressBar::new(total));
            let template = "{msg:<18} [{bar:30}] {pos}/{len} {per_sec} eta {eta}";
            let style =
                ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("=> "));
            bar.set_message(label.to_owned());
            bar
        });
        let lines = Mutex::new(Lines { done: 0, started: Instant::now(), last: Instant::now() });
        Progress { label: label.to_owned(), total, bar, lines }
    }

    /// A writer for log lines that keeps clear of the bars.
    pub(crate) fn writer(&self) -> LogWriter {
        LogWriter { bars: self.bars.clone() }
    }
}

/// Progress of one piece of work; dropped, it ends.
#[derive(Debug)]
pub struct Progress {
    label: String,
    total: u64,
    bar: Option<ProgressBar>,
    lines: Mutex<Lines>,
}

#[derive(Debug)]
struct Lines {
    done: u64,
    started: Instant,
    last: Instant,
}

impl Progress {
    /// `steps` more are done.
    pub fn inc(&self, steps: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(steps);
            return;
        }
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.done += steps;
        if lines.last.elapsed() >= LINE_EVERY {
            lines.last = Instant::now();
            let elapsed_s = lines.started.elapsed().as_secs();
            tracing::info!(done = lines.done, total = self.total, elapsed_s, "{}", self.label);
        }
    }

    /// Shows a figure beside the bar, for example a loss.
    pub fn note(&self, text: impl fmt::Display) {
        match &self.bar {
            Some(bar) => bar.set_message(format!("{} {text}", self.label)),
            None => tracing::debug!("{} {text}", self.label),
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
            return;
        }
        let lines = self.lines.get_mut().unwrap_or_else(PoisonError::into_inner);
        let elapsed_ms = u64::try_from(lines.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        tracing::info!(done = lines.done, total = self.total, elapsed_ms, "{}", self.label);
    }
}

/// stderr, with the bars out of the way while a line is written. A closed stderr is no reason to fail.
#[derive(Debug, Clone)]
pub(crate) struct LogWriter {
    bars: Option<MultiProgress>,
}

impl Write for LogWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let write = || io::stderr().write_all(bytes);
        // Nobody could be told about the failure of a log line.
        let _ = self.bars.as_ref().map_or_else(write, |bars| bars.suspend(write));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
