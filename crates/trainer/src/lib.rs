//! The `trainer` stage: frozen features, and trained parameters of FLIER, its controls and the baselines.
//!
//! Reads `images`, `fewshot-splits`, `latents` and `features` artifacts and writes `features` and `checkpoints`. Training
//! sees real images through [`images::TrainingImages`] and features through [`features::TrainingFeatures`] only: both are
//! made from the identifiers of a shot list and refuse held-out splits, so no test image can take part in training or
//! selection. Every random number is drawn on the host from a stream named by the run's seed and its purpose.

pub mod augment;
pub mod backbone;
pub mod class_texts;
pub mod error;
pub mod features;
pub mod fine_tune;
pub mod frozen;
pub mod images;
pub mod metrics_log;
pub mod optimizer;
pub mod parameters;
pub mod random;
pub mod schedule;
pub mod shot_list;
pub mod stage;
pub mod towers;

pub use error::Error;
pub use stage::{Ending, Settings, run};

/// Called with the steps done and to do; `Break` stops the work.
pub type Control<'a> = dyn FnMut(u64, u64) -> std::ops::ControlFlow<()> + 'a;
