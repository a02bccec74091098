//! CoOp, "Learning to prompt for vision-language models" (Zhou et al., IJCV 2022, arXiv 2109.01134): learned vectors stand
//! before the class name, and the text tower, which stays as it is, makes the text classifier of them. The last epoch counts.
//!
//! Images are seen as cached features of their augmented views, which take turns; the authors encode a fresh view each time.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use clip_model::{Clip, normalize};
use flier_model::init::normal;
use flier_model::{SelectionRule, loss};
use pipeline_spec::spec::{AdapterTraining, CoOpSpec, Context};

use super::clap::cosine;
use super::steps::{Optimizer, Rate, Steps};
use super::{Fitted, Inputs};
use crate::class_texts::TokenIds;
use crate::parameters;
use crate::random::stream;
use crate::{Control, Error};

/// SGD as Dassl's configurations have it.
const SGD: Optimizer = Optimizer::Sgd { weight_decay: 5e-4 };
/// Standard deviation of the first vectors.
const INITIAL_STD: f64 = 0.02;

/// The learned vectors.
#[derive(Module, Debug)]
pub struct Prompt {
    /// `[1, C, D]`, or `[N, C, D]` with those of each class.
    context: Param<Tensor<3>>,
}

/// A frozen text tower with the prompts of all classes.
#[derive(Debug)]
pub struct PromptTower {
    clip: Clip,
    ids: TokenIds,
    device: Device,
}

impl Prompt {
    /// From vectors `[1, C, D]` or `[N, C, D]`.
    pub fn new(context: Tensor<3>) -> Self {
        Self { context: Param::from_tensor(context) }
    }

    /// Vectors as they are before training, drawn by the run's seed.
    pub fn initial(spec: &CoOpSpec, num_classes: usize, width: usize, seed: u64, device: &Device) -> Self {
        let owners = match spec.context {
            Context::Unified => 1,
            Context::ClassSpecific => num_classes,
        };
        let shape = [owners, spec.context_length as usize, width];
        let mut rng = stream(seed, "init", &[]);
        let draw = |_| (normal(&mut rng) * INITIAL_STD) as f32;
        let values: Vec<f32> = (0..shape.iter().product()).map(draw).collect();
        Self::new(Tensor::from_data(TensorData::new(values, shape), device))
    }
}

impl PromptTower {
    /// The text tower of `clip` on `device`, on which prompts have to lie.
    pub fn new(clip: Clip, ids: TokenIds, device: &Device) -> Self {
        Self { clip, ids, device: device.clone() }
    }

    /// The same tower, for prompts that are trained.
    fn differentiable(&self) -> Self {
        let clip = parameters::freeze(self.clip.clone().train(), |_| true);
        Self { clip, ids: self.ids.clone(), device: self.device.clone().autodiff() }
    }

    /// Normalised text features `[N, P]` of the classes.
    pub fn text_features(&self, prompt: &Prompt) -> Tensor<2> {
        let context = prompt.context.val();
        let [_, length, width] = context.dims();
        let [classes, tokens] = self.ids.shape;
        let ids = self.ids.tensor(&self.device);
        let embedded = self.clip.text_model.embeddings.token_embedding.forward(ids.clone()); // [N, T, D]
        let (start, rest) = (embedded.clone().narrow(1, 0, 1), 1 + length);
        let name = embedded.narrow(1, rest, tokens - rest);
        let prompts = Tensor::cat(vec![start, context.expand([classes, length, width]), name], 1);
        let pooled = self.clip.text_model.forward_embedded(prompts, ids).pooled;
        normalize(self.clip.text_projection.forward(pooled))
    }
}

/// Trains `prompt`; `None` if `control` stopped the work.
///
/// # Errors
///
/// Fails if the spec has no number of epochs for the shots, or the loss stops being finite.
pub fn train(
    spec: &CoOpSpec,
    inputs: &Inputs<'_>,
    tower: &PromptTower,
    prompt: Prompt,
    control: &mut Control<'_>,
) -> Result<Option<Fitted>, Error> {
    let &CoOpSpec { batch_size, learning_rate, .. } = spec;
    let training = AdapterTraining { epochs: spec.epochs_of(inputs.shots)?, batch_size, learning_rate };
    let (graph_tower, scale) = (tower.differentiable(), inputs.logit_scale);
    let logits_loss = |prompt: &Prompt, features: Tensor<2>, targets: Tensor<2>| {
        let text = graph_tower.text_features(prompt);
        loss::cross_entropy(normalize(features).matmul(text.transpose()).mul_scalar(scale), targets)
    };
    let prompt = parameters::freeze(prompt.train(), |_| false);
    let steps = Steps { training, rate: Rate::PerEpoch, optimizer: SGD };
    let Some((prompt, epochs)) = steps.train(inputs, prompt, logits_loss, control)? else { return Ok(None) };
    let trained = cosine(inputs, tower.text_features(&prompt.valid()));
    let val_accuracy = inputs.val_accuracy(&trained)?;
    Ok(Some(Fitted::new(trained, SelectionRule::Last, val_accuracy).with_epochs(epochs)))
}
