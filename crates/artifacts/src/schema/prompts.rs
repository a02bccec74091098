//! Kind `prompts`, schema version 1: one row is one prompt of one class.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use pipeline_spec::ArtifactKind;

use crate::codec::{self, Columns, Fault, RowCodec};
use crate::column::{Column, ColumnType, required};
use crate::{Error, SchemaInfo};

/// One prompt of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptRow {
    /// Label of the class.
    pub class_id: u32,
    /// Name of the class.
    pub class_name: String,
    /// Position among the prompts of the class, from 0.
    pub prompt_index: u32,
    /// The prompt.
    pub prompt: String,
    /// Template or question that it was made from; empty if there is none.
    pub template: String,
    /// Where it comes from, for example `templates` or `file`.
    pub provider: String,
    /// Language model that wrote it; empty if none did.
    pub model: String,
}

impl RowCodec for PromptRow {
    const KIND: ArtifactKind = ArtifactKind::Prompts;
    const COLUMNS: &'static [Column] = &[
        required("class_id", ColumnType::ClassLabel, "label of the class"),
        required("class_name", ColumnType::Text, "name of the class"),
        required("prompt_index", ColumnType::UInt32, "position among the prompts of the class, from 0"),
        required("prompt", ColumnType::Text, "the prompt, never empty"),
        required("template", ColumnType::Text, "template or question that it was made from, or empty"),
        required("provider", ColumnType::Text, "where it comes from, for example `templates` or `file`"),
        required("model", ColumnType::Text, "language model that wrote it, or empty"),
    ];
    const SORTED_BY: &'static [&'static str] = &["class_id", "prompt_index"];

    fn order(a: &Self, b: &Self) -> Ordering {
        (a.class_id, a.prompt_index).cmp(&(b.class_id, b.prompt_index))
    }

    fn identity(&self) -> String {
        format!("{}/{}", self.class_id, self.prompt_index)
    }

    fn class(&self) -> Option<u32> {
        Some(self.class_id)
    }

    fn size_hint(&self) -> usize {
        64 + self.prompt.len() + self.template.len()
    }

    fn check(&self, info: &SchemaInfo) -> Result<(), Fault> {
        codec::check_class("class_id", self.class_id, "class_name", Some(&self.class_name), info)?;
        codec::check_filled("prompt", &self.prompt)?;
        codec::check_filled("provider", &self.provider)
    }

    fn encode(rows: &[Self], _numel: usize) -> Vec<ArrayRef> {
        vec![
            codec::labels(rows.iter().map(|r| Some(r.class_id))),
            codec::text(rows.iter().map(|r| r.class_name.as_str())),
            codec::uint32(rows.iter().map(|r| r.prompt_index)),
            codec::text(rows.iter().map(|r| r.prompt.as_str())),
            codec::text(rows.iter().map(|r| r.template.as_str())),
            codec::text(rows.iter().map(|r| r.provider.as_str())),
            codec::text(rows.iter().map(|r| r.model.as_str())),
        ]
    }

    fn decode(columns: &Columns<'_>) -> Result<Vec<Self>, Error> {
        let mut class_id = columns.labels("class_id")?;
        let mut class_name = columns.text("class_name")?;
        let mut prompt_index = columns.uint32("prompt_index")?;
        let mut prompt = columns.text("prompt")?;
        let mut template = columns.text("template")?;
        let mut provider = columns.text("provider")?;
        let mut model = columns.text("model")?;
        Ok(columns.rows(|| Self {
            class_id: class_id.take(),
            class_name: class_name.take(),
            prompt_index: prompt_index.take(),
            prompt: prompt.take(),
            template: template.take(),
            provider: provider.take(),
            model: model.take(),
        }))
    }
}
