//! The methods on frozen features against PyTorch: `tests/golden/methods/*.py`.

use std::ops::ControlFlow;

use burn::module::Param;
use burn::nn::Linear;
use burn::tensor::Tensor;
use flier_model::Classifier;
use pipeline_spec::spec::{
    AdapterTraining, ApeSpec, ApeTSpec, CacheSpec, CafoSpec, ChannelSpec, ClapSpec, ClipAdapterSpec, GdaSpec,
    LpPlusPlusSpec, Penalty, ProLipSpec, TaskResSpec, TipAdapterSpec,
};
use trainer::Control;
use trainer::backbone::{accuracy, predicted_classes};
use trainer::features::TrainingFeatures;
use trainer::frozen::{
    Fitted, Inputs, ape, ape_t, clap, clip_adapter, gda, lp_plus_plus, prolip, task_res, tip_adapter,
};

use crate::expected::{Golden, assert_close};
use crate::fixture::device;

/// Logits reach 50 and are made of f32 features; after training the difference is that of f32 steps, relative to the largest
/// logit.
const TOLERANCE: f32 = 1e-5;

fn labels(golden: &Golden, name: &str) -> Vec<usize> {
    golden.floats(name).into_iter().map(|v| v as usize).collect()
}

fn matrix(golden: &Golden, name: &str, columns: usize) -> Tensor<2> {
    let rows = golden.floats(name).len() / columns;
    golden.tensor(name, [rows, columns])
}

/// The synthetic features: behind the projection (width 16) or before it (24).
struct Case {
    golden: Golden,
    cache: TrainingFeatures,
    plain: TrainingFeatures,
    suffix: &'static str,
    device: burn::tensor::Device,
}

impl Case {
    fn new(is_inner: bool) -> Self {
        let golden = Golden::open("methods", "features");
        let (suffix, width) = if is_inner { ("_inner", 24) } else { ("", 16) };
        let train_labels = labels(&golden, "train_labels");
        let cache = TrainingFeatures {
            width,
            views: 2,
            train: golden.floats(&format!("cache{suffix}")),
            train_labels,
            val: Vec::new(),
            val_labels: Vec::new(),
        };
        let plain = TrainingFeatures {
            views: 1,
            train: Vec::new(),
            train_labels: Vec::new(),
            val: golden.floats(&format!("val{suffix}")),
            val_labels: labels(&golden, "val_labels"),
            width,
        };
        Self { golden, cache, plain, suffix, device: device() }
    }

    /// Text features as the tower gives them.
    fn text(&self) -> Tensor<2> {
        matrix(&self.golden, "text", 16)
    }

    fn inputs(&self) -> Inputs<'_> {
        Inputs {
            seed: 1,
            shots: 4,
            cache: &self.cache,
            plain: &self.plain,
            text_features: clip_model::normalize(self.text()),
            logit_scale: 30.0,
            device: &self.device,
        }
    }

    /// Fails unless `fitted` has the logits, accuracies and losses of the reference.
    fn check(&self, name: &str, fitted: &Fitted) -> Golden {
        let golden = Golden::open("methods", name);
        let test = matrix(&self.golden, &format!("test{}", self.suffix), self.cache.width);
        let logits = fitted.trained.logits_from_features(test).unwrap();
        let predicted = predicted_classes(logits.clone()).unwrap();
        let found = logits.try_into_vec_as::<f32>().unwrap();
        assert_close(&format!("{name}: logits"), &found, &golden.floats("logits"), TOLERANCE);
        let test_accuracy = accuracy(&predicted, &labels(&self.golden, "test_labels")).unwrap();
        let accuracies = [test_accuracy as f32, fitted.val_accuracy.unwrap() as f32];
        assert_eq!(accuracies.to_vec(), golden.floats("accuracy"), "{name}");
        let losses: Vec<f32> = fitted.epochs.iter().map(|epoch| epoch.real_loss.unwrap() as f32).collect();
        assert_close(&format!("{name}: losses"), &losses, &golden.floats("losses"), TOLERANCE);
        golden
    }
}

fn go_on() -> Box<Control<'static>> {
    Box::new(|_, _| ControlFlow::Continue(()))
}

/// Full batches, so that the order of the images does not matter.
fn training(epochs: u32, learning_rate: f64) -> AdapterTraining {
    AdapterTraining { epochs, batch_size: 100, learning_rate }
}

/// The reference's value of a setting.
fn setting(golden: &Golden, name: &str) -> f64 {
    f64::from(golden.floats(name)[0])
}

fn assert_setting(name: &str, found: f64, golden: &Golden) {
    // The file holds f32.
    assert!((found - setting(golden, name)).abs() < 1e-6 * found.abs(), "{name}: {found}");
}

const ALPHA: [f64; 4] = [0.5, 1.0, 3.0, 10.0];

#[test]
fn tip_adapter_equals_the_reference() {
    let case = Case::new(false);
    let spec = CacheSpec { alpha: ALPHA.to_vec(), beta: vec![1.0, 5.5, 20.0] };
    let fitted = tip_adapter::fit(&spec, &case.inputs()).unwrap();
    let golden = case.check("tip_adapter", &fitted);
    let &Classifier::Cache { alpha, beta, .. } = fitted.trained.classifier() else { panic!() };
    assert_setting("alpha", alpha, &golden);
    assert_setting("beta", beta, &golden);
}

