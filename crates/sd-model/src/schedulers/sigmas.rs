//! Noise levels as Karras et al., 2022 (arXiv 2206.00364) count them: sigma = √(1-ᾱ) / √ᾱ.

use super::Scheduler;
use crate::config::{BetaSchedule, FinalSigmas, SchedulerClass};

/// Curvature of the spread of arXiv 2206.00364, equation 5.
const RHO: f64 = 7.0;

/// Timesteps and noise levels of one run.
pub(super) struct Sigmas {
    /// One for each step.
    pub(super) timesteps: Vec<f64>,
    /// The noise level at each step, and the one that the last step leads to.
    pub(super) sigmas: Vec<f64>,
}

impl Scheduler {
    /// Timesteps and noise levels of `count` steps.
    pub(super) fn sigmas(&self, count: usize) -> Sigmas {
        let all: Vec<f64> = self.alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        let mut timesteps = self.spaced_timesteps(count);
        let mut sigmas: Vec<f64> = timesteps.iter().map(|&t| interpolate(&all, t)).collect();
        let is_dpm = self.class == SchedulerClass::DpmSolverMultistep;
        // As in diffusers Euler spreads between the ends of its own timesteps, DPM-Solver over the whole schedule.
        if self.config.use_karras_sigmas == Some(true) && self.class != SchedulerClass::EulerAncestral {
            let (largest, smallest) = match is_dpm {
                true => (all[all.len() - 1], all[0]),
                false => (sigmas[0], sigmas[count - 1]),
            };
            sigmas = karras(largest, smallest, count);
            let is_cosine = self.config.beta_schedule == Some(BetaSchedule::SquaredcosCapV2);
            let whole = |t: f64| if is_cosine { t.floor() } else { t.round_ties_even() };
            let places = sigmas.iter().map(|&sigma| timestep_of(&all, sigma));
            timesteps = places.map(|t| if is_dpm { whole(t) } else { t }).collect();
        }
        sigmas.push(match self.config.final_sigmas_type {
            Some(FinalSigmas::SigmaMin) if self.class != SchedulerClass::EulerAncestral => all[0],
            _ => 0.0,
        });
        Sigmas { timesteps, sigmas }
    }
}

/// The value between the entries of `all` at a place that need not be whole.
fn interpolate(all: &[f64], place: f64) -> f64 {
    let low = (place.floor() as usize).min(all.len() - 1);
    let high = (low + 1).min(all.len() - 1);
    all[low] + (all[high] - all[low]) * (place - low as f64)
}

/// `count` noise levels, evenly spaced in their seventh root (arXiv 2206.00364, equation 5).
fn karras(largest: f64, smallest: f64, count: usize) -> Vec<f64> {
    let (start, end) = (largest.powf(1.0 / RHO), smallest.powf(1.0 / RHO));
    let ramp = |i: usize| if count > 1 { i as f64 / (count - 1) as f64 } else { 0.0 };
    (0..count).map(|i| (start + ramp(i) * (end - start)).powf(RHO)).collect()
}

/// The timestep whose noise level is `sigma`, interpolated in the logarithm.
fn timestep_of(all: &[f64], sigma: f64) -> f64 {
    let log = sigma.max(1e-10).ln();
    let low = all.partition_point(|level| level.ln() <= log).saturating_sub(1).min(all.len() - 2);
    let (below, above) = (all[low].ln(), all[low + 1].ln());
    low as f64 + ((log - below) / (above - below)).clamp(0.0, 1.0)
}
