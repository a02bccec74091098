//! The CLIP checkpoint of a run, checked against the digest in its spec.

use std::path::{Path, PathBuf};
use std::rc::Rc;

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Int, Tensor, TensorData};
use clip_model::{Checkpoint, Clip, ClipConfig, Preprocess, Tokenizer, VisionConfig, VisionTower, normalize};
use pipeline_spec::spec::FeatureLayer;
use pipeline_spec::{CheckpointRef, checkpoint_digest};

use crate::class_texts::{ClassTexts, TokenIds};
use crate::{Error, Settings};

/// Texts that go through the text tower together.
const TEXT_BATCH: usize = 256;
/// Stands where a learned vector comes; no end token, and not the highest id, by which some checkpoints find the end.
const PLACE: i64 = 0;

/// An opened checkpoint.
#[derive(Debug, Clone)]
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
    /// Opens `weights/<id>` on `device`; the folder may have any layout that [`Checkpoint`] reads.
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
        let checkpoint = Checkpoint::open(&folder, None)?;
        let clip = checkpoint.load(device)?.valid();
        let (config, preprocess) = (checkpoint.config().clone(), checkpoint.preprocess().clone());
        Ok(Self { folder, config, clip, preprocess })
    }

    /// As [`Self::open`], once for all units of the process.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::open`] does.
    pub fn shared(checkpoint: &CheckpointRef, settings: &Settings<'_>) -> Result<Rc<Self>, Error> {
        settings.cache.get(&format!("backbone {} {}", checkpoint.id, checkpoint.digest), || {
            let backbone = Self::open(checkpoint, settings.weights, settings.device)?;
            let size_bytes = backbone.clip.num_params() * size_of::<f32>();
            Ok((backbone, size_bytes))
        })
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

    /// The text classifier `[N, P]`: for every class the normalised mean of the normalised features of its texts.
    ///
    /// # Errors
    ///
    /// Fails if a class has no text or a text does not fit the context and may not be cut.
    pub fn text_classifier(&self, texts: &[ClassTexts], device: &Device) -> Result<Tensor<2>, Error> {
        Ok(normalize(self.summed_text_features(texts, normalize, device)?))
    }

    /// For every class the mean of the features of its texts, none of them normalised, `[N, P]`.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::text_classifier`] does.
    pub fn mean_text_features(&self, texts: &[ClassTexts], device: &Device) -> Result<Tensor<2>, Error> {
        let counts: Vec<f32> = texts.iter().map(|texts| texts.texts.len() as f32).collect();
        let counts = Tensor::<2>::from_data(TensorData::new(counts, [texts.len(), 1]), device);
        Ok(self.summed_text_features(texts, |features| features, device)? / counts)
    }

    fn summed_text_features(
        &self,
        texts: &[ClassTexts],
        form: impl Fn(Tensor<2>) -> Tensor<2>,
        device: &Device,
    ) -> Result<Tensor<2>, Error> {
        let tokenizer = Tokenizer::from_folder(&self.folder)?;
        let context = self.config.text_config.max_position_embeddings;
        let width = self.config.projection_dim;
        let all: Vec<(usize, &ClassTexts, &String)> = texts
            .iter()
            .enumerate()
            .flat_map(|(class, texts)| texts.texts.iter().map(move |text| (class, texts, text)))
            .collect();
        let mut sums = vec![0.0_f64; texts.len() * width];
        for batch in all.chunks(TEXT_BATCH) {
            let mut ids = Vec::with_capacity(batch.len() * context);
            for (_, class, text) in batch {
                ids.extend(tokenizer.encode_batch(&[text], context, class.truncate)?.into_iter().flatten());
            }
            let ids = Tensor::<2, Int>::from_data(TensorData::new(ids, [batch.len(), context]), device);
            let features = to_vec(form(self.clip.text_features(ids)))?;
            for ((class, ..), feature) in batch.iter().zip(features.chunks_exact(width)) {
                let sum = &mut sums[class * width..(class + 1) * width];
                sum.iter_mut().zip(feature).for_each(|(sum, value)| *sum += f64::from(*value));
            }
        }
        if let Some(empty) = texts.iter().find(|texts| texts.texts.is_empty()) {
            return Err(Error::NoText { class_name: empty.class_name.clone() });
        }
        let sums: Vec<f32> = sums.into_iter().map(|sum| sum as f32).collect();
        Ok(Tensor::from_data(TensorData::new(sums, [texts.len(), width]), device))
    }

    /// Token ids of texts, in their order.
    ///
    /// # Errors
    ///
    /// Fails if a text does not fit the context and may not be cut.
    pub fn token_ids(&self, texts: &[ClassTexts]) -> Result<TokenIds, Error> {
        let tokenizer = Tokenizer::from_folder(&self.folder)?;
        let context = self.config.text_config.max_position_embeddings;
        let mut rows = Vec::new();
        for texts in texts {
            rows.extend(tokenizer.encode_batch(&texts.texts, context, texts.truncate)?);
        }
        Ok(TokenIds::new(&rows, tokenizer.pad_token_id().into()))
    }

    /// Token ids of CoOp's prompts: start, `context_length` places for learned vectors, the class name, a full stop, end.
    ///
    /// # Errors
    ///
    /// Fails if a prompt does not fit the context.
    pub fn prompt_ids(&self, class_names: &[String], context_length: usize) -> Result<TokenIds, Error> {
        let tokenizer = Tokenizer::from_folder(&self.folder)?;
        let context = self.config.text_config.max_position_embeddings;
        let pad = i64::from(tokenizer.pad_token_id());
        let row = |class: &String| {
            let name = tokenizer.encode(&format!("{class}."));
            let num_tokens = context_length + name.len() + 2;
            if num_tokens > context {
                let expected = format!("at most {}", (context + context_length).saturating_sub(num_tokens));
                let problem = format!("expected {expected} for class `{class}`, found {context_length}");
                return Err(pipeline_spec::Error::Field {
                    field: "method.context_length".to_owned(),
                    problem,
                });
            }
            let places = std::iter::repeat_n(PLACE, context_length);
            let mut row = vec![i64::from(tokenizer.bos_token_id())];
            row.extend(places.chain(name.into_iter().map(i64::from)));
            row.push(tokenizer.eos_token_id().into());
            row.resize(context, pad);
            Ok(row)
        };
        let rows: Vec<Vec<i64>> = class_names.iter().map(row).collect::<Result<_, _>>()?;
        Ok(TokenIds::new(&rows, pad))
    }

    /// Features of preprocessed images `[B, 3, H, W]` at `layer`, not normalised.
    pub fn image_features(&self, pixel_values: Tensor<4>, layer: Option<FeatureLayer>) -> Tensor<2> {
        match (layer, &self.clip.vision) {
            (None, _) => self.clip.image_features(pixel_values),
            (Some(FeatureLayer::PreProjection), VisionTower::VisionTransformer(tower)) => {
                tower.forward(pixel_values)
            }
            (Some(FeatureLayer::PreProjection), VisionTower::ModifiedResNet(tower)) => {
                tower.attnpool.pool(tower.feature_map(pixel_values))
            }
        }
    }

    /// Width of the features at `layer`.
    pub fn feature_width(&self, layer: Option<FeatureLayer>) -> usize {
        match (layer, &self.config.vision_config) {
            (None, _) => self.config.projection_dim,
            (Some(FeatureLayer::PreProjection), VisionConfig::VisionTransformer(vision)) => {
                vision.hidden_size
            }
            (Some(FeatureLayer::PreProjection), VisionConfig::ModifiedResNet(vision)) => vision.width * 32,
        }
    }

    /// The visual projection `[D, P]` with its bias, where it has one.
    ///
    /// # Errors
    ///
    /// Fails if a vision transformer has none.
    pub fn visual_projection(&self) -> Result<Linear, Error> {
        let projection = match &self.clip.vision {
            VisionTower::VisionTransformer(_) => self.clip.visual_projection.clone(),
            VisionTower::ModifiedResNet(tower) => Some(tower.attnpool.c_proj.clone()),
        };
        projection.ok_or_else(|| Error::NoProjection { folder: self.folder.clone() })
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
