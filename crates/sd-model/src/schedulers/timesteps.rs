//! Which training timesteps the denoising steps visit, from noisy to clean.

use super::Scheduler;
use crate::config::{SchedulerClass, TimestepSpacing};

impl Scheduler {
    /// How the timesteps are spread.
    pub(super) fn timestep_spacing(&self) -> TimestepSpacing {
        self.config.timestep_spacing.unwrap_or(match self.class {
            SchedulerClass::Ddim | SchedulerClass::Pndm | SchedulerClass::Lcm => TimestepSpacing::Leading,
            SchedulerClass::Euler | SchedulerClass::EulerAncestral | SchedulerClass::DpmSolverMultistep => {
                TimestepSpacing::Linspace
            }
        })
    }

    /// The timesteps of `count` steps, not checked against the schedule. `count` must not be 0.
    pub(super) fn spaced_timesteps(&self, count: usize) -> Vec<f64> {
        let total = self.config.num_train_timesteps();
        if self.class == SchedulerClass::Lcm {
            return self.distilled_timesteps(count);
        }
        let offset = self.config.steps_offset.unwrap_or(0);
        // DPM-Solver spreads one timestep more and leaves out the cleanest.
        let spread = if self.class == SchedulerClass::DpmSolverMultistep { count + 1 } else { count };
        let first = spread - count;
        match self.timestep_spacing() {
            TimestepSpacing::Leading => {
                let stride = total / spread;
                (first..spread).rev().map(|i| (i * stride + offset) as f64).collect()
            }
            TimestepSpacing::Trailing => {
                // `numpy.arange(total, 0, -total / count)` counts by the difference of its first two values.
                let total = total as f64;
                let delta = (total - total / count as f64) - total;
                (0..count).map(|i| ((total + i as f64 * delta).round_ties_even() - 1.0).max(0.0)).collect()
            }
            TimestepSpacing::Linspace if spread == 1 => vec![0.0],
            TimestepSpacing::Linspace => {
                let stride = (total - 1) as f64 / (spread - 1) as f64;
                let place = |i: usize| i as f64 * stride;
                let is_whole = !matches!(self.class, SchedulerClass::Euler | SchedulerClass::EulerAncestral);
                // The rounding of numpy, which diffusers uses: halves go to the even neighbour.
                (first..spread)
                    .rev()
                    .map(|i| if is_whole { place(i).round_ties_even() } else { place(i) })
                    .collect()
            }
        }
    }

    /// About evenly spaced members of the timesteps that a consistency model was distilled at.
    fn distilled_timesteps(&self, count: usize) -> Vec<f64> {
        let original = self.config.original_inference_steps.unwrap_or(50);
        let stride = self.config.num_train_timesteps() / original;
        (0..count)
            .map(|i| (i as f64 * (original as f64 / count as f64)).floor() as usize)
            .map(|index| ((original - index) * stride - 1) as f64)
            .collect()
    }

    /// Whether `count` steps visit only timesteps of the schedule, and none twice.
    pub(super) fn fits(&self, count: usize) -> bool {
        let total = self.config.num_train_timesteps();
        if self.class == SchedulerClass::Lcm {
            return (1..=self.config.original_inference_steps.unwrap_or(50)).contains(&count);
        }
        let inside = |timesteps: &[f64]| {
            timesteps.iter().all(|&t| t < total as f64) && timesteps.is_sorted_by(|a, b| a > b)
        };
        (1..=total).contains(&count) && inside(&self.spaced_timesteps(count))
    }
}
