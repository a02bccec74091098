//! The prompts of one class, each once.

use std::collections::HashSet;

use artifacts::{ModelAnswer, PromptRow};

/// Where a prompt comes from.
pub(crate) struct Origin<'a> {
    /// Template or command.
    pub(crate) template: &'a str,
    /// Provider.
    pub(crate) provider: &'a str,
    /// Language model, or nothing.
    pub(crate) model: &'a str,
    /// Its answer.
    pub(crate) answer: Option<ModelAnswer>,
}

impl Origin<'static> {
    /// Prompts that exist already.
    pub(crate) const FILE: Self = Self { template: "", provider: "file", model: "", answer: None };
}

/// Collects the prompts of one class and drops repeats.
pub(crate) struct ClassPrompts<'a> {
    class_id: u32,
    class_name: &'a str,
    seen: HashSet<String>,
    rows: Vec<PromptRow>,
    num_repeats: usize,
}

impl<'a> ClassPrompts<'a> {
    pub(crate) fn new(class_id: u32, class_name: &'a str) -> Self {
        Self { class_id, class_name, seen: HashSet::new(), rows: vec![], num_repeats: 0 }
    }

    /// Adds `prompt` unless the class has it already.
    pub(crate) fn push(&mut self, prompt: String, origin: Origin<'_>) {
        if !self.seen.insert(prompt.clone()) {
            self.num_repeats += 1;
            return;
        }
        self.rows.push(PromptRow {
            class_id: self.class_id,
            class_name: self.class_name.to_owned(),
            prompt_index: u32::try_from(self.rows.len()).unwrap_or(u32::MAX),
            prompt,
            template: origin.template.to_owned(),
            provider: origin.provider.to_owned(),
            model: origin.model.to_owned(),
            answer: origin.answer,
        });
    }

    /// The rows; says in the log how many repeats were dropped.
    pub(crate) fn into_rows(self) -> Vec<PromptRow> {
        if self.num_repeats > 0 {
            tracing::info!(class = self.class_name, repeats = self.num_repeats, "dropped repeated prompts");
        }
        self.rows
    }
}
