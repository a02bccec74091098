//! Kind `images`, schema version 1: one row is one real image of a data set.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use pipeline_spec::ArtifactKind;

use crate::codec::{self, Columns, Fault, RowCodec};
use crate::column::{Column, ColumnType, optional, required};
use crate::{Error, SchemaInfo};

/// An encoded image with its file name, as `datasets.Image` keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ImageFile {
    /// The encoded file (PNG or JPEG).
    pub bytes: Vec<u8>,
    /// Its name; says the format and is never opened.
    pub path: String,
}

/// One real image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageRow {
    /// Identifier, unique in the artifact.
    pub sample_id: String,
    /// Split, for example `train`, `val`, `test`, `shift`, `base`.
    pub split: String,
    /// Label; `None` only for unlabelled images of a base split.
    pub label: Option<u32>,
    /// Name of the class; `None` exactly where the label is.
    pub class_name: Option<String>,
    /// Description of the image, where the source has one.
    pub caption: Option<String>,
    /// Who made it or where it comes from, for example the artist.
    pub source: String,
    /// The image.
    pub image: ImageFile,
}

impl RowCodec for ImageRow {
    const KIND: ArtifactKind = ArtifactKind::Images;
    const COLUMNS: &'static [Column] = &[
        required("sample_id", ColumnType::Text, "identifier, unique in the artifact"),
        required("split", ColumnType::Text, "split, for example `train`, `val`, `test`, `shift`, `base`"),
        optional("label", ColumnType::ClassLabel, "label; null only for unlabelled images of a base split"),
        optional("class_name", ColumnType::Text, "name of the class; null exactly where the label is"),
        optional("caption", ColumnType::Text, "description of the image, null where the source has none"),
        required("source", ColumnType::Text, "who made it or where it comes from, for example the artist"),
        required("image", ColumnType::Image, "the image file (PNG or JPEG)"),
    ];
    const SORTED_BY: &'static [&'static str] = &["label", "sample_id"];

    fn order(a: &Self, b: &Self) -> Ordering {
        (a.label, &a.sample_id).cmp(&(b.label, &b.sample_id))
    }

    fn identity(&self) -> String {
        self.sample_id.clone()
    }

    fn class(&self) -> Option<u32> {
        self.label
    }

    fn size_hint(&self) -> usize {
        128 + self.image.bytes.len()
    }

    fn check(&self, info: &SchemaInfo) -> Result<(), Fault> {
        codec::check_filled("sample_id", &self.sample_id)?;
        codec::check_filled("split", &self.split)?;
        match (self.label, &self.class_name) {
            (Some(label), Some(name)) => codec::check_class("label", label, "class_name", Some(name), info)?,
            (None, None) => {}
            (Some(_), None) => {
                return Err(Fault::new("class_name", "is null, expected the name of the label's class"));
            }
            (None, Some(name)) => {
                return Err(Fault::new(
                    "class_name",
                    format!("is `{name}`, expected null because the label is null"),
                ));
            }
        }
        codec::check_image("image", &self.image.bytes, &self.image.path)
    }

    fn encode(rows: &[Self], _numel: usize) -> Vec<ArrayRef> {
        vec![
            codec::text(rows.iter().map(|r| r.sample_id.as_str())),
            codec::text(rows.iter().map(|r| r.split.as_str())),
            codec::labels(rows.iter().map(|r| r.label)),
            codec::optional_text(rows.iter().map(|r| r.class_name.as_deref())),
            codec::optional_text(rows.iter().map(|r| r.caption.as_deref())),
            codec::text(rows.iter().map(|r| r.source.as_str())),
            codec::image(rows.iter().map(|r| (r.image.bytes.as_slice(), r.image.path.as_str()))),
        ]
    }

    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, Error> {
        let mut sample_id = columns.text("sample_id")?;
        let mut split = columns.text("split")?;
        let mut label = columns.optional_labels("label")?;
        let mut class_name = columns.optional_text("class_name")?;
        let mut caption = columns.optional_text("caption")?;
        let mut source = columns.text("source")?;
        let mut image = columns.image("image")?;
        Ok(columns.rows(|| Self {
            sample_id: sample_id.take(),
            split: split.take(),
            label: label.take(),
            class_name: class_name.take(),
            caption: caption.take(),
            source: source.take(),
            image: image.take(),
        }))
    }
}
