//! The texts that stand for each class in the text classifier.

use artifacts::{ArtifactReader, PromptRow};
use burn::tensor::{Device, Int, Tensor, TensorData};
use pipeline_spec::spec;

use crate::Error;

/// Texts of one class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassTexts {
    /// The class.
    pub class_name: String,
    /// Its texts; at least one.
    pub texts: Vec<String>,
    /// Whether a text beyond the context is cut; otherwise it is an error.
    pub truncate: bool,
}

/// Token ids on the host, `[K, T]`, cut behind the last end token: a text tower is causal, so what comes after changes
/// nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIds {
    ids: Vec<i64>,
    /// K and T.
    pub shape: [usize; 2],
}

impl TokenIds {
    /// From rows of equal length, padded with `pad`, which may be the end token itself.
    pub fn new(rows: &[Vec<i64>], pad: i64) -> Self {
        let end = |row: &Vec<i64>| {
            let last = row.iter().rposition(|id| *id != pad).map_or(0, |at| at + 1);
            (last + 1).min(row.len())
        };
        let longest = rows.iter().map(end).max().unwrap_or(0);
        let ids = rows.iter().flat_map(|row| &row[..longest]).copied().collect();
        Self { ids, shape: [rows.len(), longest] }
    }

    /// The same on a device.
    pub fn tensor(&self, device: &Device) -> Tensor<2, Int> {
        Tensor::from_data(TensorData::new(self.ids.clone(), self.shape), device)
    }
}

/// Texts of every class by `spec`; `prompts` is opened where the spec wants prompts.
///
/// # Errors
///
/// Fails if the prompts cannot be read or name other classes than `class_names`.
pub fn class_texts(
    spec: &spec::ClassTexts,
    class_names: &[String],
    prompts: impl FnOnce() -> Result<ArtifactReader, Error>,
) -> Result<Vec<ClassTexts>, Error> {
    let (by_class, truncate): (Vec<Vec<String>>, bool) = match spec {
        spec::ClassTexts::Templates { templates } => {
            let of = |name: &String| templates.iter().map(|template| template.replace("{}", name)).collect();
            (class_names.iter().map(of).collect(), false)
        }
        &spec::ClassTexts::Prompts { truncate } => (read_prompts(&prompts()?, class_names)?, truncate),
    };
    let texts = class_names.iter().zip(by_class);
    Ok(texts.map(|(name, texts)| ClassTexts { class_name: name.clone(), texts, truncate }).collect())
}

fn read_prompts(reader: &ArtifactReader, class_names: &[String]) -> Result<Vec<Vec<String>>, Error> {
    let found = reader.class_names()?;
    if found != class_names {
        return Err(Error::Mismatch {
            artifact: Box::new(reader.record().id.clone()),
            what: "class names".to_owned(),
            expected: class_names.join(", "),
            found: found.join(", "),
        });
    }
    let mut by_class = vec![Vec::new(); class_names.len()];
    for row in reader.rows::<PromptRow>()? {
        // The reader has checked the label against the class names.
        if let Some(texts) = by_class.get_mut(row.class_id as usize) {
            texts.push(row.prompt);
        }
    }
    Ok(by_class)
}
