//! Kind `prompts`, schema version 1: one row is one prompt of one class.

use std::cmp::Ordering;

use arrow::array::ArrayRef;
use pipeline_spec::ArtifactKind;

use crate::codec::{self, Columns, Fault, RowCodec};
use crate::column::{Column, ColumnType, required, sparse};
use crate::{Error, SchemaInfo};

/// Where a prompt comes from that a language model wrote; each field as the server gave it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelAnswer {
    /// Seed that was sent.
    pub seed: Option<u64>,
    /// Why the answer ended: `stop`, or `length` if it was cut.
    pub finish_reason: Option<String>,
    /// The server's name for the answer.
    pub response_id: Option<String>,
    /// When it was made, in seconds since 1970.
    pub created: Option<u64>,
}

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
    /// Language model that wrote it, by the name that the server gave; empty if none did.
    pub model: String,
    /// The answer that it is, if a language model wrote it.
    pub answer: Option<ModelAnswer>,
}

impl RowCodec for PromptRow {
    const KIND: ArtifactKind = ArtifactKind::Prompts;
    const COLUMNS: &'static [Column] = &[
        required("class_id", ColumnType::ClassLabel, "label of the class"),
        required("class_name", ColumnType::Text, "name of the class"),
        required("prompt_index", ColumnType::UInt32, "position among the prompts of the class, from 0"),
        required("prompt", ColumnType::Text, "the prompt, never empty"),
        required("template", ColumnType::Text, "template or question that it was made from, or empty"),
        required("provider", ColumnType::Text, "where it comes from: `templates`, `file` or `openai`"),
        required("model", ColumnType::Text, "language model that wrote it, as the server names it, or empty"),
        sparse("seed", ColumnType::UInt64, "seed that the language model was given"),
        sparse("finish_reason", ColumnType::Text, "why its answer ended: `stop`, or `length` if it was cut"),
        sparse("response_id", ColumnType::Text, "the server's name for the answer"),
        sparse("created", ColumnType::UInt64, "when the server made the answer, in seconds since 1970"),
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

    fn fills(&self, name: &str) -> bool {
        let Some(answer) = &self.answer else { return false };
        match name {
            "seed" => answer.seed.is_some(),
            "finish_reason" => answer.finish_reason.is_some(),
            "response_id" => answer.response_id.is_some(),
            "created" => answer.created.is_some(),
            _ => false,
        }
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
            codec::optional_uint64(rows.iter().map(|r| r.answer.as_ref()?.seed)),
            codec::optional_text(rows.iter().map(|r| r.answer.as_ref()?.finish_reason.as_deref())),
            codec::optional_text(rows.iter().map(|r| r.answer.as_ref()?.response_id.as_deref())),
            codec::optional_uint64(rows.iter().map(|r| r.answer.as_ref()?.created)),
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
        let mut seed = columns.sparse_uint64("seed")?;
        let mut finish_reason = columns.sparse_text("finish_reason")?;
        let mut response_id = columns.sparse_text("response_id")?;
        let mut created = columns.sparse_uint64("created")?;
        let mut answer = move || {
            let answer = ModelAnswer {
                seed: seed.take(),
                finish_reason: finish_reason.take(),
                response_id: response_id.take(),
                created: created.take(),
            };
            (answer != ModelAnswer::default()).then_some(answer)
        };
        Ok(columns.rows(|| Self {
            class_id: class_id.take(),
            class_name: class_name.take(),
            prompt_index: prompt_index.take(),
            prompt: prompt.take(),
            template: template.take(),
            provider: provider.take(),
            model: model.take(),
            answer: answer(),
        }))
    }
}
