//! A step in parts.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleVisitor, Param};
use burn::nn::LinearConfig;
use burn::optim::GradientsParams;
use burn::tensor::{Tensor, TensorData};
use clip_model::{
    Activation, ClipConfig, ModifiedResNetConfig, TextConfig, VisionConfig, VisionTransformerConfig,
};
use flier_model::{FlierConfig, FlierModel, HeadInit, Pool, loss};
use trainer::Error;
use trainer::fine_tune::accumulate::{Accumulated, accumulate};
use trainer::parameters::{ModulePath, assign, collect, freeze};
use trainer::random::stream;

use crate::fixture::{Fixture, device, fine_tune_spec};

const CLASSES: usize = 3;
const SIDE: usize = 32;
/// Gradients below are rounding.
const FLOOR: f32 = 1e-5;

/// A model of few weights for three classes, as fine-tuning begins with it.
pub fn tiny_model(vision: VisionConfig, pool: Pool) -> FlierModel {
    let text_config = TextConfig {
        vocab_size: 50,
        hidden_size: 8,
        intermediate_size: 8,
        num_hidden_layers: 1,
        num_attention_heads: 1,
        max_position_embeddings: 8,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
        eos_token_id: 49,
        bos_token_id: 48,
    };
    let clip = ClipConfig {
        text_config,
        vision_config: vision.clone(),
        projection_dim: 12,
        logit_scale_init_value: 2.6592,
    };
    device().seed(5);
    let clip = clip.init(&device());
    let config = FlierConfig { vision, projection_dim: 12, num_classes: CLASSES, pool, latent: None };
    let mut rng = stream(1, "test", &[]);
    FlierModel::from_clip(clip, &config, &HeadInit::NearZero, &device(), &mut rng).unwrap()
}

fn model(vision: VisionConfig) -> FlierModel {
    let mut model = tiny_model(vision, Pool::MeanPatch);
    // A head near zero would hand down gradients near zero.
    let [width, _] = model.head.weight.dims();
    model.head = LinearConfig::new(width, CLASSES).init(&device());
    // And a ResNet's block starts as the identity, which hands none to its convolutions.
    let gammas = collect(&model, |name, _| name.ends_with("bn3.gamma"));
    let model = assign(model, &gammas.into_iter().map(|(name, gamma)| (name, gamma.ones_like())).collect());
    freeze(model.train(), |_| false)
}

/// The mean loss of images that differ, each with its class.
fn image_loss(model: &FlierModel, samples: &[usize]) -> Result<(Tensor<1>, f64), Error> {
    let device = device().autodiff();
    let value = |sample: usize, i: usize| ((i * (sample + 3) + 7 * sample) % 89) as f32 / 44.0 - 1.0;
    let pixels = samples.iter().flat_map(|&sample| (0..3 * SIDE * SIDE).map(move |i| value(sample, i)));
    let shape = [samples.len(), 3, SIDE, SIDE];
    let pixels = Tensor::<4>::from_data(TensorData::new(pixels.collect::<Vec<f32>>(), shape), &device);
    let labels: Vec<usize> = samples.iter().map(|sample| sample % CLASSES).collect();
    let targets = loss::smoothed_targets(&labels, CLASSES, 0.1, &device);
    Ok((loss::cross_entropy(model.image_logits(pixels), targets), 0.25))
}

struct Collect<'a> {
    path: ModulePath,
    gradients: &'a GradientsParams,
    all: BTreeMap<String, Vec<f32>>,
}

impl ModuleVisitor for Collect<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.path.enter(name, container);
    }
    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let Some(gradient) = self.gradients.get::<D>(param.id) {
            self.all.insert(self.path.name(), gradient.try_into_vec_as::<f32>().unwrap());
        }
    }
}

fn by_name(model: &FlierModel, accumulated: &Accumulated) -> BTreeMap<String, Vec<f32>> {
    let gradients = &accumulated.gradients;
    let mut collect = Collect { path: ModulePath::default(), gradients, all: BTreeMap::new() };
    model.visit(&mut collect);
    collect.all
}

#[test]
#[allow(clippy::print_stderr)] // a measured difference belongs in the test log
fn parts_of_a_step_sum_to_the_gradients_of_the_whole() {
    let vit = VisionTransformerConfig {
        hidden_size: 16,
        intermediate_size: 32,
        num_hidden_layers: 2,
        num_attention_heads: 2,
        image_size: SIDE,
        patch_size: 8,
        hidden_act: Activation::QuickGelu,
        layer_norm_eps: 1e-5,
    };
    let resnet = ModifiedResNetConfig { layers: [1, 1, 1, 1], width: 4, heads: 2, image_size: SIDE };
    for vision in [VisionConfig::VisionTransformer(vit), VisionConfig::ModifiedResNet(resnet)] {
        let model = model(vision);
        let samples: Vec<usize> = (0..7).collect();
        let step = |micro| accumulate(&model, &samples, micro, |part| image_loss(&model, part)).unwrap();
        let whole = step(7);
        let expected = by_name(&model, &whole);
        assert!(expected.len() > 20, "{}", expected.len());
        // Two parts, the second smaller; one image at a time.
        for micro in [4, 1] {
            let parts = step(micro);
            assert!((parts.loss - whole.loss).abs() <= 1e-6 * whole.loss, "{} {}", parts.loss, whole.loss);
            assert!((parts.latent_loss - 0.25).abs() < 1e-12);
            let found = by_name(&model, &parts);
            assert_eq!(found.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
            let mut worst: f32 = 0.0;
            let mut measured = 0;
            for (name, expected) in &expected {
                // Relative to the largest of the parameter; sums of some thousand f32 terms in another order. The keys' biases
                // have no gradient but rounding, which the floor covers.
                let scale = expected.iter().fold(FLOOR, |m, v| m.max(v.abs()));
                measured += usize::from(scale > FLOOR);
                let difference =
                    expected.iter().zip(&found[name]).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(difference <= 1e-4 * scale, "{name}: difference {difference:e} of {scale:e}");
                worst = worst.max(difference / scale);
            }
            let all = found.len();
            eprintln!("{measured} of {all} parameters in parts of {micro}: relative difference {worst:.1e}");
            assert!(4 * measured > 3 * all, "only {measured} of {all} gradients are above the floor");
        }
    }
}

#[test]
fn micro_batch_of_the_whole_step_gives_the_same_bytes_and_a_smaller_one_trains_as_well() {
    let fixture = Fixture::new();
    let run = |micro_batch_size| {
        let mut spec = fine_tune_spec();
        spec.optimizer.micro_batch_size = micro_batch_size;
        fixture.run(&fixture.fine_tune_unit(spec)).unwrap()
    };
    let (all, same, parts) = (run(None), run(Some(2)), run(Some(1)));
    assert!(all != same && same != parts, "it is part of the key");
    let weights = |id| fixture.files(id).into_iter().filter(|(name, _)| name.ends_with(".safetensors"));
    assert!(weights(&all).eq(weights(&same)));
    assert!(weights(&all).count() > 0);
    assert!(!weights(&all).eq(weights(&parts)), "parts round otherwise");
}
