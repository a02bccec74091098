//! The crate's error: one variant per cause that a caller can act on.

use std::io;
use std::path::PathBuf;

use crate::config::Activation;
use crate::weights::{ArchiveError, PickleError};

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
    /// A folder without a tokenizer.
    #[error("`{}` holds no tokenizer; put {expected} there", path.display())]
    NoTokenizer {
        /// The folder.
        path: PathBuf,
        /// The files that would be read.
        expected: String,
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
    /// An image file of a format that is not read.
    #[error("`{}` is neither PNG nor JPEG: it begins with `{found}`", path.display())]
    ImageFormat {
        /// The file.
        path: PathBuf,
        /// Its first bytes in hexadecimal.
        found: String,
    },
    /// An image file is damaged, cut off or of an unusual kind.
    #[error("cannot decode `{}` as {format}: {reason}", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// The format that its first bytes announce.
        format: &'static str,
        /// The cause.
        reason: String,
    },
    /// An image would take too much memory.
    #[error("`{}` has {width} x {height} pixels, expected at most {limit}; make it smaller", path.display())]
    ImageTooLarge {
        /// The file.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// The largest number of pixels.
        limit: u64,
    },
    /// A header announces more pixels than the file can hold.
    #[error("the header of `{}` says {width} x {height} pixels, which {bytes} bytes cannot hold; the file is cut off or forged", path.display())]
    ImageTooShort {
        /// The file.
        path: PathBuf,
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
        /// Length of the file.
        bytes: usize,
    },
    /// A torch file is not the zip file that torch writes, or it is damaged.
    #[error("`{}` is not a whole torch file; fetch or write it again", path.display())]
    Archive {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: ArchiveError,
    },
    /// A torch file holds more than tensors, or its description of them is damaged.
    #[error("the pickle in `{}` was refused", path.display())]
    Pickle {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: PickleError,
    },
    /// A torch file describes a tensor that its bytes cannot hold, or a value that contradicts the others.
    #[error("`{}`: the {field} of `{key}` is {found}, expected {expected}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        key: String,
        /// What is wrong with it.
        field: &'static str,
        /// What would be accepted.
        expected: String,
        /// What stands there.
        found: String,
    },
    /// An index names a file that does not lie beside it by that name.
    #[error("`{}` names the file `{name}`, expected {expected}", path.display())]
    ShardName {
        /// The index.
        path: PathBuf,
        /// The name.
        name: String,
        /// What would be accepted.
        expected: &'static str,
    },
    /// An index and its files do not agree where a tensor is.
    #[error("`{}`: the tensor `{key}` is {found}, expected {expected}; fetch index and files again", path.display())]
    ShardTensor {
        /// The index.
        path: PathBuf,
        /// The tensor.
        key: String,
        /// Where it should be.
        expected: String,
        /// Where it is.
        found: String,
    },
    /// Tensors share bytes until they are far larger than the file.
    #[error("the tensors of `{}` claim more than twice its {len} bytes; fetch or write it again", path.display())]
    OverlappingTensors {
        /// The file.
        path: PathBuf,
        /// Its length in bytes.
        len: u64,
    },
    /// The keys are those of no layout in which CLIP is published.
    #[error(
        "`{}` is no CLIP checkpoint: it has neither `text_model.*` (transformers) nor `transformer.resblocks.*` (OpenAI, \
         open_clip) tensors, its {count} keys begin with {first:?}", path.display()
    )]
    UnknownLayout {
        /// The file.
        path: PathBuf,
        /// Number of keys.
        count: usize,
        /// The first keys in alphabetical order.
        first: Vec<String>,
    },
    /// A state dict does not tell whether the model was trained with GELU or QuickGELU.
    #[error(
        "`{}` does not tell its activation; put the model's `open_clip_config.json` beside it, or name the activation: \
         `quick_gelu` for OpenAI's weights and open_clip's `-quickgelu` models, else `gelu`", path.display()
    )]
    UnknownActivation {
        /// The file.
        path: PathBuf,
    },
    /// The caller names another activation than the checkpoint.
    #[error(
        "`{}` was trained with {found}, not with {given}; leave the activation out", path.display()
    )]
    ActivationConflict {
        /// The file.
        path: PathBuf,
        /// The caller's.
        given: Activation,
        /// The checkpoint's.
        found: Activation,
    },
    /// A folder holds no weight file.
    #[error("folder `{}` holds no weights; put one of these there: {}", path.display(), names.join(", "))]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// File names that would be read.
        names: Vec<String>,
    },
    /// A folder holds the original files of several models.
    #[error("folder `{}` holds the weights of several models: {}; name the file", path.display(), names.join(", "))]
    SeveralWeights {
        /// The folder.
        path: PathBuf,
        /// The files.
        names: Vec<String>,
    },
    /// No published model of this name.
    #[error("unknown {what} `{name}`; known: {}", known.join(", "))]
    UnknownName {
        /// What was named.
        what: &'static str,
        /// The name.
        name: String,
        /// The known names.
        known: Vec<String>,
    },
    /// A published model lies neither in the Hugging Face cache nor where OpenAI's code keeps it.
    #[error("the weights of `{model}` are not on this machine; {}", remedies.join(", or "))]
    NotFound {
        /// Backbone and tag.
        model: String,
        /// What to put where.
        remedies: Vec<String>,
    },
    /// A file has other bytes than the one that was published.
    #[error("`{}` has sha256 {found}, published as {expected}; fetch it again", path.display())]
    Digest {
        /// The file.
        path: PathBuf,
        /// The published digest, or its first digits.
        expected: String,
        /// The file's digest.
        found: String,
    },
}
