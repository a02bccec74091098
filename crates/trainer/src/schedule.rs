//! The learning rate of each step.

use pipeline_spec::spec::OptimizerSpec;
use std::f64::consts::PI;

/// Learning rate at step `step` (from 0) of a pass repeated every epoch with `steps_per_epoch` steps.
///
/// Linear from 0 to the base rate over the warm-up's steps, both ends included, then a cosine to the minimum, as in the
/// BEiT family of recipes that FT-CLIP and the released code use. Both passes of an epoch use the same slice.
pub fn learning_rate(optimizer: &OptimizerSpec, steps_per_epoch: usize, step: usize) -> f64 {
    let warmup = optimizer.warmup_epochs as usize * steps_per_epoch;
    let total = optimizer.epochs as usize * steps_per_epoch;
    let base = optimizer.learning_rate;
    if step < warmup {
        return base * step as f64 / (warmup - 1).max(1) as f64;
    }
    cosine(base, optimizer.min_learning_rate, (step - warmup) as f64 / (total - warmup) as f64)
}

/// Half a cosine from `base` at `progress` 0 to `floor` at 1.
pub fn cosine(base: f64, floor: f64, progress: f64) -> f64 {
    floor + 0.5 * (base - floor) * (1.0 + (PI * progress).cos())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_warms_up_linearly_and_falls_as_a_cosine() {
        let optimizer = OptimizerSpec {
            epochs: 10,
            warmup_epochs: 2,
            batch_size: 1,
            micro_batch_size: None,
            learning_rate: 1e-3,
            min_learning_rate: 1e-6,
            weight_decay: 0.0,
            layer_decay: 1.0,
        };
        let rate = |step| learning_rate(&optimizer, 5, step);
        assert_eq!(rate(0), 0.0);
        assert!((rate(3) - 1e-3 / 3.0).abs() < 1e-18);
        assert_eq!(rate(9), 1e-3);
        assert_eq!(rate(10), 1e-3);
        assert!((rate(30) - (1e-6 + 0.5 * (1e-3 - 1e-6))).abs() < 1e-15);
        assert!(rate(49) > 1e-6 && rate(49) < 5e-6);
    }

    #[test]
    fn a_warm_up_of_one_step_starts_at_zero() {
        let optimizer = OptimizerSpec {
            epochs: 3,
            warmup_epochs: 1,
            batch_size: 1,
            micro_batch_size: None,
            learning_rate: 1.0,
            min_learning_rate: 0.0,
            weight_decay: 0.0,
            layer_decay: 1.0,
        };
        let rates: Vec<f64> = (0..3).map(|step| learning_rate(&optimizer, 1, step)).collect();
        assert_eq!(rates[..2], [0.0, 1.0]);
        assert!((rates[2] - 0.5).abs() < 1e-12);
    }
}
