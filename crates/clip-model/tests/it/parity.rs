//! Parity with transformers' `CLIPModel` and open_clip's `ModifiedResNet` on small random models.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::activation::log_softmax;

use burn::tensor::{Gradients, Int, Tensor};
use clip_model::{Clip, ClipConfig, VisionTower, load_safetensors};

use crate::golden::{Golden, device, path};

/// Values are of order one and sums run over at most a few hundred f32 terms in another order than PyTorch's.
const TOLERANCE: f32 = 1e-4;

fn vit() -> (Clip, Golden) {
    let clip = Clip::from_folder(&path("clip_vit"), &device()).unwrap();
    (clip, Golden::open("clip_vit/expected.safetensors"))
}

fn resnet() -> (Clip, Golden) {
    let clip = Clip::from_folder(&path("clip_resnet"), &device()).unwrap();
    (clip, Golden::open("clip_resnet/expected.safetensors"))
}

#[test]
fn text_tower_matches_transformers() {
    let (clip, golden) = vit();
    let ids = golden.ids("input_ids", &device());
    let output = clip.text_model.forward(ids.clone());
    assert!(golden.compare("text_last_hidden_state", output.last_hidden_state) <= TOLERANCE);
    assert!(golden.compare("text_pooled", output.pooled) <= TOLERANCE);
    let states = clip.text_model.hidden_states(ids);
    assert_eq!(states.len(), 3);
    assert!(golden.compare("text_embedded", states[0].clone()) <= TOLERANCE);
    assert!(golden.compare("text_penultimate", states[1].clone()) <= TOLERANCE);
}

#[test]
fn legacy_end_token_pools_at_the_highest_id() {
    let mut config = ClipConfig::from_file(&path("clip_vit/config.json")).unwrap();
    config.text_config.eos_token_id = 2;
    let clip = config.init(&device());
    let table = clip.key_table();
    let clip = load_safetensors(clip, &path("clip_vit/model.safetensors"), &table).unwrap();
    let golden = Golden::open("clip_vit/expected.safetensors");
    let pooled = clip.text_model.forward(golden.ids("input_ids", &device())).pooled;
    assert!(golden.compare("text_pooled_legacy", pooled) <= TOLERANCE);
}

#[test]
fn vision_transformer_matches_transformers_at_any_grid() {
    let (clip, golden) = vit();
    let VisionTower::VisionTransformer(tower) = clip.vision() else { panic!("not a vision transformer") };
    for prefix in ["", "larger_", "smaller_"] {
        let pixels = golden.tensor(&format!("{prefix}pixel_values"), &device());
        let tokens = tower.tokens(pixels.clone());
        assert!(golden.compare(&format!("{prefix}vision_tokens"), tokens) <= TOLERANCE);
        assert!(golden.compare(&format!("{prefix}vision_pooled"), tower.forward(pixels)) <= TOLERANCE);
    }
}

#[test]
fn features_and_logits_match_transformers() {
    let (clip, golden) = vit();
    let text = clip.text_features(golden.ids("input_ids", &device()));
    let image = clip.image_features(golden.tensor("pixel_values", &device()));
    assert!(golden.compare("text_features", text.clone()) <= TOLERANCE);
    assert!(golden.compare("image_features", image.clone()) <= TOLERANCE);
    assert!(golden.compare("logits_per_image", clip.logits_per_image(image, text)) <= TOLERANCE);
}

#[test]
fn modified_resnet_matches_open_clip() {
    let (clip, golden) = resnet();
    let pixels = golden.tensor("pixel_values", &device());
    let VisionTower::ModifiedResNet(tower) = clip.vision() else { panic!("not a ResNet") };
    assert!(golden.compare("features", tower.features(pixels.clone())) <= TOLERANCE);
    let text = clip.text_features(golden.ids("input_ids", &device()));
    let image = clip.image_features(pixels);
    assert!(golden.compare("image_features", image.clone()) <= TOLERANCE);
    assert!(golden.compare("text_features", text.clone()) <= TOLERANCE);
    assert!(golden.compare("logits_per_image", clip.logits_per_image(image, text)) <= TOLERANCE);
}

