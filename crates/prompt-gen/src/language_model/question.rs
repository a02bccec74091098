//! What a language model is asked, one request at a time.

use pipeline_spec::Digest;
use pipeline_spec::spec::{Endpoint, LanguageModelSpec};
use serde_json::{Value, json};

/// An answer that is wanted: one of several to a command about a class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Label of the class.
    pub(crate) class_id: u32,
    /// The command, by its place in the spec.
    pub(crate) command: usize,
    /// Which of the answers to it.
    pub(crate) answer: u32,
}

/// The slots of `spec`: classes in order, commands within a class, answers within a command.
pub(crate) fn slots(spec: &LanguageModelSpec, num_classes: usize) -> Vec<Slot> {
    let mut slots = Vec::new();
    for (class_id, _) in (0_u32..).zip(0..num_classes) {
        for command in 0..spec.commands.len() {
            slots.extend((0..spec.answers_per_command).map(|answer| Slot { class_id, command, answer }));
        }
    }
    slots
}

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Question {
    /// Place of its slot.
    pub(crate) slot: usize,
    /// The command with the class name in it.
    pub(crate) text: String,
    /// Its own seed.
    pub(crate) seed: Option<u64>,
    /// Digest of all that can change the answer. The server is no part of it.
    pub(crate) digest: Digest,
}

impl Question {
    /// Try `attempt` at slot number `index`.
    pub(crate) fn new(
        spec: &LanguageModelSpec,
        class_name: &str,
        slot: Slot,
        index: usize,
        attempt: u32,
    ) -> Self {
        let text = filled(&spec.commands[slot.command], class_name);
        let seed = spec.seed.map(|seed| request_seed(seed, &text, slot.answer, attempt));
        let asked = json!({
            "endpoint": spec.endpoint,
            "model": spec.model,
            "system": spec.system,
            "text": text,
            "temperature": spec.temperature,
            "max_tokens": spec.max_tokens,
            "stop": spec.stop,
            "seed": seed,
            "answer": slot.answer,
            "attempt": attempt,
        });
        let digest = Digest::blake3(asked.to_string().as_bytes());
        Self { slot: index, text, seed, digest }
    }

    /// The body of the request. `limit_field` is the name under which the server wants the most tokens.
    pub(crate) fn body(&self, spec: &LanguageModelSpec, limit_field: &str) -> Value {
        let mut body = json!({ "model": spec.model, limit_field: spec.max_tokens });
        match spec.endpoint {
            Endpoint::Completions => body["prompt"] = json!(self.text),
            Endpoint::ChatCompletions => {
                let system = spec.system.iter().map(|text| json!({ "role": "system", "content": text }));
                let user = json!({ "role": "user", "content": self.text });
                body["messages"] = system.chain([user]).collect();
            }
        }
        if let Some(temperature) = spec.temperature {
            body["temperature"] = json!(temperature);
        }
        if let Some(seed) = self.seed {
            body["seed"] = json!(seed);
        }
        if !spec.stop.is_empty() {
            body["stop"] = json!(spec.stop);
        }
        body
    }
}

/// `template` with the class name for `{}`, and `a(n)` before it as the article that its first letter takes.
pub(crate) fn filled(template: &str, class_name: &str) -> String {
    let is_vowel = class_name.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']);
    template.replace("a(n) {}", if is_vowel { "an {}" } else { "a {}" }).replace("{}", class_name)
}

/// Seed of one request: 31 bits, which every server takes.
fn request_seed(seed: u64, text: &str, answer: u32, attempt: u32) -> u64 {
    let digest = Digest::blake3(format!("{seed}\0{text}\0{answer}\0{attempt}").as_bytes());
    u64::from_str_radix(&digest.as_str()[..8], 16).unwrap_or(seed) & 0x7fff_ffff
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::HashSet;

    use super::*;

    pub(crate) fn spec() -> LanguageModelSpec {
        LanguageModelSpec {
            model: "test-model".to_owned(),
            endpoint: Endpoint::ChatCompletions,
            commands: vec!["Describe what a(n) {} looks like".to_owned(), "A caption of {}:".to_owned()],
            system: None,
            answer_prefix: None,
            answers_per_command: 2,
            attempts: 3,
            temperature: Some(0.99),
            max_tokens: 50,
            stop: vec![".".to_owned()],
            seed: Some(1),
            max_words: 60,
        }
    }

    #[test]
    fn the_article_follows_the_first_letter() {
        assert_eq!(filled("What does a(n) {} look like?", "apple"), "What does an apple look like?");
        assert_eq!(filled("What does a(n) {} look like?", "Pug"), "What does a Pug look like?");
        assert_eq!(filled("identify {}", "apple"), "identify apple");
    }

    #[test]
    fn no_two_requests_have_the_same_digest_or_seed() {
        let (spec, classes) = (spec(), ["cat", "owl"]);
        let mut digests = HashSet::new();
        let mut seeds = HashSet::new();
        let slots = slots(&spec, classes.len());
        for (index, slot) in slots.iter().enumerate() {
            for attempt in 0..spec.attempts {
                let question = Question::new(&spec, classes[slot.class_id as usize], *slot, index, attempt);
                assert!(digests.insert(question.digest.clone()), "{question:?}");
                assert!(seeds.insert(question.seed), "{question:?}");
            }
        }
        assert_eq!(digests.len(), 2 * 2 * 2 * 3);
    }

    #[test]
    fn a_body_has_only_what_the_spec_names() {
        let mut spec = spec();
        let slot = Slot { class_id: 0, command: 0, answer: 0 };
        spec.system = Some("Be short.".to_owned());
        let body = Question::new(&spec, "owl", slot, 0, 0).body(&spec, "max_tokens");
        let messages = json!([
            { "role": "system", "content": "Be short." },
            { "role": "user", "content": "Describe what an owl looks like" },
        ]);
        assert_eq!((&body["messages"], &body["max_tokens"]), (&messages, &json!(50)));
        assert_eq!((&body["stop"], &body["temperature"]), (&json!(["."]), &json!(0.99)));
        assert!(body["seed"].is_u64() && body["prompt"].is_null());
        let bare = LanguageModelSpec {
            endpoint: Endpoint::Completions,
            system: None,
            temperature: None,
            stop: vec![],
            seed: None,
            ..spec
        };
        let body = Question::new(&bare, "owl", slot, 0, 0).body(&bare, "max_completion_tokens");
        let expected = json!({
            "model": "test-model",
            "max_completion_tokens": 50,
            "prompt": "Describe what an owl looks like",
        });
        assert_eq!(body, expected);
    }
}
