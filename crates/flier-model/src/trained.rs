//! Trained parameters with the way in which they give logits: as a run left them, or read back for evaluation.

use burn::module::Module;
use burn::nn::Linear;
use burn::tensor::{Device, Tensor};
use clip_model::{KeyTable, SaveDtype, load_safetensors, save_safetensors};
use std::path::Path;

use crate::adapters::{ClipAdapter, LinearProbe, ProLip, TipAdapter, ZeroShot};
use crate::error::Error;
use crate::latent_encoder::LatentClassifier;
use crate::model::FlierModel;
use crate::run::{Classifier, RunDescription};

/// A classifier as a run left it, in inference mode.
#[derive(Debug)]
pub struct TrainedClassifier {
    weights: Weights,
    classifier: Classifier,
}

/// The parameters of a classifier.
#[derive(Debug)]
pub enum Weights {
    /// Of [`Classifier::ZeroShot`] and [`Classifier::Cosine`].
    ZeroShot(ZeroShot),
    /// Of [`Classifier::LinearProbe`] and [`Classifier::Linear`].
    LinearProbe(LinearProbe),
    /// Of [`Classifier::TipAdapterF`] and [`Classifier::Cache`].
    TipAdapter(TipAdapter),
    /// Of [`Classifier::ClipAdapter`].
    ClipAdapter(ClipAdapter),
    /// Of [`Classifier::ProLip`].
    ProLip(ProLip),
    /// Of [`Classifier::LatentOnly`].
    LatentOnly(LatentClassifier),
    /// Of [`Classifier::FineTune`].
    FineTune(Box<FlierModel>),
}

impl TrainedClassifier {
    /// A classifier that a run has found; `weights` are of the kind that `classifier` describes.
    pub fn new(weights: Weights, classifier: Classifier) -> Self {
        Self { weights, classifier }
    }

    /// Loads `weights` (`model.safetensors` or `ema.safetensors`) as `run` describes them.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or its tensors do not match the description one to one.
    pub fn from_files(run: &RunDescription, weights: &Path, device: &Device) -> Result<Self, Error> {
        run.check()?;
        let (classes, table) = (run.class_names.len(), KeyTable::new());
        let loaded = match &run.classifier {
            Classifier::ZeroShot { projection_dim, .. } | Classifier::Cosine { projection_dim, .. } => {
                let empty = ZeroShot::empty(*projection_dim, classes, device);
                Weights::ZeroShot(load_safetensors(empty, weights, &table)?.valid())
            }
            Classifier::LinearProbe { projection_dim, .. } | Classifier::Linear { projection_dim } => {
                let empty = LinearProbe::empty(*projection_dim, classes, device);
                Weights::LinearProbe(load_safetensors(empty, weights, &table)?.valid())
            }
            Classifier::TipAdapterF { projection_dim, num_keys, .. } => {
                let empty = TipAdapter::empty(*num_keys, *projection_dim, classes, device);
                Weights::TipAdapter(load_safetensors(empty, weights, &table)?.valid())
            }
            Classifier::Cache { projection_dim, num_keys, channels, .. } => {
                let width = if channels.is_empty() { *projection_dim } else { channels.len() };
                let keys = Tensor::zeros([*num_keys, width], device);
                let empty = TipAdapter::empty(*num_keys, *projection_dim, classes, device);
                let empty = empty.with_channels(keys, channels.clone());
                Weights::TipAdapter(load_safetensors(empty, weights, &table)?.valid())
            }
            Classifier::ClipAdapter { projection_dim, hidden_dim, .. } => {
                let empty = ClipAdapter::empty(*projection_dim, *hidden_dim, classes, device);
                Weights::ClipAdapter(load_safetensors(empty, weights, &table)?.valid())
            }
            Classifier::ProLip { feature_dim, projection_dim, has_bias, .. } => {
                let empty = ProLip::empty(*feature_dim, *projection_dim, *has_bias, classes, device);
                Weights::ProLip(load_safetensors(empty, weights, &table)?.valid())
            }
            Classifier::LatentOnly { encoder } => {
                let empty = LatentClassifier::empty(encoder, classes, device)?;
                Weights::LatentOnly(load_safetensors(empty, weights, &table)?.valid())
            }
            Classifier::FineTune { config } => {
                let empty = FlierModel::empty(config, device)?;
                let table = empty.key_table();
                Weights::FineTune(Box::new(load_safetensors(empty, weights, &table)?.valid()))
            }
        };
        Ok(Self { weights: loaded, classifier: run.classifier.clone() })
    }

