//! Every sampler against diffusers, step by step.
//!
//! diffusers keeps alphas and noise levels in f32, we in f64: they differ in the sixth digit, and a step may divide by the
//! root of a share as small as 0.07. Hence 1e-4 times the size of the values, 1e-3 where the schedule is rescaled to zero
//! signal: its first steps multiply by up to 4096.

use burn::tensor::Tensor;
use sd_model::{Scheduler, SchedulerClass, SchedulerConfig};
use serde::Deserialize;

use crate::golden::{Golden, assert_close, path};

#[derive(Deserialize)]
struct Case {
    class: SchedulerClass,
    config: SchedulerConfig,
    num_inference_steps: usize,
    timesteps: Vec<f64>,
    init_noise_sigma: f64,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(&std::fs::read_to_string(path("schedulers.json")).unwrap()).unwrap()
}

/// The network of `schedulers.py`.
fn network(sample: Tensor<4>, timestep: f64) -> Tensor<4> {
    sample.clone() * 0.4 + sample.flip([3]) * 0.2 - 0.0003 * timestep
}

#[test]
fn every_step_of_every_sampler_matches_diffusers() {
    let device = backend::test_device();
    let golden = Golden::open("schedulers.safetensors", &device);
    for (index, case) in cases().into_iter().enumerate() {
        let row = |name: &str, step: usize| {
            golden.tensor::<5>(&format!("{index}.{name}")).narrow(0, step, 1).squeeze_dim::<4>(0)
        };
        let what = format!("{index} {} {} steps", case.class.name(), case.num_inference_steps);
        let tolerance = if case.config.rescale_betas_zero_snr == Some(true) { 1e-3 } else { 1e-4 };
        let mut run =
            Scheduler::new(case.class, case.config).unwrap().start(case.num_inference_steps).unwrap();
        assert_eq!(run.timesteps().len(), case.timesteps.len(), "{what}");
        for (found, expected) in run.timesteps().iter().zip(&case.timesteps) {
            // Whole timesteps are equal; others are interpolated from f32 noise levels.
            let close = if expected.fract() == 0.0 { 1e-9 } else { 2e-3 };
            assert!((found - expected).abs() <= close, "{what}: timestep {found}, expected {expected}");
        }
        let relative = (run.init_noise_sigma() / case.init_noise_sigma - 1.0).abs();
        assert!(relative <= tolerance, "{what}: {} {}", run.init_noise_sigma(), case.init_noise_sigma);
        let mut sample = golden.tensor::<4>(&format!("{index}.start")) * run.init_noise_sigma();
        for (step, timestep) in run.timesteps().to_vec().into_iter().enumerate() {
            let size = |t: &Tensor<4>| t.clone().abs().max().into_scalar::<f32>().max(1.0);
            let input = run.scale_model_input(sample.clone());
            let expected = row("inputs", step);
            let bound = tolerance as f32 * size(&expected);
            assert_close(&format!("{what}, input {step}"), input.clone(), expected, bound);
            let noise = run.needs_noise().then(|| row("noise", step));
            sample = run.step(network(input, timestep), sample, noise);
            let expected = row("steps", step);
            let bound = tolerance as f32 * size(&expected);
            assert_close(&format!("{what}, step {step}"), sample.clone(), expected, bound);
        }
    }
}

#[test]
fn every_class_prediction_type_and_spacing_is_compared() {
    let cases = cases();
    for class in ["DDIM", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "LCM"] {
        let of_class: Vec<_> =
            cases.iter().filter(|c| c.class.name() == format!("{class}Scheduler")).collect();
        let predictions: std::collections::BTreeSet<_> =
            of_class.iter().map(|c| format!("{:?}", c.config.prediction_type())).collect();
        // diffusers has no sample prediction for these two.
        let expected = if matches!(class, "PNDM" | "EulerAncestralDiscrete") { 2 } else { 3 };
        assert_eq!(predictions.len(), expected, "{class}");
        let spacings: std::collections::BTreeSet<_> =
            of_class.iter().filter_map(|c| c.config.timestep_spacing.map(|s| format!("{s:?}"))).collect();
        assert_eq!(spacings.len(), if class == "LCM" { 0 } else { 3 }, "{class}");
    }
}

#[test]
fn a_class_reads_the_file_of_another_with_its_own_defaults() {
    // The file of Stable Diffusion 2.1-base.
    let file = r#"{"_class_name": "PNDMScheduler", "beta_end": 0.012, "beta_schedule": "scaled_linear",
        "beta_start": 0.00085, "clip_sample": false, "num_train_timesteps": 1000, "prediction_type": "epsilon",
        "set_alpha_to_one": false, "skip_prk_steps": true, "steps_offset": 1, "trained_betas": null}"#;
    let config: SchedulerConfig = serde_json::from_str(file).unwrap();
    let pndm = Scheduler::new(config.class().unwrap(), config).unwrap();
    assert_eq!(pndm.class(), SchedulerClass::Pndm);
    let first = |scheduler: &Scheduler| scheduler.start(10).unwrap().timesteps()[..2].to_vec();
    assert_eq!(first(&pndm), [901.0, 801.0]);
    assert_eq!(first(&pndm.with_class(SchedulerClass::Ddim).unwrap()), [901.0, 801.0]);
    assert_eq!(first(&pndm.with_class(SchedulerClass::Euler).unwrap()), [999.0, 888.0]);
    assert_eq!(first(&pndm.with_class(SchedulerClass::DpmSolverMultistep).unwrap()), [999.0, 899.0]);
    assert_eq!(first(&pndm.with_class(SchedulerClass::Lcm).unwrap()), [999.0, 899.0]);
}

#[test]
fn what_a_class_cannot_do_is_refused() {
    let refused = |class: SchedulerClass, json: &str, field: &str| {
        let config: SchedulerConfig = serde_json::from_str(json).unwrap();
        let error = Scheduler::new(class, config).unwrap_err().to_string();
        assert!(error.contains(&format!("`{}`: field `{field}`: expected", class.name())), "{error}");
    };
    refused(SchedulerClass::Pndm, r#"{"prediction_type": "sample"}"#, "prediction_type");
    let zero = r#"{"rescale_betas_zero_snr": true}"#;
    refused(SchedulerClass::Pndm, zero, "rescale_betas_zero_snr");
    refused(SchedulerClass::Ddim, zero, "prediction_type");
    refused(SchedulerClass::Lcm, zero, "prediction_type");
    let config: SchedulerConfig =
        serde_json::from_str(r#"{"_class_name": "HeunDiscreteScheduler"}"#).unwrap();
    let error = config.class().unwrap_err().to_string();
    assert!(error.contains("field `_class_name`") && error.contains("HeunDiscreteScheduler"), "{error}");
    let limit = |class: SchedulerClass, steps: usize| {
        Scheduler::new(class, SchedulerConfig::default()).unwrap().start(steps).unwrap_err().to_string()
    };
    assert!(limit(SchedulerClass::Lcm, 51).contains("expected 1 to 50"));
    assert!(limit(SchedulerClass::DpmSolverMultistep, 1000).contains("expected 1 to 999"));
    assert!(limit(SchedulerClass::Euler, 1001).contains("expected 1 to 1000"));
}
