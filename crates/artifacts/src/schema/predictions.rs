//! Kind `predictions`, schema version 1: one row is one evaluated image under one run.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use pipeline_spec::ArtifactKind;

use crate::codec::{self, Columns, Fault, RowCodec};
use crate::column::{Column, ColumnType, required};
use crate::{Error, SchemaInfo};

/// Logits of one evaluated image.
#[derive(Debug, Clone, PartialEq)]
pub struct PredictionRow {
    /// Identifier of the image.
    pub sample_id: String,
    /// Split of the image.
    pub split: String,
    /// Its true label.
    pub label: u32,
    /// Logits `[K]`, unnormalised.
    pub logits: Vec<f32>,
}

impl RowCodec for PredictionRow {
    const KIND: ArtifactKind = ArtifactKind::Predictions;
    const COLUMNS: &'static [Column] = &[
        required("sample_id", ColumnType::Text, "identifier of the image"),
        required("split", ColumnType::Text, "split of the image"),
        required("label", ColumnType::ClassLabel, "true label of the image"),
        required("logits", ColumnType::Tensor, "logits `[K]`, unnormalised"),
    ];
    const SORTED_BY: &'static [&'static str] = &["split", "label", "sample_id"];

    fn order(a: &Self, b: &Self) -> Ordering {
        (&a.split, a.label, &a.sample_id).cmp(&(&b.split, b.label, &b.sample_id))
    }

    fn identity(&self) -> String {
        format!("{}/{}", self.split, self.sample_id)
    }

    fn class(&self) -> Option<u32> {
        Some(self.label)
    }

    fn size_hint(&self) -> usize {
        64 + self.sample_id.len() + 4 * self.logits.len()
    }

    fn check(&self, info: &SchemaInfo) -> Result<(), Fault> {
        codec::check_filled("sample_id", &self.sample_id)?;
        codec::check_filled("split", &self.split)?;
        codec::check_class("label", self.label, "class_name", None, info)?;
        codec::check_tensor("logits", &self.logits, info)?;
        if self.logits.len() != info.class_names.len() {
            let problem = format!(
                "has {} values, expected one for each of {} classes",
                self.logits.len(),
                info.class_names.len()
            );
            return Err(Fault::new("logits", problem));
        }
        Ok(())
    }

    fn encode(rows: &[Self], numel: usize) -> Vec<ArrayRef> {
        vec![
            codec::text(rows.iter().map(|r| r.sample_id.as_str())),
            codec::text(rows.iter().map(|r| r.split.as_str())),
            codec::labels(rows.iter().map(|r| Some(r.label))),
            codec::tensor(rows.iter().map(|r| r.logits.as_slice()), numel),
        ]
    }

    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, Error> {
        let mut sample_id = columns.text("sample_id")?;
        let mut split = columns.text("split")?;
        let mut label = columns.labels("label")?;
        let mut logits = columns.tensor("logits")?;
        Ok(columns.rows(|| Self {
            sample_id: sample_id.take(),
            split: split.take(),
            label: label.take(),
            logits: logits.take(),
        }))
    }
}
