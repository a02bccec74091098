//! Methods that train inside both towers of CLIP: CLIP-LoRA and 2SFS.
//!
//! A step sees augmented images and the texts of all classes; logits are their cosines times the checkpoint's logit scale.
//! Nothing is chosen: the last step counts. A ResNet's image tower has no transformer layer and stays as it is.
//!
//! What a run leaves is the image encoder with the text features as its classifier, the form that FLIER has with
//! `pool = "projected"`: updates of weights are added to the weights, and the text tower is not kept.

pub mod methods;
pub mod run;

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use clip_model::{Clip, normalize};

use crate::Error;
use crate::backbone::Backbone;
use crate::class_texts::{ClassTexts, TokenIds};

/// What is trained.
#[derive(Module, Debug)]
pub struct Towers {
    /// Both towers.
    pub clip: Clip,
    /// A vector per class in the place of its text features, `[N, P]`.
    pub classifier: Option<Param<Tensor<2>>>,
}

/// The texts of the classes as the text tower reads them.
#[derive(Debug, Clone)]
pub struct ClassPrompts {
    ids: TokenIds,
    /// Number of texts of each class, in the order of the ids.
    counts: Vec<usize>,
}

impl ClassPrompts {
    /// The tokens of `texts`.
    ///
    /// # Errors
    ///
    /// Fails if a class has no text or a text does not fit the context and may not be cut.
    pub fn open(backbone: &Backbone, texts: &[ClassTexts]) -> Result<Self, Error> {
        if let Some(empty) = texts.iter().find(|texts| texts.texts.is_empty()) {
            return Err(Error::NoText { class_name: empty.class_name.clone() });
        }
        let counts = texts.iter().map(|texts| texts.texts.len()).collect();
        Ok(Self::new(backbone.token_ids(texts)?, counts))
    }

    /// From token ids and the number of texts of each class.
    pub fn new(ids: TokenIds, counts: Vec<usize>) -> Self {
        Self { ids, counts }
    }

    /// Texts of all classes, and tokens of each.
    pub fn shape(&self) -> [usize; 2] {
        self.ids.shape
    }

    /// Number of classes N.
    pub fn num_classes(&self) -> usize {
        self.counts.len()
    }

    /// For every class the normalised mean of the normalised features of its texts, `[N, P]`; `device` is that of `clip`.
    pub fn features(&self, clip: &Clip, device: &Device) -> Tensor<2> {
        let features = normalize(clip.text_features(self.ids.tensor(device)));
        if self.counts.iter().all(|count| *count == 1) {
            return features;
        }
        let [texts, _] = self.ids.shape;
        let mut means = vec![0.0f32; self.num_classes() * texts];
        let mut first = 0;
        for (row, count) in means.chunks_exact_mut(texts).zip(&self.counts) {
            row[first..first + count].fill(1.0 / *count as f32);
            first += count;
        }
        let means = Tensor::from_data(TensorData::new(means, [self.num_classes(), texts]), device);
        normalize(means.matmul(features))
    }
}
