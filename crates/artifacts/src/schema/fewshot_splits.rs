//! Kind `fewshot-splits`, schema version 1: one row is one image id of a shot list.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use pipeline_spec::ArtifactKind;

use crate::codec::{self, Columns, Fault, RowCodec};
use crate::column::{Column, ColumnType, required};
use crate::{Error, SchemaInfo};

/// One image of a shot list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FewshotRow {
    /// Identifier of the image in the `images` artifact.
    pub sample_id: String,
    /// Its label.
    pub label: u32,
    /// `train` or `val`.
    pub split: String,
    /// Training images per class of the list.
    pub shots: u32,
    /// Seed of the draw.
    pub seed: u64,
    /// Position in the order in which the images of its split were drawn, from 0.
    pub order: u32,
}

impl RowCodec for FewshotRow {
    const KIND: ArtifactKind = ArtifactKind::FewshotSplits;
    const COLUMNS: &'static [Column] = &[
        required("sample_id", ColumnType::Text, "identifier of the image in the `images` artifact"),
        required("label", ColumnType::ClassLabel, "label of the image"),
        required("split", ColumnType::Text, "`train` or `val`"),
        required("shots", ColumnType::UInt32, "training images per class of the list"),
        required("seed", ColumnType::UInt64, "seed of the draw"),
        required(
            "order",
            ColumnType::UInt32,
            "position in the order in which the images of its split were drawn, from 0",
        ),
    ];
    const SORTED_BY: &'static [&'static str] = &["split", "order"];

    fn order(a: &Self, b: &Self) -> Ordering {
        (&a.split, a.order).cmp(&(&b.split, b.order))
    }

    fn identity(&self) -> String {
        format!("{}/{}/{}", self.split, self.label, self.order)
    }

    fn class(&self) -> Option<u32> {
        (self.split == "train").then_some(self.label)
    }

    fn size_hint(&self) -> usize {
        64 + self.sample_id.len()
    }

    fn check(&self, info: &SchemaInfo) -> Result<(), Fault> {
        codec::check_filled("sample_id", &self.sample_id)?;
        codec::check_class("label", self.label, "class_name", None, info)?;
        if !["train", "val"].contains(&self.split.as_str()) {
            return Err(Fault::new("split", format!("is `{}`, expected `train` or `val`", self.split)));
        }
        Ok(())
    }

    fn encode(rows: &[Self], _numel: usize) -> Vec<ArrayRef> {
        vec![
            codec::text(rows.iter().map(|r| r.sample_id.as_str())),
            codec::labels(rows.iter().map(|r| Some(r.label))),
            codec::text(rows.iter().map(|r| r.split.as_str())),
            codec::uint32(rows.iter().map(|r| r.shots)),
            codec::uint64(rows.iter().map(|r| r.seed)),
            codec::uint32(rows.iter().map(|r| r.order)),
        ]
    }

    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, Error> {
        let mut sample_id = columns.text("sample_id")?;
        let mut label = columns.labels("label")?;
        let mut split = columns.text("split")?;
        let mut shots = columns.uint32("shots")?;
        let mut seed = columns.uint64("seed")?;
        let mut order = columns.uint32("order")?;
        Ok(columns.rows(|| Self {
            sample_id: sample_id.take(),
            label: label.take(),
            split: split.take(),
            shots: shots.take(),
            seed: seed.take(),
            order: order.take(),
        }))
    }
}
