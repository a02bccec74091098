//! Kind `metrics`, schema version 1: one row is one figure of one run, in long form.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use pipeline_spec::ArtifactKind;

use crate::codec::{self, Columns, Fault, RowCodec};
use crate::column::{Column, ColumnType, optional, required};
use crate::{Error, SchemaInfo};

/// One figure of one run.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricRow {
    /// Name of the run.
    pub run: String,
    /// Name of the method.
    pub method: String,
    /// Data set.
    pub dataset: String,
    /// CLIP checkpoint.
    pub backbone: String,
    /// Shots per class; `None` for zero-shot.
    pub shots: Option<u32>,
    /// Seed of the run.
    pub seed: u64,
    /// Split that the figure is about.
    pub split: String,
    /// `raw` or `ema`: which weights were evaluated.
    pub weights: String,
    /// Rule that selected the weights, for example `last`.
    pub select: String,
    /// Name of the figure, for example `top1`.
    pub metric: String,
    /// Its value.
    pub value: f64,
    /// Number of images behind it.
    pub n: u64,
}

impl RowCodec for MetricRow {
    const KIND: ArtifactKind = ArtifactKind::Metrics;
    const COLUMNS: &'static [Column] = &[
        required("run", ColumnType::Text, "name of the run"),
        required("method", ColumnType::Text, "name of the method"),
        required("dataset", ColumnType::Text, "data set"),
        required("backbone", ColumnType::Text, "CLIP checkpoint"),
        optional("shots", ColumnType::UInt32, "shots per class; null for zero-shot"),
        required("seed", ColumnType::UInt64, "seed of the run"),
        required("split", ColumnType::Text, "split that the figure is about"),
        required("weights", ColumnType::Text, "`raw` or `ema`: which weights were evaluated"),
        required("select", ColumnType::Text, "rule that selected the weights"),
        required("metric", ColumnType::Text, "name of the figure, for example `top1`"),
        required("value", ColumnType::Float64, "its value"),
        required("n", ColumnType::UInt64, "number of images behind it"),
    ];
    const SORTED_BY: &'static [&'static str] = &["split", "metric"];

    fn order(a: &Self, b: &Self) -> Ordering {
        (&a.split, &a.metric).cmp(&(&b.split, &b.metric))
    }

    fn identity(&self) -> String {
        [&self.run, &self.split, &self.weights, &self.metric].map(String::as_str).join("/")
    }

    fn class(&self) -> Option<u32> {
        None
    }

    fn size_hint(&self) -> usize {
        256
    }

    fn check(&self, _info: &SchemaInfo) -> Result<(), Fault> {
        codec::check_filled("run", &self.run)?;
        codec::check_filled("split", &self.split)?;
        codec::check_filled("metric", &self.metric)?;
        codec::check_finite("value", self.value)
    }

    fn encode(rows: &[Self], _numel: usize) -> Vec<ArrayRef> {
        vec![
            codec::text(rows.iter().map(|r| r.run.as_str())),
            codec::text(rows.iter().map(|r| r.method.as_str())),
            codec::text(rows.iter().map(|r| r.dataset.as_str())),
            codec::text(rows.iter().map(|r| r.backbone.as_str())),
            codec::optional_uint32(rows.iter().map(|r| r.shots)),
            codec::uint64(rows.iter().map(|r| r.seed)),
            codec::text(rows.iter().map(|r| r.split.as_str())),
            codec::text(rows.iter().map(|r| r.weights.as_str())),
            codec::text(rows.iter().map(|r| r.select.as_str())),
            codec::text(rows.iter().map(|r| r.metric.as_str())),
            codec::float64(rows.iter().map(|r| r.value)),
            codec::uint64(rows.iter().map(|r| r.n)),
        ]
    }

    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, Error> {
        let mut run = columns.text("run")?;
        let mut method = columns.text("method")?;
        let mut dataset = columns.text("dataset")?;
        let mut backbone = columns.text("backbone")?;
        let mut shots = columns.optional_uint32("shots")?;
        let mut seed = columns.uint64("seed")?;
        let mut split = columns.text("split")?;
        let mut weights = columns.text("weights")?;
        let mut select = columns.text("select")?;
        let mut metric = columns.text("metric")?;
        let mut value = columns.float64("value")?;
        let mut n = columns.uint64("n")?;
        Ok(columns.rows(|| Self {
            run: run.take(),
            method: method.take(),
            dataset: dataset.take(),
            backbone: backbone.take(),
            shots: shots.take(),
            seed: seed.take(),
            split: split.take(),
            weights: weights.take(),
            select: select.take(),
            metric: metric.take(),
            value: value.take(),
            n: n.take(),
        }))
    }
}
