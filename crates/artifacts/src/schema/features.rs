//! Kind `features`, schema version 1: one row is one frozen feature of one view of one image.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use pipeline_spec::ArtifactKind;

use crate::codec::{self, Columns, Fault, RowCodec};
use crate::column::{Column, ColumnType, required};
use crate::{Error, SchemaInfo};

/// Frozen feature of one view of one image.
#[derive(Debug, Clone, PartialEq)]
pub struct FeatureRow {
    /// Identifier of the image.
    pub sample_id: String,
    /// Split of the image.
    pub split: String,
    /// Its label.
    pub label: u32,
    /// Which view of the image, from 0.
    pub view: u32,
    /// Feature `[D]` as the encoder gives it.
    pub feature: Vec<f32>,
}

impl RowCodec for FeatureRow {
    const KIND: ArtifactKind = ArtifactKind::Features;
    const COLUMNS: &'static [Column] = &[
        required("sample_id", ColumnType::Text, "identifier of the image"),
        required("split", ColumnType::Text, "split of the image"),
        required("label", ColumnType::ClassLabel, "label of the image"),
        required("view", ColumnType::UInt32, "which view of the image, from 0"),
        required("feature", ColumnType::Tensor, "feature `[D]` as the encoder gives it"),
    ];
    const SORTED_BY: &'static [&'static str] = &["label", "sample_id", "view"];

    fn order(a: &Self, b: &Self) -> Ordering {
        (a.label, &a.sample_id, a.view).cmp(&(b.label, &b.sample_id, b.view))
    }

    fn identity(&self) -> String {
        format!("{}/{}/{}", self.split, self.sample_id, self.view)
    }

    fn class(&self) -> Option<u32> {
        Some(self.label)
    }

    fn size_hint(&self) -> usize {
        64 + self.sample_id.len() + 4 * self.feature.len()
    }

    fn check(&self, info: &SchemaInfo) -> Result<(), Fault> {
        codec::check_filled("sample_id", &self.sample_id)?;
        codec::check_filled("split", &self.split)?;
        codec::check_class("label", self.label, "class_name", None, info)?;
        codec::check_tensor("feature", &self.feature, info)?;
        if self.feature.iter().all(|v| *v == 0.0) {
            return Err(Fault::new("feature", "is zero everywhere, expected the output of an encoder"));
        }
        Ok(())
    }

    fn encode(rows: &[Self], numel: usize) -> Vec<ArrayRef> {
        vec![
            codec::text(rows.iter().map(|r| r.sample_id.as_str())),
            codec::text(rows.iter().map(|r| r.split.as_str())),
            codec::labels(rows.iter().map(|r| Some(r.label))),
            codec::uint32(rows.iter().map(|r| r.view)),
            codec::tensor(rows.iter().map(|r| r.feature.as_slice()), numel),
        ]
    }

    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, Error> {
        let mut sample_id = columns.text("sample_id")?;
        let mut split = columns.text("split")?;
        let mut label = columns.labels("label")?;
        let mut view = columns.uint32("view")?;
        let mut feature = columns.tensor("feature")?;
        Ok(columns.rows(|| Self {
            sample_id: sample_id.take(),
            split: split.take(),
            label: label.take(),
            view: view.take(),
            feature: feature.take(),
        }))
    }
}