    /// The same with the text features of other classes: what the run has trained on the side of the image stays.
    ///
    /// # Errors
    ///
    /// Fails unless `texts` is a zero-shot classifier of the same space and this one is made of texts too: zero-shot,
    /// CLIP-Adapter or ProLIP.
    pub fn with_texts(self, texts: Self) -> Result<Self, Error> {
        let Weights::ZeroShot(ZeroShot { classifier: texts }) = texts.weights else {
            return Err(Error::NoTexts { classifier: texts.name() });
        };
        let name = self.name();
        let weights = match (self.weights, &self.classifier) {
            (Weights::ZeroShot(model), Classifier::ZeroShot { .. }) => {
                Weights::ZeroShot(ZeroShot { classifier: same_space(texts, &model.classifier)? })
            }
            (Weights::ClipAdapter(model), _) => {
                let classifier = same_space(texts, &model.classifier)?;
                Weights::ClipAdapter(ClipAdapter { classifier, ..model })
            }
            (Weights::ProLip(model), _) => {
                let classifier = same_space(texts, &model.classifier)?;
                Weights::ProLip(ProLip { classifier, ..model })
            }
            _ => return Err(Error::NoTexts { classifier: name }),
        };
        Ok(Self { weights, classifier: self.classifier })
    }

    /// Writes the weights as [`Self::from_files`] reads them.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        let (dtype, table) = (SaveDtype::F32, KeyTable::new());
        match &self.weights {
            Weights::ZeroShot(model) => save_safetensors(model, path, dtype, &table)?,
            Weights::LinearProbe(model) => save_safetensors(model, path, dtype, &table)?,
            Weights::TipAdapter(model) => save_safetensors(model, path, dtype, &table)?,
            Weights::ClipAdapter(model) => save_safetensors(model, path, dtype, &table)?,
            Weights::ProLip(model) => save_safetensors(model, path, dtype, &table)?,
            Weights::LatentOnly(model) => save_safetensors(model, path, dtype, &table)?,
            Weights::FineTune(model) => save_safetensors(&**model, path, dtype, &model.key_table())?,
        }
        Ok(())
    }

    /// What the weights are and how they give logits.
    pub fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// Whether it reads images ([`Self::logits_from_images`]) rather than features of the frozen encoder.
    pub fn reads_images(&self) -> bool {
        matches!(self.weights, Weights::FineTune(_))
    }

    /// Logits `[B, N]` of preprocessed images `[B, 3, H, W]`.
    ///
    /// # Errors
    ///
    /// Fails if the method works on frozen features.
    pub fn logits_from_images(&self, pixel_values: Tensor<4>) -> Result<Tensor<2>, Error> {
        match &self.weights {
            Weights::FineTune(model) => Ok(model.image_logits(pixel_values)),
            _ => Err(self.wrong_input(self.reads(), "images")),
        }
    }

    /// Logits `[B, N]` of scaled latents `[B, C, H, W]`, by the latent branch alone.
    ///
    /// # Errors
    ///
    /// Fails if the method has no latent branch, or the latents have another shape than it was trained on.
    pub fn logits_from_latents(&self, latents: Tensor<4>) -> Result<Tensor<2>, Error> {
        match (&self.weights, &self.classifier) {
            (Weights::LatentOnly(model), Classifier::LatentOnly { encoder }) => {
                encoder.check_latents(&latents)?;
                Ok(model.logits(latents))
            }
            (Weights::FineTune(model), _) => model.latent_logits(latents),
            _ => Err(self.wrong_input(self.reads(), "latents")),
        }
    }

    /// Logits `[B, N]` of features `[B, P]` of the frozen encoder, not normalised.
    ///
    /// # Errors
    ///
    /// Fails if the method has its own encoder, or the features have another width.
    pub fn logits_from_features(&self, features: Tensor<2>) -> Result<Tensor<2>, Error> {
        let [_, width] = features.dims();
        let expected = match &self.classifier {
            Classifier::ZeroShot { projection_dim, .. }
            | Classifier::Cosine { projection_dim, .. }
            | Classifier::LinearProbe { projection_dim, .. }
            | Classifier::Linear { projection_dim }
            | Classifier::TipAdapterF { projection_dim, .. }
            | Classifier::Cache { projection_dim, .. }
            | Classifier::ClipAdapter { projection_dim, .. } => *projection_dim,
            Classifier::ProLip { feature_dim, .. } => *feature_dim,
            Classifier::LatentOnly { .. } | Classifier::FineTune { .. } => {
                return Err(self.wrong_input(self.reads(), "features"));
            }
        };
        if width != expected {
            return Err(Error::Shape {
                what: "features [B, P]",
                expected: format!("[B, {expected}]"),
                found: format!("[B, {width}]"),
            });
        }
        match (&self.weights, &self.classifier) {
            (
                Weights::ZeroShot(model),
                Classifier::ZeroShot { logit_scale, .. } | Classifier::Cosine { logit_scale, .. },
            ) => Ok(model.logits(features, *logit_scale)),
            (Weights::LinearProbe(model), _) => Ok(model.logits(features)),
            (
                Weights::TipAdapter(model),
                Classifier::TipAdapterF { logit_scale, alpha, beta, .. }
                | Classifier::Cache { logit_scale, alpha, beta, .. },
            ) => Ok(model.logits(features, *logit_scale, *alpha, *beta)),
            (Weights::ClipAdapter(model), Classifier::ClipAdapter { logit_scale, ratio, .. }) => {
                Ok(model.logits(features, *logit_scale, *ratio))
            }
            (Weights::ProLip(model), Classifier::ProLip { logit_scale, .. }) => {
                Ok(model.logits(features, *logit_scale))
            }
            _ => Err(self.wrong_input(self.reads(), "features")),
        }
    }

    fn reads(&self) -> &'static str {
        match self.classifier {
            Classifier::LatentOnly { .. } => "latents",
            Classifier::FineTune { .. } => "images",
            _ => "features",
        }
    }

    fn wrong_input(&self, reads: &'static str, given: &'static str) -> Error {
        Error::WrongInput { method: self.name(), reads, given }
    }

    fn name(&self) -> &'static str {
        match self.classifier {
            Classifier::ZeroShot { .. } => "zero-shot",
            Classifier::LinearProbe { .. } => "linear-probe",
            Classifier::TipAdapterF { .. } => "tip-adapter-f",
            Classifier::Cosine { .. } => "cosine",
            Classifier::Linear { .. } => "linear",
            Classifier::Cache { .. } => "cache",
            Classifier::ClipAdapter { .. } => "clip-adapter",
            Classifier::ProLip { .. } => "prolip",
            Classifier::LatentOnly { .. } => "latent-only",
            Classifier::FineTune { .. } => "fine-tune",
        }
    }
}

/// `texts`, `[P, N]`, if its width P is that of `own`.
fn same_space(texts: Linear, own: &Linear) -> Result<Linear, Error> {
    let ([found, _], [expected, _]) = (texts.weight.dims(), own.weight.dims());
    if found == expected {
        return Ok(texts);
    }
    Err(Error::Shape {
        what: "text features [P, N]",
        expected: format!("[{expected}, N]"),
        found: format!("[{found}, N]"),
    })
}
