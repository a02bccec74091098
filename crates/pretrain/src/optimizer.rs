//! AdamW as the recipes describe it.

use burn::grad_clipping::{GradientClipping, GradientClippingConfig};
use burn::module::ParamGroup;
use burn::optim::{AdamWConfig, ModuleOptimizer};

use crate::recipe::OptimizerRecipe;

/// Path parts of parameters that are not decayed: norms, biases, scalars and positions.
const NOT_DECAYED: [&str; 8] =
    ["bias", "norm", "bn", "gamma", "beta", "logit_scale", "class_embedding", "position"];

/// AdamW with two groups: decayed matrices and kernels, and the rest without decay.
pub fn adamw(recipe: &OptimizerRecipe) -> ModuleOptimizer {
    let config = AdamWConfig::new()
        .with_beta_1(recipe.beta_1)
        .with_beta_2(recipe.beta_2)
        .with_epsilon(recipe.epsilon)
        .with_weight_decay(recipe.weight_decay)
        .with_grad_clipping(Some(GradientClippingConfig::Norm(recipe.max_grad_norm)));
    let without_decay = config.clone().with_weight_decay(0.0);
    config.init().with_group(
        ParamGroup::from_any_predicates(NOT_DECAYED.to_vec()),
        without_decay.build(),
        Some(GradientClipping::Norm(recipe.max_grad_norm)),
    )
}
