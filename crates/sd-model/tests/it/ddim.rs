//! The noise schedule, and DDIM with its fresh noise and clipping, against diffusers.
//!
//! diffusers multiplies 1000 alphas in f32, we in f64: their product differs in the sixth digit, and a step divides by its
//! root, which is as small as 0.07. Hence 1e-4 times the size of the values.

use burn::tensor::Tensor;
use sd_model::{Error, Scheduler, SchedulerClass, SchedulerConfig};
use serde_json::Value;

use crate::golden::{Golden, assert_close, path};

struct Case {
    config: SchedulerConfig,
    num_inference_steps: usize,
    eta: f64,
    timesteps: Vec<f64>,
}

fn cases(list: &str) -> Vec<Case> {
    let text = std::fs::read_to_string(path("ddim.json")).unwrap();
    let value: Value = serde_json::from_str(&text).unwrap();
    let case = |case: &Value| Case {
        config: serde_json::from_value(case["config"].clone()).unwrap(),
        num_inference_steps: serde_json::from_value(case["num_inference_steps"].clone()).unwrap(),
        eta: case["eta"].as_f64().unwrap_or(0.0),
        timesteps: serde_json::from_value(case["timesteps"].clone()).unwrap(),
    };
    value[list].as_array().unwrap().iter().map(case).collect()
}

fn ddim(config: &SchedulerConfig) -> Scheduler {
    Scheduler::new(SchedulerClass::Ddim, config.clone()).unwrap()
}

#[test]
fn timesteps_of_all_spacings_match_diffusers() {
    let cases = cases("spacings");
    assert!(cases.len() > 50);
    for case in cases {
        let run = ddim(&case.config).start(case.num_inference_steps).unwrap();
        assert_eq!(run.timesteps(), case.timesteps, "{:?} {}", case.config, case.num_inference_steps);
    }
}

#[test]
fn every_step_matches_diffusers() {
    let device = backend::test_device();
    let golden = Golden::open("ddim.safetensors", &device);
    for (index, case) in cases("cases").into_iter().enumerate() {
        let tensor = |name: &str| golden.tensor::<5>(&format!("{index}.{name}"));
        let row = |name: &str, step: usize| tensor(name).narrow(0, step, 1).squeeze_dim::<4>(0);
        let mut run = ddim(&case.config).with_eta(case.eta).start(case.num_inference_steps).unwrap();
        let mut sample = golden.tensor::<4>(&format!("{index}.sample"));
        for step in 0..case.timesteps.len() {
            assert_eq!(run.needs_noise(), case.eta != 0.0);
            sample = run.step(row("outputs", step), sample, Some(row("noise", step)));
            let expected = row("steps", step);
            let size = expected.clone().abs().max().into_scalar::<f32>().max(1.0);
            assert_close(&format!("case {index} step {step}"), sample.clone(), expected, 1e-4 * size);
        }
    }
}

#[test]
fn schedule_noise_and_velocity_match_diffusers() {
    let device = backend::test_device();
    let golden = Golden::open("ddim.safetensors", &device);
    for (index, case) in cases("cases").into_iter().enumerate() {
        let name = |part: &str| format!("{index}.{part}");
        let scheduler = ddim(&case.config);
        let (expected, _) = golden.values(&name("alphas_cumprod"));
        for (found, expected) in scheduler.alphas_cumprod().iter().zip(&expected) {
            assert!((found - f64::from(*expected)).abs() <= 1e-6, "case {index}: {found} {expected}");
        }
        let timesteps = [3, case.config.num_train_timesteps() - 1];
        let sample = golden.tensor::<4>(&name("sample"));
        let noise: Tensor<4> = golden.tensor::<5>(&name("noise")).narrow(0, 0, 1).squeeze_dim(0);
        // The share of noise of the first timesteps is a difference of nearly equal f32 numbers in diffusers.
        let noisy = scheduler.add_noise(sample.clone(), noise.clone(), &timesteps);
        assert_close(&name("noisy"), noisy, golden.tensor(&name("noisy")), 1e-4);
        let velocity = scheduler.velocity(sample, noise, &timesteps);
        assert_close(&name("velocity"), velocity, golden.tensor(&name("velocity")), 1e-4);
    }
}

#[test]
fn the_true_noise_leads_back_to_the_clean_latent() {
    let device = backend::test_device();
    let golden = Golden::open("ddim.safetensors", &device);
    let (sample, noise) = (golden.tensor::<4>("0.sample"), golden.tensor::<4>("1.sample"));
    let config =
        SchedulerConfig { clip_sample: Some(false), steps_offset: Some(900), ..SchedulerConfig::default() };
    let scheduler = ddim(&config);
    let noisy = scheduler.add_noise(sample.clone(), noise.clone(), &[900, 900]);
    let back = scheduler.start(1).unwrap().step(noise, noisy, None);
    // The clean share at timestep 900 is about 0.02: rounding errors of f32 are magnified fifty times.
    assert_close("round trip", back, sample, 1e-4);
}

#[test]
fn a_step_count_outside_the_schedule_is_refused() {
    let scheduler = ddim(&SchedulerConfig { steps_offset: Some(1), ..SchedulerConfig::default() });
    for (steps, limit) in [(0, 999), (1000, 999), (5000, 999)] {
        match scheduler.start(steps) {
            Err(Error::NumInferenceSteps { found, limit: l, .. }) => assert_eq!((found, l), (steps, limit)),
            other => panic!("{steps}: {other:?}"),
        }
    }
    assert_eq!(scheduler.start(999).unwrap().timesteps().len(), 999);
}
