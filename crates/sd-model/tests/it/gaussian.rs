//! Every sampler on data whose solution is known: clean values from a normal distribution of mean 0.8 and deviation 0.6.
//!
//! Signal and noise at a timestep are √ᾱ and √(1-ᾱ), so noisy values are normal too, the expected noise in one is known,
//! and the probability flow keeps its standardized value: it leads noise z to mean + deviation·z.

use burn::tensor::{Tensor, TensorData};
use sd_model::{PredictionType, Scheduler, SchedulerClass, SchedulerConfig, noise, step_noise};

const MEAN: f64 = 0.8;
const DEVIATION: f64 = 0.6;

fn config() -> SchedulerConfig {
    serde_json::from_str(
        r#"{"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": false,
            "set_alpha_to_one": true}"#,
    )
    .unwrap()
}

/// Share of signal variance at a timestep that need not be whole, between the neighbours in the noise level.
fn alpha(scheduler: &Scheduler, timestep: f64) -> f64 {
    let alphas = scheduler.alphas_cumprod();
    let low = (timestep.floor() as usize).min(alphas.len() - 1);
    let high = (low + 1).min(alphas.len() - 1);
    let sigma = |a: f64| ((1.0 - a) / a).sqrt();
    let between = sigma(alphas[low]) + (sigma(alphas[high]) - sigma(alphas[low])) * timestep.fract();
    1.0 / (between * between + 1.0)
}

/// Mean and deviation of the noisy values.
fn noisy_moments(alpha: f64) -> (f64, f64) {
    (MEAN * alpha.sqrt(), (alpha * DEVIATION * DEVIATION + 1.0 - alpha).sqrt())
}

/// The expected noise, or velocity, in noisy values.
fn network(kind: PredictionType, noisy: Tensor<4>, alpha: f64) -> Tensor<4> {
    let (mean, deviation) = noisy_moments(alpha);
    let epsilon = (noisy.clone() - mean) * ((1.0 - alpha).sqrt() / (deviation * deviation));
    match kind {
        PredictionType::Epsilon => epsilon,
        PredictionType::VPrediction => (epsilon - noisy * (1.0 - alpha).sqrt()) / alpha.sqrt(),
        PredictionType::Sample => (noisy - epsilon * (1.0 - alpha).sqrt()) / alpha.sqrt(),
    }
}

/// Runs a sampler from the starting noise of `count` values; gives noise and result.
fn run(scheduler: &Scheduler, steps: usize, count: usize) -> (Vec<f64>, Vec<f64>) {
    let device = backend::test_device();
    let tensor =
        |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, [1, 1, 1, count]), &device);
    let shape = [1, 1, count];
    let start = noise(1, 0, 0, 0, shape);
    let mut run = scheduler.start(steps).unwrap();
    let mut sample = tensor(start.clone()) * run.init_noise_sigma();
    for (step, timestep) in run.timesteps().to_vec().into_iter().enumerate() {
        let input = run.scale_model_input(sample.clone());
        let output = network(scheduler.config().prediction_type(), input, alpha(scheduler, timestep));
        let noise = run.needs_noise().then(|| tensor(step_noise(1, 0, 0, 0, step, shape)));
        sample = run.step(output, sample, noise);
    }
    let found: Vec<f64> = sample.into_data().iter::<f64>().collect();
    (start.into_iter().map(f64::from).collect(), found)
}

/// Largest distance of the results to the solution of the probability flow.
fn distance(scheduler: &Scheduler, steps: usize) -> f64 {
    let (start, found) = run(scheduler, steps, 64);
    // The first timestep still has a little signal, of which the starting noise knows nothing.
    let first = alpha(scheduler, scheduler.start(steps).unwrap().timesteps()[0]);
    let (mean, deviation) = noisy_moments(first);
    let solution = |z: f64| MEAN + DEVIATION * (z - mean) / deviation;
    start.iter().zip(&found).map(|(&z, &x)| (solution(z) - x).abs()).fold(0.0, f64::max)
}

