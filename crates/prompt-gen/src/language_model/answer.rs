//! What a language model answered, and whether it is a prompt.

use std::fmt;

use pipeline_spec::spec::LanguageModelSpec;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::question::filled;
use super::secrets::{REDACTED, Secrets};
use super::words::num_words;

/// Beginnings by which a model says that it will not answer.
const REFUSALS: [&str; 14] = [
    "i'm sorry",
    "i am sorry",
    "sorry, ",
    "i cannot ",
    "i can't ",
    "i can not ",
    "i'm unable",
    "i am unable",
    "i'm not able",
    "i am not able",
    "as an ai",
    "i'm an ai",
    "i am an ai",
    "unfortunately, i ",
];

/// An answer as the server gave it, without secrets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Answer {
    /// The text, as it came.
    pub(crate) text: String,
    /// Whether the model said by other means than the text that it will not answer.
    pub(crate) refused: bool,
    /// Name of the model.
    pub(crate) model: String,
    /// The server's name for the answer.
    pub(crate) response_id: Option<String>,
    /// Why it ended.
    pub(crate) finish_reason: Option<String>,
    /// When it was made, in seconds since 1970.
    pub(crate) created: Option<u64>,
    /// Which configuration of the server made it.
    pub(crate) system_fingerprint: Option<String>,
    /// Tokens of the question.
    pub(crate) prompt_tokens: Option<u64>,
    /// Tokens of the answer.
    pub(crate) completion_tokens: Option<u64>,
}

/// Why an answer is no prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Unusable {
    /// It has no letter and no digit.
    Empty,
    /// The model will not answer, or a filter held the answer back.
    Refusal,
    /// It has more words than the spec allows.
    TooLong,
    /// It holds the key.
    Secret,
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "empty",
            Self::Refusal => "refusal",
            Self::TooLong => "too long",
            Self::Secret => "holds a secret",
        })
    }
}

impl Answer {
    /// The answer in the body of a response; the error says what was found instead.
    pub(crate) fn parse(body: &[u8], model: &str, secrets: &Secrets) -> Result<Self, String> {
        let reply: Reply = serde_json::from_slice(body).map_err(|e| {
            format!("expected the JSON of an answer, found `{}` ({e})", excerpt(body, secrets))
        })?;
        let Some(choice) = reply.choices.into_iter().flatten().next() else {
            return Err(format!("expected one of `choices`, found `{}`", excerpt(body, secrets)));
        };
        let (text, refusal) = match choice {
            Choice { message: Some(message), .. } => (message.content, message.refusal),
            Choice { text, .. } => (text, None),
        };
        let clean = |text: String| secrets.redact(&text);
        let number = |value: Option<Value>| value.and_then(|v| v.as_u64().or(v.as_f64().map(|f| f as u64)));
        let usage = reply.usage.unwrap_or_default();
        let finish_reason = choice.finish_reason.map(clean);
        Ok(Self {
            text: clean(text.unwrap_or_default()),
            refused: refusal.is_some() || finish_reason.as_deref() == Some("content_filter"),
            model: clean(reply.model.unwrap_or_else(|| model.to_owned())),
            response_id: reply.id.map(clean),
            finish_reason,
            created: number(reply.created),
            system_fingerprint: reply.system_fingerprint.map(clean),
            prompt_tokens: number(usage.prompt_tokens),
            completion_tokens: number(usage.completion_tokens),
        })
    }

    /// What a server says by an error that means no more than that a filter held the answer back.
    pub(crate) fn filtered(model: &str) -> Self {
        Self {
            text: String::new(),
            refused: true,
            model: model.to_owned(),
            response_id: None,
            finish_reason: Some("content_filter".to_owned()),
            created: None,
            system_fingerprint: None,
            prompt_tokens: None,
            completion_tokens: None,
        }
    }

    /// The prompt that the answer makes for a class.
    pub(crate) fn prompt(&self, spec: &LanguageModelSpec, class_name: &str) -> Result<String, Unusable> {
        if self.text.contains(REDACTED) {
            return Err(Unusable::Secret);
        }
        let mut text = self.text.split_whitespace().collect::<Vec<_>>().join(" ");
        if let Some(inner) = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')) {
            text = inner.trim().to_owned();
        }
        let start = text.to_lowercase().replace('’', "'");
        if self.refused || REFUSALS.iter().any(|refusal| start.starts_with(refusal)) {
            return Err(Unusable::Refusal);
        }
        if !text.chars().any(char::is_alphanumeric) {
            return Err(Unusable::Empty);
        }
        // The server keeps the stop text to itself, and a prompt is a sentence.
        let is_cut = self.finish_reason.as_deref() == Some("length");
        if spec.stop.iter().any(|stop| stop == ".") && !is_cut && !text.ends_with(['.', '!', '?']) {
            text.push('.');
        }
        if let Some(prefix) = &spec.answer_prefix {
            text = format!("{} {text}", filled(prefix, class_name).trim_end());
        }
        if num_words(&text) > spec.max_words as usize { Err(Unusable::TooLong) } else { Ok(text) }
    }
}

