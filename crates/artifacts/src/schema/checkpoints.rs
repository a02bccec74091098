//! Kind `checkpoints`, schema version 1: no rows, but files.
//!
//! The files are published below `data/` as they are and are digested like Parquet parts. They are a set: all of them
//! come from one run.

/// Trained parameters, names as in the checkpoint that the run started from.
pub const MODEL: &str = "model.safetensors";
/// What was trained and how it went: run name, method, selection rule, losses, as JSON.
pub const RUN: &str = "run.json";
