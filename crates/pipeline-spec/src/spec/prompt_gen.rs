//! What `prompt-gen` writes.

use serde::{Deserialize, Serialize};

use super::expect;
use crate::ids::slug_of;
use crate::{DatasetId, Digest, Error, Seed};

/// Bump when the same spec would yield different prompts.
pub const CODE_VERSION: u32 = 1;

/// Prompts for every class of a data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PromptsSpec {
    /// Data set whose class names are used.
    pub dataset: DatasetId,
    /// Digest of `data-manifests/<dataset>.toml`.
    pub manifest_digest: Digest,
    /// Where the prompts come from.
    pub provider: PromptProvider,
}

/// Where prompts come from.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
pub enum PromptProvider {
    /// Each template with `{}` replaced by the class name.
    Templates {
        /// Templates, each with one `{}`.
        templates: Vec<String>,
    },
    /// Prompts that exist: a JSON file as CuPL, CaFo and APE publish them (an object from class name to a list of
    /// prompts), or a folder with a text file for each class, one prompt a line.
    File {
        /// Name for people, for example `cupl`.
        name: String,
        /// Path, relative to the folder where the tool runs.
        path: String,
        /// [`crate::prompts_digest`] of the file or folder.
        digest: Digest,
    },
    /// Answers of a language model behind an OpenAI-compatible server. Which server that is, is no part of the spec.
    Openai(LanguageModelSpec),
}

/// What a language model is asked about each class.
///
/// A model does not answer twice alike, so the key names what was asked and not what came back: prompts are made once
/// and kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LanguageModelSpec {
    /// Name by which the server knows the model.
    pub model: String,
    /// How it is asked.
    pub endpoint: Endpoint,
    /// Questions, each with one `{}` for the class name. `a(n) {}` becomes `an` before a vowel letter and else `a`.
    pub commands: Vec<String>,
    /// System message; `chat-completions` only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// What stands before every answer, with one `{}` for the class name: CaFo puts the data set's template there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answer_prefix: Option<String>,
    /// Answers to each command, each a request of its own.
    pub answers_per_command: u32,
    /// Times that a question is asked at most until its answer can be used: it is not empty, no refusal, and its prompt
    /// has at most `max_words`.
    pub attempts: u32,
    /// Sampling temperature. Absent: not sent, for models that take none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// Most tokens of an answer.
    pub max_tokens: u32,
    /// Texts that end an answer. Where `.` is one of them, it is put back, as in CuPL.
    pub stop: Vec<String>,
    /// Seed, from which each request has its own. Absent: not sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed: Option<Seed>,
    /// Most words of a prompt, counted as CLIP's tokenizer splits a text before it merges: a run of letters, a digit, a
    /// run of other marks. Each takes at least one token, so that more than 75 never fit into CLIP's 77. Whether fewer
    /// fit depends on the vocabulary; the stages that read the prompts count exactly.
    pub max_words: u32,
}

/// How a language model is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Endpoint {
    /// `/chat/completions`: the command is the user's message.
    ChatCompletions,
    /// `/completions`: the model continues the command.
    Completions,
}

impl PromptsSpec {
    pub(super) fn slug(&self) -> String {
        match &self.provider {
            PromptProvider::Templates { templates } => format!("templates-{}", templates.len()),
            PromptProvider::File { name, .. } => format!("file-{name}"),
            PromptProvider::Openai(spec) => format!("openai-{}", slug_of(&spec.model)),
        }
    }

    pub(super) fn check(&self) -> Result<(), Error> {
        match &self.provider {
            PromptProvider::Templates { templates } => templates_with_a_hole("provider.templates", templates),
            PromptProvider::File { .. } => Ok(()),
            PromptProvider::Openai(spec) => spec.check(),
        }
    }
}

impl LanguageModelSpec {
    fn check(&self) -> Result<(), Error> {
        let model = self.model.trim();
        expect(!model.is_empty() && model == self.model, "provider.model", "a name", &self.model)?;
        templates_with_a_hole("provider.commands", &self.commands)?;
        for (index, command) in self.commands.iter().enumerate() {
            let is_new = !self.commands[..index].contains(command);
            expect(is_new, "provider.commands", "each command once", command)?;
        }
        if let Some(prefix) = &self.answer_prefix {
            templates_with_a_hole("provider.answer_prefix", std::slice::from_ref(prefix))?;
        }
        let system = self.system.as_deref().unwrap_or("none");
        let may_have_system = self.system.is_none() || self.endpoint == Endpoint::ChatCompletions;
        expect(may_have_system, "provider.system", "none with the endpoint `completions`", system)?;
        let within = |field: &str, value: u32, most: u32| {
            expect((1..=most).contains(&value), &format!("provider.{field}"), &format!("1 to {most}"), value)
        };
        within("answers_per_command", self.answers_per_command, 10_000)?;
        within("attempts", self.attempts, 100)?;
        within("max_tokens", self.max_tokens, 4096)?;
        within("max_words", self.max_words, 75)?;
        let temperature = self.temperature.unwrap_or(1.0);
        expect((0.0..=2.0).contains(&temperature), "provider.temperature", "0 to 2", temperature)?;
        expect(self.stop.len() <= 4, "provider.stop", "at most 4 texts", self.stop.len())?;
        let are_filled = self.stop.iter().all(|stop| !stop.is_empty());
        expect(are_filled, "provider.stop", "texts that are not empty", self.stop.join("`, `"))
    }
}

/// At least one template, each with one `{}`.
fn templates_with_a_hole(field: &str, templates: &[String]) -> Result<(), Error> {
    expect(!templates.is_empty(), field, "at least one", "[]")?;
    templates.iter().try_for_each(|template| {
        let holes = template.matches("{}").count();
        expect(holes == 1, field, "exactly one `{}` in each", template)
    })
}