/// The first bytes of a body, for people.
pub(crate) fn excerpt(body: &[u8], secrets: &Secrets) -> String {
    // Redacted before it is cut: a cut secret is not found any more.
    let head = secrets.redact(&String::from_utf8_lossy(body));
    let line = head.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.char_indices().nth(200) {
        Some((end, _)) => format!("{}...", &line[..end]),
        None => line,
    }
}

#[derive(Deserialize)]
struct Reply {
    id: Option<String>,
    model: Option<String>,
    created: Option<Value>,
    system_fingerprint: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Option<Message>,
    text: Option<String>,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
    refusal: Option<String>,
}

#[derive(Deserialize, Default)]
struct Usage {
    prompt_tokens: Option<Value>,
    completion_tokens: Option<Value>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::language_model::question::tests::spec;

    fn answer(text: &str) -> Answer {
        Answer {
            text: text.to_owned(),
            refused: false,
            finish_reason: Some("stop".to_owned()),
            ..Answer::filtered("m")
        }
    }

    #[test]
    fn both_endpoints_are_read() {
        let chat = br#"{"id":"c-1","model":"m-2","created":17,"choices":[{"index":0,"finish_reason":"stop",
            "message":{"role":"assistant","content":" A cat","refusal":null}}],
            "usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11}}"#;
        let found = Answer::parse(chat, "m", &Secrets::default()).unwrap();
        assert_eq!((found.text.as_str(), found.model.as_str(), found.created), (" A cat", "m-2", Some(17)));
        assert_eq!((found.prompt_tokens, found.completion_tokens, found.refused), (Some(9), Some(2), false));
        let completion = br#"{"choices":[{"text":"A dog","finish_reason":"length"}],"created":1.7e9}"#;
        let found = Answer::parse(completion, "m", &Secrets::default()).unwrap();
        assert_eq!((found.text.as_str(), found.model.as_str()), ("A dog", "m"));
        assert_eq!((found.created, found.finish_reason.as_deref()), (Some(1_700_000_000), Some("length")));
    }

    #[test]
    fn what_is_no_answer_is_quoted() {
        for (body, expected) in [
            ("<html>busy</html>", "expected the JSON of an answer, found `<html>busy</html>`"),
            (r#"{"choices":[]}"#, r#"expected one of `choices`, found `{"choices":[]}`"#),
            (r#"{"error":{"message":"down"}}"#, "expected one of `choices`"),
            (r#"{"choices":[{"message":{"content":7}}]}"#, "invalid type: integer `7`"),
        ] {
            let message = Answer::parse(body.as_bytes(), "m", &Secrets::default()).unwrap_err();
            assert!(message.contains(expected), "`{expected}` is not in: {message}");
        }
    }

    #[test]
    fn refusals_and_empty_answers_are_no_prompts() {
        for (text, expected) in [
            ("", Unusable::Empty),
            (" \n.\" ", Unusable::Empty),
            ("I'm sorry, but I can't help with that.", Unusable::Refusal),
            ("As an AI language model, I cannot see.", Unusable::Refusal),
            ("I’m unable to do so", Unusable::Refusal),
            (&"long ".repeat(61), Unusable::TooLong),
            ("my key is [redacted]", Unusable::Secret),
        ] {
            assert_eq!(answer(text).prompt(&spec(), "cat"), Err(expected), "{text}");
        }
        assert_eq!(Answer::filtered("m").prompt(&spec(), "cat"), Err(Unusable::Refusal));
    }

    #[test]
    fn a_prompt_is_one_line_with_its_full_stop_and_prefix() {
        let mut spec = spec();
        assert_eq!(answer("\n\nA cat\nsits").prompt(&spec, "cat").unwrap(), "A cat sits.");
        assert_eq!(answer("\"A cat!\"").prompt(&spec, "cat").unwrap(), "A cat!");
        let cut = Answer { finish_reason: Some("length".to_owned()), ..answer("A cat that") };
        assert_eq!(cut.prompt(&spec, "cat").unwrap(), "A cat that");
        spec.answer_prefix = Some("a photo of a {}.".to_owned());
        assert_eq!(answer("it sits").prompt(&spec, "cat").unwrap(), "a photo of a cat. it sits.");
        spec.stop.clear();
        assert_eq!(answer("it sits").prompt(&spec, "cat").unwrap(), "a photo of a cat. it sits");
    }
}