#[test]
fn tip_adapter_f_equals_the_reference() {
    let case = Case::new(false);
    let spec = TipAdapterSpec {
        alpha: ALPHA.to_vec(),
        beta: vec![1.0, 5.5, 20.0],
        epochs: 8,
        batch_size: 100,
        learning_rate: 1e-2,
    };
    let fitted = tip_adapter::train(&spec, &case.inputs(), &mut *go_on()).unwrap().unwrap();
    let golden = case.check("tip_adapter_f", &fitted);
    let &Classifier::TipAdapterF { alpha, beta, .. } = fitted.trained.classifier() else { panic!() };
    assert_setting("alpha", alpha, &golden);
    assert_setting("beta", beta, &golden);
}

#[test]
fn cafo_equals_the_reference() {
    let mut case = Case::new(false);
    let golden = Golden::open("methods", "cafo");
    let generated = TrainingFeatures {
        train: golden.floats("generated"),
        train_labels: labels(&golden, "generated_labels"),
        ..case.cache.clone()
    };
    case.cache = case.cache.joined(&generated);
    let spec = CafoSpec {
        generated_per_class: Some(3),
        alpha: ALPHA.to_vec(),
        beta: vec![1.0, 5.5, 20.0],
        training: training(8, 1e-2),
    };
    let fitted = tip_adapter::train_cafo(&spec, &case.inputs(), &mut *go_on()).unwrap().unwrap();
    let golden = case.check("cafo", &fitted);
    let &Classifier::Cache { alpha, beta, .. } = fitted.trained.classifier() else { panic!() };
    assert_setting("alpha", alpha, &golden);
    assert_setting("beta", beta, &golden);
}

#[test]
fn gda_equals_the_reference() {
    let case = Case::new(false);
    let spec = GdaSpec { alpha: vec![1e-4, 1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0] };
    let fitted = gda::fit(&spec, &case.inputs()).unwrap();
    let golden = case.check("gda", &fitted);
    assert_setting("alpha", fitted.settings["alpha"], &golden);
}

#[test]
fn clap_equals_the_reference() {
    let case = Case::new(false);
    let spec = ClapSpec { training: training(12, 0.1) };
    let fitted = clap::train(&spec, &case.inputs(), case.text(), &mut *go_on()).unwrap().unwrap();
    case.check("clap", &fitted);
}

#[test]
fn taskres_equals_the_reference() {
    let case = Case::new(false);
    let spec = TaskResSpec { residual_scale: vec![0.5, 1.0], training: training(12, 3e-2) };
    let fitted = task_res::train(&spec, &case.inputs(), case.text(), &mut *go_on()).unwrap().unwrap();
    let golden = case.check("task_res", &fitted);
    assert_setting("residual_scale", fitted.settings["residual_scale"], &golden);
}

#[test]
fn clip_adapter_equals_the_reference() {
    let case = Case::new(false);
    let golden = Golden::open("methods", "clip_adapter");
    let layer = |name: &str, columns| Linear {
        weight: Param::from_tensor(matrix(&golden, name, columns).transpose()),
        bias: None,
    };
    let layers = [layer("down", 16), layer("up", 4)];
    let spec = ClipAdapterSpec { reduction: 4, ratio: vec![0.2, 0.5, 0.8], training: training(12, 0.05) };
    let fitted = clip_adapter::train(&spec, &case.inputs(), &layers, &mut *go_on()).unwrap().unwrap();
    let golden = case.check("clip_adapter", &fitted);
    let &Classifier::ClipAdapter { ratio, .. } = fitted.trained.classifier() else { panic!() };
    assert_setting("ratio", ratio, &golden);
}

#[test]
fn prolip_equals_the_reference() {
    let case = Case::new(true);
    let weight = Param::from_tensor(matrix(&case.golden, "projection", 24).transpose());
    let projection = Linear { weight, bias: None };
    let spec = ProLipSpec { penalty: Penalty::InverseShots, learning_rate: vec![1e-3, 1e-2], epochs: 20 };
    let fitted = prolip::train(&spec, &case.inputs(), &projection, &mut *go_on()).unwrap().unwrap();
    let golden = case.check("prolip", &fitted);
    assert_setting("learning_rate", fitted.settings["learning_rate"], &golden);
    assert_eq!(fitted.settings["penalty"], 0.25);
}

#[test]
fn ape_equals_the_reference() {
    let case = Case::new(false);
    let spec = ApeSpec {
        channels: ChannelSpec { count: 10, similarity_weight: 0.7, variance_weight: 0.3 },
        alpha: ALPHA.to_vec(),
        beta: vec![1.0, 5.5],
        gamma: vec![0.3, 0.1, 0.6],
    };
    let fitted = ape::fit(&spec, &case.inputs()).unwrap();
    let golden = case.check("ape", &fitted);
    assert_setting("gamma", fitted.settings["gamma"], &golden);
}

#[test]
fn ape_t_equals_the_reference() {
    let case = Case::new(false);
    let spec = ApeTSpec {
        channels: ChannelSpec { count: 12, similarity_weight: 0.2, variance_weight: 0.8 },
        initial_alpha: 2.0,
        initial_beta: 1.0,
        alpha: ALPHA.to_vec(),
        beta: vec![1.0, 5.5],
        training: training(8, 1e-2),
    };
    let fitted = ape_t::train(&spec, &case.inputs(), &mut *go_on()).unwrap().unwrap();
    case.check("ape_t", &fitted);
}

#[test]
fn lp_plus_plus_equals_the_reference() {
    let case = Case::new(false);
    let fitted =
        lp_plus_plus::train(&LpPlusPlusSpec { epochs: 60 }, &case.inputs(), &mut *go_on()).unwrap().unwrap();
    case.check("lp_plus_plus", &fitted);
}
