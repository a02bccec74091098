//! What nobody may read in a log, an error or an artifact: the key, and what may be one in the URL.

use std::convert::Infallible;
use std::fmt;
use std::str::FromStr;

use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// What stands in place of a secret.
pub(crate) const REDACTED: &str = "[redacted]";
/// Shorter texts are placeholders, such as `EMPTY` or `ollama`, that local servers are given. They are not searched
/// for: they may stand in ordinary text.
const MIN_LENGTH: usize = 8;

/// A key. Its text is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKey(String);

impl ApiKey {
    /// The text, for the one header that needs it.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl FromStr for ApiKey {
    type Err = Infallible;

    /// Blanks and line breaks around a key come from the file that it was read from.
    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.trim().to_owned()))
    }
}

impl fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

/// Every form in which a server could send a secret back.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Vec<String>);

impl Secrets {
    /// Hides `secret` from now on: as it is, percent-encoded and percent-decoded.
    pub(crate) fn add(&mut self, secret: &str) {
        let decoded = percent_decode_str(secret).decode_utf8_lossy().into_owned();
        let encoded = utf8_percent_encode(&decoded, NON_ALPHANUMERIC).to_string();
        let forms = [secret.to_owned(), decoded, encoded.to_lowercase(), encoded];
        self.0.extend(forms.into_iter().filter(|form| form.chars().count() >= MIN_LENGTH));
        // A secret within another must not break the longer one apart.
        self.0.sort_by_key(|form| std::cmp::Reverse(form.len()));
        self.0.dedup();
    }

    /// `text` without the secrets.
    pub(crate) fn redact(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.0 {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), REDACTED);
            }
        }
        text
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_hidden_in_every_form() {
        let mut secrets = Secrets::default();
        secrets.add("s3cret/Key+7");
        secrets.add("s3cret/K");
        for text in ["a s3cret/Key+7 b", "a s3cret%2FKey%2B7 b", "a s3cret%2fkey%2b7 b"] {
            assert_eq!(secrets.redact(text), "a [redacted] b");
        }
        assert_eq!(secrets.redact("nothing here"), "nothing here");
    }

    #[test]
    fn a_placeholder_is_no_secret() {
        let mut secrets = Secrets::default();
        secrets.add("ollama");
        assert_eq!(secrets.redact("an ollama"), "an ollama");
    }

    #[test]
    fn a_key_shows_nothing_and_loses_its_line_break() {
        let key: ApiKey = "sk-12345678\n".parse().unwrap();
        assert_eq!(format!("{key:?}"), "[redacted]");
        assert_eq!(key.reveal(), "sk-12345678");
    }
}