/// With many steps the distance must be small, and a fifth at most of that with few. diffusers has the same distances: the
/// rest comes from the last step, and from timesteps that are rounded while noise levels are not.
#[allow(clippy::print_stderr)]
fn converges(name: &str, scheduler: &Scheduler, many: usize) {
    let (few, many) = (distance(scheduler, 10), distance(scheduler, many));
    eprintln!("{name}: distance {few:.2e} with few steps, {many:.2e} with many");
    assert!(many <= 2e-2 && many <= few / 5.0, "{name}: {few} {many}");
}

#[test]
fn deterministic_samplers_converge_to_the_probability_flow() {
    for kind in [PredictionType::Epsilon, PredictionType::VPrediction, PredictionType::Sample] {
        let config = SchedulerConfig { prediction_type: Some(kind), ..config() };
        let karras = SchedulerConfig { use_karras_sigmas: Some(true), ..config.clone() };
        for (name, class, config, many) in [
            ("ddim", SchedulerClass::Ddim, &config, 1000),
            ("pndm", SchedulerClass::Pndm, &config, 1000),
            ("euler", SchedulerClass::Euler, &config, 1000),
            ("euler, karras", SchedulerClass::Euler, &karras, 1000),
            ("dpm-solver++ 2m", SchedulerClass::DpmSolverMultistep, &config, 400),
            ("dpm-solver++ 2m, karras", SchedulerClass::DpmSolverMultistep, &karras, 250),
        ] {
            if (class, kind) == (SchedulerClass::Pndm, PredictionType::Sample) {
                continue; // not in diffusers
            }
            let scheduler = Scheduler::new(class, config.clone()).unwrap();
            converges(&format!("{name}, {kind:?}"), &scheduler, many);
        }
    }
}

/// Mean and deviation of many results must be those of the data, to `bias` and four standard errors.
#[allow(clippy::print_stderr)]
fn has_moments(name: &str, found: &[f64], bias: f64) {
    let count = found.len() as f64;
    let mean = found.iter().sum::<f64>() / count;
    let deviation = (found.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count).sqrt();
    eprintln!("{name}: mean {mean:.4} of {MEAN}, deviation {deviation:.4} of {DEVIATION}");
    let error = DEVIATION / count.sqrt();
    assert!((mean - MEAN).abs() <= 4.0 * error + bias, "{name}: mean {mean}");
    assert!((deviation - DEVIATION).abs() <= 4.0 * error / 2.0_f64.sqrt() + bias, "{name}: {deviation}");
}

#[test]
fn samplers_that_add_noise_converge_in_distribution() {
    let count = 20_000;
    let ancestral = Scheduler::new(SchedulerClass::EulerAncestral, config()).unwrap();
    has_moments("euler ancestral, 500 steps", &run(&ancestral, 500, count).1, 5e-3);
    let ddpm = Scheduler::new(SchedulerClass::Ddim, config()).unwrap().with_eta(1.0);
    has_moments("ddim with eta 1, 1000 steps", &run(&ddpm, 1000, count).1, 5e-3);
}

#[test]
fn a_perfect_consistency_model_keeps_the_distribution_in_any_number_of_steps() {
    let device = backend::test_device();
    let count = 20_000;
    let tensor =
        |values: Vec<f32>| Tensor::<4>::from_data(TensorData::new(values, [1, 1, 1, count]), &device);
    let config = SchedulerConfig { prediction_type: Some(PredictionType::Sample), ..config() };
    let scheduler = Scheduler::new(SchedulerClass::Lcm, config).unwrap();
    for steps in [1, 2, 4, 25] {
        let mut run = scheduler.start(steps).unwrap();
        let mut sample = tensor(noise(2, 0, 0, 0, [1, 1, count]));
        for (step, timestep) in run.timesteps().to_vec().into_iter().enumerate() {
            let (mean, deviation) = noisy_moments(alpha(&scheduler, timestep));
            let output = (sample.clone() - mean) * (DEVIATION / deviation) + MEAN;
            let noise = run.needs_noise().then(|| tensor(step_noise(2, 0, 0, 0, step, [1, 1, count])));
            sample = run.step(output, sample, noise);
        }
        let found: Vec<f64> = sample.into_data().iter::<f64>().collect();
        // The first sample is noise alone, a little off the noisy data of its timestep.
        has_moments(&format!("lcm, {steps} steps"), &found, if steps == 1 { 0.06 } else { 5e-3 });
    }
}
