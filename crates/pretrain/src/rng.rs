//! Random numbers as a function of seed, purpose and step.
//!
//! No generator is carried from step to step, so a resumed run needs no generator state: step n draws the same numbers
//! whether or not the run was interrupted before it.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};
use std::f64::consts::TAU;

/// What a stream of random numbers is for; streams of different purposes are independent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Which images a batch holds, and their captions.
    Batch,
    /// How images are changed.
    Augment,
    /// Noise and timesteps.
    Noise,
    /// The changed copies whose latents the UNet is trained on.
    Latents,
}

/// The random numbers of one purpose in one step: a ChaCha8 key stream.
///
/// Key: seed (8 bytes, little-endian), the purpose's number (8 bytes), `b"pretrain"` twice; stream: the step.
#[derive(Debug, Clone)]
pub struct StepRng(ChaCha8Rng);

impl StepRng {
    /// The stream of one step.
    pub fn new(seed: u64, purpose: Purpose, step: u64) -> Self {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&seed.to_le_bytes());
        key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
        key[16..24].copy_from_slice(b"pretrain");
        key[24..].copy_from_slice(b"pretrain");
        let mut stream = ChaCha8Rng::from_seed(key);
        stream.set_stream(step);
        Self(stream)
    }

    /// Uniform in 0 (included) to 1 (excluded).
    pub fn uniform(&mut self) -> f32 {
        (self.0.next_u32() >> 8) as f32 * (1.0 / (1_u32 << 24) as f32)
    }

    /// Uniform in `low..high`.
    pub fn between(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.uniform()
    }

    /// Uniform in `0..count`; 0 if `count` is 0. The bias is below `count` / 2⁶⁴.
    pub fn below(&mut self, count: usize) -> usize {
        ((u128::from(self.0.next_u64()) * count as u128) >> 64) as usize
    }

    /// True with this probability.
    pub fn chance(&mut self, probability: f32) -> bool {
        self.uniform() < probability
    }

    /// Standard normal numbers (Box and Muller).
    pub fn normal(&mut self, count: usize) -> Vec<f32> {
        let ulp = 1.0 / (1_u64 << 53) as f64;
        let mut values = Vec::with_capacity(count + 1);
        while values.len() < count {
            let u1 = ((self.0.next_u64() >> 11) + 1) as f64 * ulp;
            let u2 = (self.0.next_u64() >> 11) as f64 * ulp;
            let radius = (-2.0 * u1.ln()).sqrt();
            let (sin, cos) = (TAU * u2).sin_cos();
            values.extend([(radius * cos) as f32, (radius * sin) as f32]);
        }
        values.truncate(count);
        values
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_draws_the_same_numbers_whatever_came_before() {
        let mut first = StepRng::new(1, Purpose::Batch, 7);
        let numbers = first.normal(5);
        StepRng::new(1, Purpose::Batch, 6).normal(100);
        assert_eq!(StepRng::new(1, Purpose::Batch, 7).normal(5), numbers);
        assert_ne!(StepRng::new(1, Purpose::Batch, 8).normal(5), numbers);
        assert_ne!(StepRng::new(1, Purpose::Augment, 7).normal(5), numbers);
        assert_ne!(StepRng::new(2, Purpose::Batch, 7).normal(5), numbers);
    }

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let numbers = StepRng::new(3, Purpose::Noise, 0).normal(20_000);
        let mean = numbers.iter().sum::<f32>() / 20_000.0;
        let variance = numbers.iter().map(|x| x * x).sum::<f32>() / 20_000.0;
        // four standard errors: 1/sqrt(n) of the mean, sqrt(2/n) of the variance
        assert!(mean.abs() < 0.029 && (variance - 1.0).abs() < 0.041, "{mean} {variance}");
    }

    #[test]
    fn below_stays_below_and_reaches_all() {
        let mut rng = StepRng::new(4, Purpose::Batch, 0);
        let mut seen = [0; 5];
        (0..500).for_each(|_| seen[rng.below(5)] += 1);
        assert!(seen.iter().all(|&n| n > 50), "{seen:?}");
        assert_eq!(rng.below(0), 0);
    }
}
