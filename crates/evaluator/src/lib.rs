//! The `evaluator` stage: trained runs in, predictions, figures and a report out.
//!
//! [`predictions`] keeps the logits of every evaluated image, [`metrics`] boils them down, [`mod@report`] shows the figures
//! of a whole plan. Only the splits of the spec are read; nothing here chooses weights or settings.

pub mod accuracy;
pub mod answers;
pub mod calibration;
pub mod compare;
mod error;
pub mod metrics;
pub mod predictions;
pub mod report;
pub mod statistics;

pub use error::Error;
