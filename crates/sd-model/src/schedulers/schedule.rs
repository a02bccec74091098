//! The noise schedule: how much signal is left at each training timestep.

use std::f64::consts::FRAC_PI_2;

use crate::config::{BetaSchedule, SchedulerClass, SchedulerConfig};

/// Largest beta of the squared cosine schedule, and the bound of its last steps.
const MAX_BETA: f64 = 0.999;
/// Share of signal variance that the samplers in sigmas leave at the last timestep of a rescaled schedule, as diffusers
/// does: its sigma is 4096 instead of infinite.
const MIN_ALPHA_CUMPROD: f64 = 1.0 / (1_u64 << 24) as f64;

/// Cumulative product of 1 - beta of `config` as `class` reads it, one entry per training timestep.
pub(super) fn alphas_cumprod(class: SchedulerClass, config: &SchedulerConfig) -> Vec<f64> {
    let mut product = 1.0;
    let betas = betas(class, config).into_iter();
    let mut alphas: Vec<f64> = betas
        .map(|beta| {
            product *= 1.0 - beta;
            product
        })
        .collect();
    if config.rescale_betas_zero_snr == Some(true) {
        rescale_zero_terminal_snr(&mut alphas);
        if let (false, Some(last)) =
            (matches!(class, SchedulerClass::Ddim | SchedulerClass::Lcm), alphas.last_mut())
        {
            *last = MIN_ALPHA_CUMPROD;
        }
    }
    alphas
}

fn betas(class: SchedulerClass, config: &SchedulerConfig) -> Vec<f64> {
    let (start, end, schedule) = match class {
        SchedulerClass::Lcm => (0.00085, 0.012, BetaSchedule::ScaledLinear),
        _ => (0.0001, 0.02, BetaSchedule::Linear),
    };
    let (start, end) = (config.beta_start.unwrap_or(start), config.beta_end.unwrap_or(end));
    let count = config.num_train_timesteps();
    let between = |start: f64, end: f64, i: usize| start + (end - start) * i as f64 / (count - 1) as f64;
    let alpha_bar = |i: usize| ((i as f64 / count as f64 + 0.008) / 1.008 * FRAC_PI_2).cos().powi(2);
    let schedule = config.beta_schedule.unwrap_or(schedule);
    let beta = |i: usize| match schedule {
        BetaSchedule::Linear => between(start, end, i),
        BetaSchedule::ScaledLinear => between(start.sqrt(), end.sqrt(), i).powi(2),
        BetaSchedule::SquaredcosCapV2 => (1.0 - alpha_bar(i + 1) / alpha_bar(i)).min(MAX_BETA),
    };
    (0..count).map(beta).collect()
}

/// Shifts and scales √ᾱ so that the last is 0 and the first stays (arXiv 2305.08891, algorithm 1).
fn rescale_zero_terminal_snr(alphas_cumprod: &mut [f64]) {
    let (Some(&first), Some(&last)) = (alphas_cumprod.first(), alphas_cumprod.last()) else { return };
    let (first, last) = (first.sqrt(), last.sqrt());
    for alpha in alphas_cumprod {
        *alpha = ((alpha.sqrt() - last) * first / (first - last)).powi(2);
    }
}
