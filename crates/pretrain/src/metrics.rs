//! What is known of a training while it runs: `metrics.jsonl` and progress lines.

use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tracing::info;

use crate::error::Error;

/// One line of `metrics.jsonl`: means over the steps since the line before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// Steps done.
    pub step: usize,
    /// Training loss.
    pub loss: f32,
    /// Further figures by name.
    pub extra: std::collections::BTreeMap<String, f32>,
    /// Learning rate of the last step.
    pub learning_rate: f64,
    /// Seconds of training so far, interruptions left out.
    pub elapsed_s: f64,
}

/// Writes lines and tells the log.
#[derive(Debug)]
pub struct Metrics {
    path: PathBuf,
    file: File,
    every: usize,
    num_steps: usize,
    first_step: usize,
    started: Instant,
    earlier_s: f64,
    sums: std::collections::BTreeMap<String, f32>,
    count: usize,
}

impl Metrics {
    /// Continues `dir/metrics.jsonl` after `step` steps and `earlier_s` seconds; lines of later steps are dropped.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or written.
    pub fn open(
        dir: &Path,
        step: usize,
        earlier_s: f64,
        num_steps: usize,
        every: usize,
    ) -> Result<Self, Error> {
        let path = dir.join("metrics.jsonl");
        let kept: Vec<Line> = read(&path)?.into_iter().filter(|line| line.step <= step).collect();
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .open(&path)
            .map_err(Error::io(&path))?;
        for line in kept {
            writeln!(file, "{}", serde_json::json!(line)).map_err(Error::io(&path))?;
        }
        Ok(Self {
            path,
            file,
            every: every.max(1),
            num_steps,
            first_step: step,
            started: Instant::now(),
            earlier_s,
            sums: Default::default(),
            count: 0,
        })
    }

    /// Seconds of training so far.
    pub fn elapsed_s(&self) -> f64 {
        self.earlier_s + self.started.elapsed().as_secs_f64()
    }

    /// Takes the figures of step `step`, counted from 1; writes a line where one is due.
    ///
    /// # Errors
    ///
    /// Fails if the loss is not finite or the line cannot be written.
    pub fn add(&mut self, step: usize, figures: &[(&str, f32)], learning_rate: f64) -> Result<(), Error> {
        for (name, value) in figures {
            if *name == "loss" && !value.is_finite() {
                return Err(Error::Diverged { step, loss: *value });
            }
            *self.sums.entry((*name).to_owned()).or_default() += value;
        }
        self.count += 1;
        if !(step.is_multiple_of(self.every) || step == self.num_steps || step == 1) {
            return Ok(());
        }
        let mut extra: std::collections::BTreeMap<String, f32> =
            std::mem::take(&mut self.sums).into_iter().map(|(k, v)| (k, v / self.count as f32)).collect();
        self.count = 0;
        let loss = extra.remove("loss").unwrap_or_default();
        let elapsed_s = self.elapsed_s();
        let line = Line { step, loss, extra, learning_rate, elapsed_s };
        writeln!(self.file, "{}", serde_json::json!(line)).map_err(Error::io(&self.path))?;
        let rate = (step - self.first_step) as f64 / self.started.elapsed().as_secs_f64().max(1e-9);
        let left_s = (self.num_steps - step) as f64 / rate.max(1e-9);
        info!(
            "step {step}/{} loss {loss:.4} {:?} {rate:.2} steps/s, {:.1} min left",
            self.num_steps,
            line.extra,
            left_s / 60.0
        );
        Ok(())
    }
}

/// The lines of a `metrics.jsonl`; none if there is no file.
///
/// # Errors
///
/// Fails if the file cannot be read or a line other than a torn last one is not what [`Metrics`] writes.
pub fn read(path: &Path) -> Result<Vec<Line>, Error> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(Error::io(path)(error)),
    };
    let texts = BufReader::new(file).lines().collect::<Result<Vec<_>, _>>().map_err(Error::io(path))?;
    let last = texts.len();
    let mut lines = Vec::new();
    for (index, text) in texts.iter().enumerate() {
        match serde_json::from_str(text) {
            Ok(line) => lines.push(line),
            Err(_) if index + 1 == last => {} // torn by a kill
            Err(source) => {
                let expected = "a list of training figures, one JSON object per line";
                return Err(Error::Json { path: path.to_path_buf(), expected, source });
            }
        }
    }
    Ok(lines)
}
