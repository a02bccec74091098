//! What a stage is given.

use std::time::Instant;

use artifacts::Shard;
use pipeline_spec::{ArtifactId, Store, Unit};

use crate::Progress;
use crate::progress::Display;
use crate::signals::Signals;

/// What a stage is given: what to compute, where, and whether to stop.
#[derive(Debug)]
pub struct Context {
    /// What to compute. Its inputs are committed.
    pub unit: Unit,
    /// Where artifacts lie.
    pub store: Store,
    /// Which parts to compute.
    pub shard: Shard,
    /// What the unit yields.
    pub output: ArtifactId,
    /// When the stage began.
    pub started: Instant,
    pub(crate) signals: Signals,
    pub(crate) display: Display,
}

/// A stage stopped because a signal asked it to; what was committed stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("interrupted by a signal; run the same command again to go on")]
pub struct Interrupted {
    /// Exit code of the signal, 130 or 143.
    pub exit_code: u8,
}

impl Context {
    /// Whether a signal asked the stage to stop. Poll it between parts and steps; a stage should stop within two seconds.
    pub fn interrupted(&self) -> bool {
        self.signals.exit_code().is_some()
    }

    /// `Err` if a signal asked the stage to stop, for use with `?` between parts and steps.
    ///
    /// # Errors
    ///
    /// Fails with [`Interrupted`], which ends in exit code 130 or 143.
    pub fn check_interrupted(&self) -> Result<(), Interrupted> {
        self.signals.exit_code().map_or(Ok(()), |exit_code| Err(Interrupted { exit_code }))
    }

    /// Progress over `total` steps of the work `label`: a bar on a terminal, else a log line now and then.
    pub fn progress(&self, label: &str, total: u64) -> Progress {
        self.display.progress(label, total)
    }
}
