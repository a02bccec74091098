//! What a Parquet file says about itself: the `flier.*` keys of its metadata.

use std::collections::BTreeMap;

use pipeline_spec::Unit;

/// What all parts of an artifact have in common beside their unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileContext {
    /// Version of the stage's crate, for `artifact.json`.
    pub version: String,
    /// Further keys of the file metadata; each is written as `flier.<key>`. Must not depend on time, host or device.
    pub metadata: BTreeMap<String, String>,
}

impl FileContext {
    /// Context of a stage whose crate has version `version` (`env!("CARGO_PKG_VERSION")`).
    pub fn new(version: impl Into<String>) -> Self {
        Self { version: version.into(), metadata: BTreeMap::new() }
    }

    /// Adds `flier.<key>` to the metadata of every part, for example `backbone`.
    #[must_use]
    pub fn with(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }
}

/// What describes the columns of a part.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SchemaInfo {
    /// Name of each class, by label; needed by every kind with a label. Becomes `datasets.ClassLabel`.
    pub class_names: Vec<String>,
    /// Shape of one tensor: `[C, H, W]` of `latents`, `[D]` of `features`, `[K]` of `predictions`, empty otherwise.
    pub tensor_shape: Vec<usize>,
    /// Further keys of the file metadata; each is written as `flier.<key>`.
    pub metadata: BTreeMap<String, String>,
}

/// Key of the artifact kind.
pub(crate) const KIND: &str = "flier.kind";
/// Key of the schema version.
pub(crate) const SCHEMA: &str = "flier.schema";
/// Key of the artifact's key.
pub(crate) const KEY: &str = "flier.key";
/// Key of the inputs, a JSON object from input name to artifact.
pub(crate) const INPUTS: &str = "flier.inputs";
/// Key of the specification as JSON.
pub(crate) const SPEC: &str = "flier.spec";
/// Key of the class names, a JSON list by label.
pub(crate) const CLASS_NAMES: &str = "flier.class_names";
/// Key of the tensor shape, a JSON list.
pub(crate) const TENSOR_SHAPE: &str = "flier.tensor_shape";
/// Keys that this crate writes itself.
const RESERVED: [&str; 7] = [KIND, SCHEMA, KEY, INPUTS, SPEC, CLASS_NAMES, TENSOR_SHAPE];

/// The metadata of a part, sorted by key: the same for equal inputs. Fails with a key that must not be set by hand.
pub(crate) fn of_part(
    unit: &Unit,
    context: &FileContext,
    info: &SchemaInfo,
) -> Result<BTreeMap<String, String>, String> {
    let output = unit.output();
    let mut pairs = BTreeMap::new();
    for (key, value) in context.metadata.iter().chain(&info.metadata) {
        let key = format!("flier.{key}");
        if RESERVED.contains(&key.as_str()) {
            return Err(key);
        }
        pairs.insert(key, value.clone());
    }
    let json = |value: serde_json::Value| value.to_string();
    pairs.insert(KIND.to_owned(), output.kind.name().to_owned());
    pairs.insert(SCHEMA.to_owned(), output.kind.schema_version().to_string());
    pairs.insert(KEY.to_owned(), output.key.to_string());
    pairs.insert(INPUTS.to_owned(), json(serde_json::json!(unit.inputs)));
    pairs.insert(SPEC.to_owned(), json(serde_json::json!(unit.spec)));
    if !info.class_names.is_empty() {
        pairs.insert(CLASS_NAMES.to_owned(), json(serde_json::json!(info.class_names)));
    }
    if !info.tensor_shape.is_empty() {
        pairs.insert(TENSOR_SHAPE.to_owned(), json(serde_json::json!(info.tensor_shape)));
    }
    Ok(pairs)
}
