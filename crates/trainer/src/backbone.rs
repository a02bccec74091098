//! The CLIP checkpoint of a run, checked against the digest in its spec.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use clip_model::{Clip, ClipConfig, Preprocess, Tokenizer, normalize};
use pipeline_spec::{CheckpointRef, checkpoint_digest};

use crate::Error;

/// Texts that go through the text tower together.
const TEXT_BATCH: usize = 256;

/// An opened checkpoint.
#[derive(Debug)]
pub struct Backbone {
    folder: PathBuf,
    /// Its shape.
    pub config: ClipConfig,
    /// The model, for inference.
    pub clip: Clip,
    /// How images are prepared.
    pub preprocess: Preprocess,
}

impl Backbone {
    /// Opens `weights/<id>` on `device`.
    ///
    /// # Errors
    ///
    /// Fails if the folder's digest is not the one pinned, or a file of it cannot be used.
    pub fn open(checkpoint: &CheckpointRef, weights: &Path, device: &Device) -> Result<Self, Error> {
        let folder = weights.join(&checkpoint.id);
        let found = checkpoint_digest(&folder)?;
        if found != checkpoint.digest {
            return Err(Error::Checkpoint { path: folder, expected: checkpoint.digest.clone(), found });
        }
        let config = ClipConfig::from_file(&folder.join("config.json"))?;
        let clip = burn::module::Module::valid(&Clip::from_folder(&folder, device)?);
        let preprocess = Preprocess::from_folder(&folder)?;
        Ok(Self { folder, config, clip, preprocess })
    }

    /// Factor on cosine similarities: the exponential of the checkpoint's `logit_scale`.
    ///
    /// # Errors
    ///
    /// Fails if the tensor cannot be read back.
    pub fn logit_scale(&self) -> Result<f64, Error> {
        let values = to_vec(self.clip.logit_scale.val())?;
        Ok(values.iter().map(|v| f64::from(*v).exp()).sum())
    }

    /// The text classifier `[N, P]`: for every class the normalised mean of its normalised text features over the templates.
    ///
    /// # Errors
    ///
    /// Fails if a template has no `{}` or a text does not fit the context.
    pub fn text_classifier(
        &self,
        class_names: &[String],
        templates: &[String],
        device: &Device,
    ) -> Result<Tensor<2>, Error> {
        let tokenizer = Tokenizer::from_folder(&self.folder)?;
        let context = self.config.text_config.max_position_embeddings;
        let mut sum: Option<Tensor<2>> = None;
        for template in templates {
            if !template.contains("{}") {
                return Err(Error::Template { template: template.clone() });
            }
            let texts: Vec<String> = class_names.iter().map(|name| template.replace("{}", name)).collect();
            let mut features = Vec::new();
            for texts in texts.chunks(TEXT_BATCH) {
                let ids: Vec<i64> =
                    tokenizer.encode_batch(texts, context, false)?.into_iter().flatten().collect();
                let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [texts.len(), context]), device);
                features.push(normalize(self.clip.text_features(ids)));
            }
            let features = Tensor::cat(features, 0); // [N, P]
            sum = Some(match sum {
                Some(sum) => sum + features,
                None => features,
            });
        }
        let sum = sum.ok_or_else(|| pipeline_spec::Error::Field {
            field: "templates".to_owned(),
            problem: "expected at least one template, found `[]`".to_owned(),
        })?;
        Ok(normalize(sum))
    }
}

/// All elements of a tensor, on the host.
///
/// # Errors
///
/// Fails if the device does not give them.
pub fn to_vec<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, Error> {
    tensor.try_into_vec_as::<f32>().map_err(|e| Error::Device { reason: e.to_string() })
}

/// Class of the highest logit of each row of `[B, N]`; the lowest of equals.
///
/// # Errors
///
/// Fails if the device does not give them.
pub fn predicted_classes(logits: Tensor<2>) -> Result<Vec<usize>, Error> {
    let [_, classes] = logits.dims();
    let highest =
        |row: &[f32]| (1..row.len()).fold(0, |best, class| if row[class] > row[best] { class } else { best });
    Ok(to_vec(logits)?.chunks_exact(classes).map(highest).collect())
}

/// Share of predictions that are right; `None` without any.
pub fn accuracy(predicted: &[usize], labels: &[usize]) -> Option<f64> {
    let right = predicted.iter().zip(labels).filter(|(a, b)| a == b).count();
    (!labels.is_empty()).then(|| right as f64 / labels.len() as f64)
}
