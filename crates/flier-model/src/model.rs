//! The model that is fine-tuned: CLIP's image encoder with a classifier, and the latent branch beside it.

use burn::module::{Module, Param};
use burn::nn::{LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::{Device, Tensor};
use clip_model::{Clip, KeyTable, VisionConfig, VisionTower, normalize};
use rand_core::Rng;

use crate::config::{Coupling, FlierConfig, Pool};
use crate::error::{Error, expect};
use crate::init;
use crate::latent_encoder::LatentEncoder;
use crate::loss;

/// FLIER's image branch and latent branch.
///
/// Under [`Pool::MeanPatch`] a ViT's `vision.post_layernorm` is the fresh norm over the patch tokens, which stands where
/// CLIP has its own last norm, so no parameter of the model goes unused. Batch norms of a ResNet use the running
/// statistics of the checkpoint also while training (freeze their flags), because a few-shot batch is too small for
/// statistics of its own.
#[derive(Module, Debug)]
pub struct FlierModel {
    /// CLIP's vision tower.
    pub vision: VisionTower,
    /// CLIP's projection into the shared space ([`Pool::Projected`] of a ViT).
    pub visual_projection: Option<Linear>,
    /// The classifier, `[F, N]`.
    pub head: Linear,
    /// The latent encoder.
    pub latent_encoder: Option<LatentEncoder>,
    /// From the latent feature's width to F, where they differ and the coupling brings both features together.
    pub latent_projection: Option<Linear>,
    /// The latent branch's own classifier, where the coupling gives it one.
    pub latent_head: Option<Linear>,
    #[module(skip)]
    config: FlierConfig,
}

/// First weights of the classifier.
#[allow(clippy::large_enum_variant)] // one per run; a box would only add a hop
#[derive(Debug, Clone)]
pub enum HeadInit {
    /// Almost zero, so that the first loss is about `ln N` (the released code).
    NearZero,
    /// Rows of a normalised text classifier times CLIP's logit scale; needs [`Pool::Projected`].
    ZeroShotText {
        /// `[N, P]`, rows of length 1.
        classifier: Tensor<2>,
        /// The factor, 100 for OpenAI's CLIP.
        logit_scale: f64,
    },
}

impl FlierModel {
    /// A model of this shape whose weights are not drawn yet; load weights into it, or count its parameters.
    ///
    /// # Errors
    ///
    /// Fails if the configuration does not fit together.
    pub fn empty(config: &FlierConfig, device: &Device) -> Result<Self, Error> {
        config.check()?;
        let width = config.feature_width();
        let (vision, visual_projection) = match &config.vision {
            VisionConfig::VisionTransformer(vision) => {
                let projection =
                    LinearConfig::new(vision.hidden_size, config.projection_dim).with_bias(false);
                let projected = config.pool == Pool::Projected;
                let tower = VisionTower::VisionTransformer(vision.init(device));
                (tower, projected.then(|| projection.init(device)))
            }
            VisionConfig::ModifiedResNet(vision) => {
                (VisionTower::ModifiedResNet(vision.init(config.projection_dim, device)), None)
            }
        };
        let latent = config.latent.as_ref();
        let latent_width = latent.map(|l| l.encoder.feature_width()).unwrap_or_default();
        let meets = latent.is_some_and(|l| l.coupling.meets_features());
        let has_head = latent.is_some_and(|l| l.coupling.has_latent_head());
        Ok(Self {
            vision,
            visual_projection,
            head: LinearConfig::new(width, config.num_classes).init(device),
            latent_encoder: latent.map(|l| l.encoder.init(device)),
            latent_projection: (meets && latent_width != width)
                .then(|| LinearConfig::new(latent_width, width).with_bias(false).init(device)),
            latent_head: has_head.then(|| LinearConfig::new(latent_width, config.num_classes).init(device)),
            config: config.clone(),
        })
    }

    /// The pre-trained encoder of `clip` with a fresh classifier and latent branch drawn from `rng`.
    ///
    /// # Errors
    ///
    /// Fails if the configuration does not fit together or to `head_init`.
    pub fn from_clip(
        clip: Clip,
        config: &FlierConfig,
        head_init: &HeadInit,
        device: &Device,
        rng: &mut impl Rng,
    ) -> Result<Self, Error> {
        let mut model = Self::empty(config, device)?;
        model.vision = clip.vision;
        if config.pool == Pool::MeanPatch {
            model.vision = with_fresh_norm(model.vision, &config.vision, device);
        } else {
            model.visual_projection = clip.visual_projection;
        }
        let (width, classes) = (config.feature_width(), config.num_classes);
        let fresh_head = init::near_zero_head(width, classes, device, rng);
        model.head = match head_init {
            HeadInit::NearZero => fresh_head,
            HeadInit::ZeroShotText { classifier, logit_scale } => {
                let fits = config.pool == Pool::Projected;
                expect(fits, "pool", "`projected`, which `zero-shot-text` needs", "mean-patch")?;
                text_head(classifier.clone(), *logit_scale, config)?
            }
        };
        if let Some(latent) = &config.latent {
            model.latent_encoder = Some(latent.encoder.init_from(device, rng));
            let latent_width = latent.encoder.feature_width();
            if model.latent_projection.is_some() {
                model.latent_projection = Some(init::default_linear(latent_width, width, device, rng));
            }
            if model.latent_head.is_some() {
                model.latent_head = Some(init::near_zero_latent_head(latent_width, classes, device, rng));
            }
        }
        Ok(model)
    }

    /// Its shape.
    pub fn config(&self) -> &FlierConfig {
        &self.config
    }

    /// How the module's paths are spelled in its file.
    pub fn key_table(&self) -> KeyTable {
        match self.vision {
            VisionTower::VisionTransformer(_) => KeyTable::new().with_rule("vision", "vision_model"),
            VisionTower::ModifiedResNet(_) => KeyTable::new()
                .with_rule("vision", "visual")
                .with_rule("downsample.conv", "downsample.0")
                .with_rule("downsample.bn", "downsample.1"),
        }
    }

    /// Image features `[B, F]` of preprocessed images `[B, 3, H, W]`, as the classifier sees them.
    pub fn image_features(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        match (self.config.pool, &self.vision) {
            (Pool::MeanPatch, VisionTower::VisionTransformer(tower)) => {
                let tokens = tower.tokens(pixel_values); // [B, 1 + T, D]
                let [batch, tokens_with_class, width] = tokens.dims();
                let patches = tokens.narrow(1, 1, tokens_with_class - 1);
                tower.post_layernorm.forward(patches).mean_dim(1).reshape([batch, width])
            }
            (Pool::MeanPatch, VisionTower::ModifiedResNet(tower)) => {
                let map = tower.features(pixel_values); // [B, C, h, w]
                let [batch, channels, _, _] = map.dims();
                map.flatten::<3>(2, 3).mean_dim(2).reshape([batch, channels])
            }
            (Pool::Projected, tower) => {
                let features = tower.forward(pixel_values);
                normalize(match &self.visual_projection {
                    Some(projection) => projection.forward(features),
                    None => features,
                })
            }
        }
    }

    /// Logits `[B, N]` of preprocessed images `[B, 3, H, W]`. Latents take no part.
    pub fn image_logits(&self, pixel_values: Tensor<4>) -> Tensor<2> {
        self.head.forward(self.image_features(pixel_values))
    }

    /// Logits `[B, N]` of scaled latents `[B, C, H, W]`, by the latent branch's own classifier or the shared one.
    ///
    /// # Errors
    ///
    /// Fails if the model has no latent branch or the latents have another shape than its configuration says.
    pub fn latent_logits(&self, latents: Tensor<4>) -> Result<Tensor<2>, Error> {
        let (features, _) = self.latent_features(latents)?;
        Ok(match &self.latent_head {
            Some(head) => head.forward(features),
            None => self.head.forward(self.beside_image(features)),
        })
    }

    /// The latent branch's loss on generated samples, of one value, from their image features `[B, F]`, scaled latents
    /// `[B, C, H, W]` and targets `[B, N]`.
    ///
    /// The cross entropy of the latent logits; of the sum of both logits ([`Coupling::LogitSum`]); of the classifier on the sum of
    /// both features ([`Coupling::FeatureAdd`]). [`Coupling::AlignLoss`] adds one minus the mean cosine of both features to the
    /// first. All but the first are our choice: the released code has one coupling, none.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::latent_logits`] does.
    pub fn latent_loss(
        &self,
        image_features: Tensor<2>,
        latents: Tensor<4>,
        targets: Tensor<2>,
    ) -> Result<Tensor<1>, Error> {
        let (features, coupling) = self.latent_features(latents)?;
        let own = |features: Tensor<2>| match &self.latent_head {
            Some(head) => head.forward(features),
            None => self.head.forward(self.beside_image(features)),
        };
        Ok(match coupling {
            Coupling::Independent | Coupling::SharedHead => loss::cross_entropy(own(features), targets),
            Coupling::LogitSum => {
                loss::cross_entropy(self.head.forward(image_features) + own(features), targets)
            }
            Coupling::FeatureAdd => {
                let both = image_features + self.beside_image(features);
                loss::cross_entropy(self.head.forward(both), targets)
            }
            Coupling::AlignLoss => {
                let latent = normalize_or_zero(self.beside_image(features.clone()));
                let cosine = (normalize_or_zero(image_features) * latent).sum_dim(1).mean();
                loss::cross_entropy(own(features), targets) - cosine + 1.0
            }
        })
    }

    /// Features of latents as the latent encoder gives them, and how they meet the image branch.
    fn latent_features(&self, latents: Tensor<4>) -> Result<(Tensor<2>, Coupling), Error> {
        let (Some(encoder), Some(branch)) = (&self.latent_encoder, &self.config.latent) else {
            return Err(Error::WrongInput {
                method: "fine-tune without latents",
                reads: "images",
                given: "latents",
            });
        };
        branch.encoder.check_latents(&latents)?;
        let latents = match branch.latent_scale {
            Some(scale) => latents.mul_scalar(scale),
            None => latents,
        };
        Ok((encoder.forward(latents), branch.coupling))
    }

    /// Latent features `[B, F]` in the form of image features: projected, and of length 1 under [`Pool::Projected`].
    fn beside_image(&self, features: Tensor<2>) -> Tensor<2> {
        let features = match &self.latent_projection {
            Some(projection) => projection.forward(features),
            None => features,
        };
        match self.config.pool {
            Pool::Projected => normalize_or_zero(features),
            Pool::MeanPatch => features,
        }
    }
}

/// Divides every row by its length; a row of zeros (all units off after ReLU) stays zero.
fn normalize_or_zero(features: Tensor<2>) -> Tensor<2> {
    let square = features.clone().powi_scalar(2).sum_dim(1); // [B, 1]
    features / square.add_scalar(1e-12).sqrt()
}

/// Replaces the last norm of a ViT by a fresh one: weight 1, bias 0.
fn with_fresh_norm(vision: VisionTower, config: &VisionConfig, device: &Device) -> VisionTower {
    match (vision, config) {
        (VisionTower::VisionTransformer(mut tower), VisionConfig::VisionTransformer(config)) => {
            tower.post_layernorm = fresh_norm(config.hidden_size, config.layer_norm_eps, device);
            VisionTower::VisionTransformer(tower)
        }
        (vision, _) => vision,
    }
}

fn fresh_norm(width: usize, epsilon: f64, device: &Device) -> LayerNorm {
    LayerNormConfig::new(width).with_epsilon(epsilon).init(device)
}

/// The text classifier as a linear layer with bias zero.
fn text_head(classifier: Tensor<2>, logit_scale: f64, config: &FlierConfig) -> Result<Linear, Error> {
    let [classes, width] = classifier.dims();
    if [classes, width] != [config.num_classes, config.projection_dim] {
        return Err(Error::Shape {
            what: "text classifier [N, P]",
            expected: format!("[{}, {}]", config.num_classes, config.projection_dim),
            found: format!("[{classes}, {width}]"),
        });
    }
    let device = classifier.device();
    Ok(Linear {
        weight: Param::from_tensor(classifier.mul_scalar(logit_scale).transpose()),
        bias: Some(Param::from_tensor(Tensor::zeros([classes], &device))),
    })
}
