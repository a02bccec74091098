//! One file per artifact kind: its row, its columns, and what a row must satisfy.
//!
//! A new column is added at the end and is additive; a changed meaning or type raises
//! [`pipeline_spec::ArtifactKind::schema_version`], and the old golden file stays readable or is refused by name.

pub mod checkpoints;
pub mod features;
pub mod fewshot_splits;
pub mod images;
pub mod latents;
pub mod metrics;
pub mod predictions;
pub mod prompts;

pub use features::FeatureRow;
pub use fewshot_splits::FewshotRow;
pub use images::{ImageFile, ImageRow};
pub use latents::{LatentRow, false_colors, round_to_f16};
pub use metrics::MetricRow;
pub use predictions::PredictionRow;
pub use prompts::{ModelAnswer, PromptRow};

use crate::codec::RowCodec;

/// A row of one artifact kind. Implemented by the row types of this crate only.
pub trait Row: RowCodec {}

impl<R: RowCodec> Row for R {}