#[test]
fn modified_resnet_uses_batch_statistics_only_when_training() {
    let (clip, golden) = resnet();
    // Running statistics are shared by clones, so the second model is loaded anew.
    let training = resnet().0.train();
    let pixels = || golden.tensor::<4>("pixel_values", &device()).autodiff();
    let output = training.image_features(pixels());
    assert!(golden.compare("train_image_features", output.inner()) <= TOLERANCE);
    let VisionTower::ModifiedResNet(tower) = training.vision() else { panic!("not a ResNet") };
    let mean = tower.bn1.running_mean.value_sync().without_autodiff();
    assert!(golden.compare("train_running_mean", mean) <= TOLERANCE);
    // PyTorch takes the unbiased variance of the batch, burn the biased one; here n = 3 images of 2 x 2 positions.
    let n = 12.0;
    let VisionTower::ModifiedResNet(before) = clip.vision() else { panic!("not a ResNet") };
    let old = before.layer4[0].bn3.running_var.value_sync() * 0.9;
    let step = tower.layer4[0].bn3.running_var.value_sync().without_autodiff() - old.clone();
    assert!(golden.compare("train_running_var", old + step * (n / (n - 1.0))) <= TOLERANCE);
    // Frozen on an autodiff device: the stored statistics.
    let frozen = clip.train().freeze();
    assert!(golden.compare("image_features", frozen.image_features(pixels()).inner()) <= TOLERANCE);
}

#[test]
fn modified_resnet_takes_other_image_sizes() {
    let (clip, _) = resnet();
    let pixels = Tensor::<4>::ones([1, 3, 96, 64], &device());
    let features = clip.image_features(pixels).into_data().try_into_vec::<f32>().unwrap();
    assert_eq!(features.len(), 12);
    assert!(features.iter().all(|value| value.is_finite()));
}

#[test]
fn gradients_of_the_contrastive_loss_match_pytorch() {
    let (clip, golden) = vit();
    let clip = clip.train();
    let device = device().autodiff();
    let text = clip.text_features(golden.ids("input_ids", &device));
    let image = clip.image_features(golden.tensor("pixel_values", &device));
    let logits = clip.logits_per_image(image, text);
    let diagonal = |logits: Tensor<2>| {
        let [batch, _] = logits.dims();
        let labels = Tensor::<1, Int>::arange(0..batch as i64, &logits.device()).unsqueeze_dim(1);
        log_softmax(logits, 1).gather(1, labels).mean().neg()
    };
    let loss = (diagonal(logits.clone()) + diagonal(logits.transpose())) / 2.0;
    let expected = golden.floats("loss")[0];
    assert!((loss.clone().into_scalar::<f32>() - expected).abs() <= TOLERANCE);
    let gradients = loss.backward();
    let mut norms = GradientNorms { gradients: &gradients, names: Vec::new(), norms: Vec::new() };
    clip.visit(&mut norms);
    let mut compared = 0;
    let mut worst: f32 = 0.0;
    for (path, norm) in norms.norms {
        let key = format!("grad_norm.{}", clip.key_table().to_checkpoint(&path));
        let expected = golden.floats(&key)[0];
        // Keys' biases have no gradient in exact arithmetic: softmax ignores a constant. The floor covers their noise.
        let relative = (norm - expected).abs() / expected.max(1e-4);
        assert!(relative <= 1e-3, "{key}: {norm} instead of {expected}");
        worst = worst.max(relative);
        compared += 1;
    }
    eprintln!("{compared} gradient norms, largest relative difference {worst:.2e}");
    assert_eq!(compared, golden.keys().iter().filter(|key| key.starts_with("grad_norm.")).count());
}

/// Collects the gradient norm of every parameter under PyTorch's name for it.
struct GradientNorms<'a> {
    gradients: &'a Gradients,
    names: Vec<(String, bool)>,
    norms: Vec<(String, f32)>,
}

impl ModuleVisitor for GradientNorms<'_> {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.names.push((name.to_owned(), container.starts_with("Enum:")));
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.names.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let gradient = param.val().grad(self.gradients).expect("every parameter takes part in the loss");
        let norm = gradient.powi_scalar(2).sum().sqrt().into_scalar::<f32>();
        let names: Vec<&str> = self.names.iter().filter(|(_, v)| !v).map(|(name, _)| name.as_str()).collect();
        let name = names.join(".").replace(".gamma", ".weight").replace(".beta", ".bias");
        self.norms.push((name, norm));
    }
}
