//! The crate's error: one variant per cause that a caller can act on.

use std::io;
use std::path::PathBuf;

/// Why a configuration, a checkpoint, a tokenizer or a text was refused.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A JSON file does not parse, misses a field or has a value of the wrong type.
    #[error("`{}` is not the {what} that was expected", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the file should hold.
        what: &'static str,
        /// The cause, with field, line and column.
        source: serde_json::Error,
    },
    /// A field has a value that no model or transform of this crate can have.
    #[error("`{}`: field `{field}` is `{found}`, expected {expected}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, dotted.
        field: String,
        /// What would be accepted.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// A file is not a safetensors file, or it is cut off or damaged.
    #[error("`{}` is not a whole safetensors file; fetch or write it again", path.display())]
    SafeTensors {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: safetensors::SafeTensorError,
    },
    /// Parameters of the model have no tensor in the file.
    #[error("checkpoint `{}` does not fit the model: {count} missing, first `{key}`", path.display())]
    MissingTensor {
        /// The file.
        path: PathBuf,
        /// The first missing key in alphabetical order.
        key: String,
        /// How many are missing.
        count: usize,
    },
    /// Tensors of the file belong to no parameter.
    #[error("checkpoint `{}` does not fit the model: {count} unread, first `{key}`", path.display())]
    UnreadTensor {
        /// The file.
        path: PathBuf,
        /// The first unread key in alphabetical order.
        key: String,
        /// How many are unread.
        count: usize,
    },
    /// A tensor has another shape than the parameter.
    #[error("checkpoint `{}`: `{key}` has shape {found:?}, the model expects {expected:?}", path.display())]
    Shape {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// Shape of the parameter, in the file's layout.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has an element type that cannot be loaded.
    #[error("checkpoint `{}`: `{key}` has dtype `{found}`, expected {expected}", path.display())]
    Dtype {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What would be accepted.
        expected: &'static str,
        /// Dtype in the file.
        found: String,
    },
    /// Two parameters map to one key.
    #[error("two parameters map to the key `{key}` of `{}`; the key table is ambiguous", path.display())]
    DuplicateKey {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
    },
    /// A value does not fit half precision.
    #[error("cannot save `{}` in f16: `{key}` holds {value}, beyond 65504; save in f32", path.display())]
    HalfOverflow {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// The first value that does not fit.
        value: f32,
    },
    /// The merges file does not hold pairs.
    #[error("`{}` line {line}: expected two tokens separated by one space, found `{found}`", path.display())]
    MergesLine {
        /// The file.
        path: PathBuf,
        /// Line number from 1.
        line: usize,
        /// The line.
        found: String,
    },
    /// A token that the tokenizer needs is not in the vocabulary.
    #[error("`{}` has no token `{token}`, which {needed_by}", path.display())]
    MissingToken {
        /// The vocabulary file.
        path: PathBuf,
        /// The token.
        token: String,
        /// Who needs it.
        needed_by: String,
    },
    /// Two tokens share an id.
    #[error("`{}`: token id {id} stands twice, for `{first}` and `{second}`", path.display())]
    DuplicateTokenId {
        /// The vocabulary file.
        path: PathBuf,
        /// The id.
        id: u32,
        /// One of the tokens.
        first: String,
        /// The other.
        second: String,
    },
    /// A text does not fit the context.
    #[error(
        "`{text}` has {num_tokens} tokens with start and end, the context takes {limit}; shorten it or truncate"
    )]
    TextTooLong {
        /// The text.
        text: String,
        /// Its length in tokens, start and end included.
        num_tokens: usize,
        /// The context length.
        limit: usize,
    },
    /// A context that cannot hold start and end.
    #[error("context length {0} is too short: start and end token alone take 2")]
    ContextTooShort(usize),
}
