//! Trained parameters read back for evaluation.

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use clip_model::{KeyTable, load_safetensors};
use std::path::Path;

use crate::adapters::{LinearProbe, TipAdapter, ZeroShot};
use crate::error::Error;
use crate::model::FlierModel;
use crate::run::{Classifier, RunDescription};

/// A classifier as a run left it, in inference mode.
#[derive(Debug)]
pub struct TrainedClassifier {
    weights: Weights,
    classifier: Classifier,
}

#[derive(Debug)]
enum Weights {
    ZeroShot(ZeroShot),
    LinearProbe(LinearProbe),
    TipAdapter(TipAdapter),
    FineTune(Box<FlierModel>),
}

impl TrainedClassifier {
    /// Loads `weights` (`model.safetensors` or `ema.safetensors`) as `run` describes them.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read or its tensors do not match the description one to one.
    pub fn from_files(run: &RunDescription, weights: &Path, device: &Device) -> Result<Self, Error> {
        run.check()?;
        let (classes, table) = (run.class_names.len(), KeyTable::new());
        let loaded = match &run.classifier {
            Classifier::ZeroShot { projection_dim, .. } => {
                let empty = ZeroShot::empty(*projection_dim, classes, device);
                Weights::ZeroShot(load_safetensors(empty, weights, &table)?.valid())
            }
            Classifier::LinearProbe { projection_dim, .. } => {
                let empty = LinearProbe::empty(*projection_dim, classes, device);
                Weights::LinearProbe(load_safetensors(empty, weights, &table)?.valid())
            }
            Classifier::TipAdapterF { projection_dim, num_keys, .. } => {
                let empty = TipAdapter::empty(*num_keys, *projection_dim, classes, device);
                Weights::TipAdapter(load_safetensors(empty, weights, &table)?.valid())
            }
            Classifier::FineTune { config } => {
                let empty = FlierModel::empty(config, device)?;
                let table = empty.key_table();
                Weights::FineTune(Box::new(load_safetensors(empty, weights, &table)?.valid()))
            }
        };
        Ok(Self { weights: loaded, classifier: run.classifier.clone() })
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
            _ => Err(self.wrong_input("features", "images")),
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
            | Classifier::LinearProbe { projection_dim, .. }
            | Classifier::TipAdapterF { projection_dim, .. } => *projection_dim,
            Classifier::FineTune { .. } => return Err(self.wrong_input("images", "features")),
        };
        if width != expected {
            return Err(Error::Shape {
                what: "features [B, P]",
                expected: format!("[B, {expected}]"),
                found: format!("[B, {width}]"),
            });
        }
        match (&self.weights, &self.classifier) {
            (Weights::ZeroShot(model), Classifier::ZeroShot { logit_scale, .. }) => {
                Ok(model.logits(features, *logit_scale))
            }
            (Weights::LinearProbe(model), _) => Ok(model.logits(features)),
            (Weights::TipAdapter(model), Classifier::TipAdapterF { logit_scale, alpha, beta, .. }) => {
                Ok(model.logits(features, *logit_scale, *alpha, *beta))
            }
            _ => Err(self.wrong_input("images", "features")),
        }
    }

    fn wrong_input(&self, reads: &'static str, given: &'static str) -> Error {
        let method = match self.classifier {
            Classifier::ZeroShot { .. } => "zero-shot",
            Classifier::LinearProbe { .. } => "linear-probe",
            Classifier::TipAdapterF { .. } => "tip-adapter-f",
            Classifier::FineTune { .. } => "fine-tune",
        };
        Error::WrongInput { method, reads, given }
    }
}
