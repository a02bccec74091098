//! The noise of a generated sample, a function of what the sample is and of nothing else.
//!
//! # Derivation
//!
//! 1. Key: 32 bytes, `seed` (8 bytes) ‖ `class_id` (4) ‖ `prompt_index` (4) ‖ `sample_index` (4) ‖ `b"latent-noise"` (12),
//!    numbers little-endian.
//! 2. Bits: the ChaCha20 key stream of that key from block 0 (counter of 64 bits), read as little-endian u64. Its nonce of
//!    64 bits is 0 for the starting noise and 1 + i for the noise that a sampler adds in step i.
//! 3. Numbers: the next two words `a`, `b` give u₁ = ((a >> 11) + 1) · 2⁻⁵³ in (0, 1] and u₂ = (b >> 11) · 2⁻⁵³ in [0, 1);
//!    Box and Muller's r = √(-2 ln u₁) gives r·cos(2π u₂) and r·sin(2π u₂), in f64, rounded to f32. Of an odd count
//!    the last sine is dropped.
//!
//! So batch size, shard, order, restart and device cannot change a sample's noise. Logarithm, sine and cosine are the
//! platform's f64 functions: two platforms may differ in the last bit of a rare f32.

use rand_chacha::ChaCha20Rng;
use rand_core::{Rng, SeedableRng};
use std::f64::consts::TAU;

/// Sets this use of ChaCha20 apart from any other with the same numbers.
const DOMAIN: &[u8; 12] = b"latent-noise";

/// 2⁻⁵³, the spacing of f64 below 1.
const ULP: f64 = 1.0 / (1_u64 << 53) as f64;

/// Standard normal starting noise of one sample, `shape` = `[C, H, W]` in row-major order.
pub fn noise(seed: u64, class_id: u32, prompt_index: u32, sample_index: u32, shape: [usize; 3]) -> Vec<f32> {
    normal(key(seed, class_id, prompt_index, sample_index), 0, shape)
}

/// Standard normal noise that a sampler adds to one sample in step `step_index`; else as [`noise`].
pub fn step_noise(
    seed: u64,
    class_id: u32,
    prompt_index: u32,
    sample_index: u32,
    step_index: usize,
    shape: [usize; 3],
) -> Vec<f32> {
    normal(key(seed, class_id, prompt_index, sample_index), 1 + step_index as u64, shape)
}

fn key(seed: u64, class_id: u32, prompt_index: u32, sample_index: u32) -> [u8; 32] {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..12].copy_from_slice(&class_id.to_le_bytes());
    key[12..16].copy_from_slice(&prompt_index.to_le_bytes());
    key[16..20].copy_from_slice(&sample_index.to_le_bytes());
    key[20..].copy_from_slice(DOMAIN);
    key
}

fn normal(key: [u8; 32], nonce: u64, shape: [usize; 3]) -> Vec<f32> {
    let mut stream = ChaCha20Rng::from_seed(key);
    stream.set_stream(nonce);
    let count = shape.iter().product::<usize>();
    let mut values = Vec::with_capacity(count + 1);
    while values.len() < count {
        let u1 = ((stream.next_u64() >> 11) + 1) as f64 * ULP;
        let u2 = (stream.next_u64() >> 11) as f64 * ULP;
        let radius = (-2.0 * u1.ln()).sqrt();
        let (sin, cos) = (TAU * u2).sin_cos();
        values.extend([(radius * cos) as f32, (radius * sin) as f32]);
    }
    values.truncate(count);
    values
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of an independent program written from the derivation above.
    #[test]
    fn values_are_those_of_the_documented_derivation() {
        let expected = [
            -0.708_768_6,
            0.156_244,
            0.470_542_07,
            -0.076_131_87,
            -1.166_891_8,
            0.259_276_7,
            -0.304_724_13,
            -1.183_689_6,
            -0.189_667_36,
            -1.307_690_6,
            -0.219_224_81,
            1.514_571_9_f32,
        ];
        let close = |found: &[f32], expected: &[f32]| {
            found.iter().zip(expected).all(|(a, b)| (a - b).abs() <= 2e-7 * b.abs())
        };
        let found = noise(42, 3, 1, 2, [1, 3, 4]);
        assert!(close(&found, &expected), "{found:?}");
        let found = noise(u64::MAX, u32::MAX, 0, 7, [1, 1, 3]);
        assert!(close(&found, &[-0.698_381_4, -0.657_928_9, -0.520_341_2]), "{found:?}");
        let found = &noise(42, 3, 1, 2, [1, 10, 100])[997..];
        assert!(close(found, &[-1.916_407_8, -0.989_212_06, 1.101_989]), "{found:?}");
    }

    #[test]
    fn any_part_of_the_identity_changes_every_value() {
        let base = noise(1, 2, 3, 4, [1, 2, 3]);
        let others = [
            noise(0, 2, 3, 4, [1, 2, 3]),
            noise(1, 0, 3, 4, [1, 2, 3]),
            noise(1, 2, 0, 4, [1, 2, 3]),
            noise(1, 2, 3, 0, [1, 2, 3]),
        ];
        for other in others {
            assert!(base.iter().zip(&other).all(|(a, b)| a != b), "{base:?} {other:?}");
        }
    }

    #[test]
    fn the_noise_of_each_step_is_another() {
        let draws: Vec<_> = std::iter::once(noise(1, 2, 3, 4, [1, 2, 3]))
            .chain((0..3).map(|step| step_noise(1, 2, 3, 4, step, [1, 2, 3])))
            .collect();
        for (i, a) in draws.iter().enumerate() {
            for b in &draws[i + 1..] {
                assert!(a.iter().zip(b).all(|(a, b)| a != b), "{a:?} {b:?}");
            }
        }
        assert_ne!(step_noise(1, 2, 3, 4, 0, [1, 2, 3]), step_noise(1, 2, 3, 5, 0, [1, 2, 3]));
    }

    #[test]
    fn a_sample_is_the_same_in_any_order_and_any_batch() {
        let shape = [4, 8, 8];
        let forward: Vec<_> = (0..6).map(|i| noise(7, i / 3, i % 3, i, shape)).collect();
        let backward: Vec<_> = (0..6).rev().map(|i| noise(7, i / 3, i % 3, i, shape)).collect();
        assert!(forward.iter().eq(backward.iter().rev()));
        // A smaller latent is a prefix: the count alone decides where the stream ends.
        assert_eq!(noise(7, 0, 0, 0, [1, 3, 5]), forward[0][..15]);
        assert!(noise(7, 0, 0, 0, [0, 3, 5]).is_empty());
    }

    #[test]
    fn values_have_the_moments_of_a_standard_normal() {
        let values: Vec<f64> =
            (0..100).flat_map(|i| noise(11, 0, 0, i, [4, 50, 50])).map(f64::from).collect();
        let count = values.len() as f64; // a million
        let moment = |power: i32| values.iter().map(|v| v.powi(power)).sum::<f64>() / count;
        // Five standard errors: the variance of the power of a normal over the count.
        for (power, expected, variance) in [(1, 0.0, 1.0), (2, 1.0, 2.0), (3, 0.0, 15.0), (4, 3.0, 96.0_f64)]
        {
            let bound = 5.0 * (variance / count).sqrt();
            assert!((moment(power) - expected).abs() < bound, "moment {power}: {}", moment(power));
        }
        let neighbours = values.windows(2).map(|w| w[0] * w[1]).sum::<f64>() / count;
        assert!(neighbours.abs() < 5.0 / count.sqrt(), "{neighbours}");
    }
}
