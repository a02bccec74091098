//! Why a model cannot be made or loaded.

use std::path::PathBuf;

/// An unusable configuration, file or input.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A value of a configuration is out of range or does not fit the others.
    #[error("field `{field}`: expected {expected}, found `{found}`")]
    Field {
        /// Path of the field.
        field: String,
        /// What is allowed.
        expected: String,
        /// The value.
        found: String,
    },
    /// A tensor has another shape than the model needs.
    #[error("{what}: expected shape {expected}, found {found}")]
    Shape {
        /// Which tensor.
        what: &'static str,
        /// Axis letters and sizes.
        expected: String,
        /// The shape found.
        found: String,
    },
    /// A classifier is asked for logits of something it does not read.
    #[error("method `{method}` reads {reads}, not {given}; set `source` of the predictions accordingly")]
    WrongInput {
        /// The method.
        method: &'static str,
        /// What it reads.
        reads: &'static str,
        /// What was given.
        given: &'static str,
    },
    /// A classifier is asked to meet the texts of other classes, or to give its own.
    #[error(
        "classifier `{classifier}` is not made of texts: other classes can be met by `zero-shot`, `clip-adapter` and \
         `prolip`, with the texts of a `zero-shot` run"
    )]
    NoTexts {
        /// The classifier.
        classifier: &'static str,
    },
    /// A file cannot be read or written.
    #[error("cannot access `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A JSON file does not have the form it should have.
    #[error("`{}` is not a valid {what}: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What it should be.
        what: &'static str,
        /// What the parser found, with the field.
        reason: String,
    },
    /// CLIP's part of the model, or a weight file, cannot be used.
    #[error(transparent)]
    Clip(#[from] clip_model::Error),
}

/// `Ok` if `holds`, otherwise an error that names `field`, what was expected and what was found.
pub(crate) fn expect(
    holds: bool,
    field: &str,
    expected: impl Into<String>,
    found: impl std::fmt::Display,
) -> Result<(), Error> {
    if holds {
        return Ok(());
    }
    Err(Error::Field { field: field.to_owned(), expected: expected.into(), found: found.to_string() })
}
