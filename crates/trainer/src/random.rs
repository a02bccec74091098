//! Named streams of random numbers on the host.
//!
//! Every draw of a run comes from a stream named by its seed, its purpose and where it stands (epoch, sample, ...), so
//! that batch size, thread count, device and a restart do not change it.

use rand_chacha::ChaCha8Rng;
use rand_core::{Rng, SeedableRng};

/// A stream of random numbers.
pub type Stream = ChaCha8Rng;

/// The stream of `seed` for `purpose` at `place`.
///
/// Its key is the BLAKE3 digest of the three; the lengths are part of it, so that no two places share a stream.
pub fn stream(seed: u64, purpose: &str, place: &[&str]) -> Stream {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&seed.to_le_bytes());
    for text in std::iter::once(&purpose).chain(place) {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    }
    Stream::from_seed(*hasher.finalize().as_bytes())
}

/// A uniform number in `[low, high)`.
pub fn uniform(rng: &mut impl Rng, low: f64, high: f64) -> f64 {
    low + flier_model::init::uniform(rng) * (high - low)
}

/// A uniform integer in `0..bound`, without bias.
///
/// # Panics
///
/// Panics if `bound` is 0.
pub fn below(rng: &mut impl Rng, bound: usize) -> usize {
    assert!(bound > 0, "a range has at least one number");
    let bound = bound as u64;
    let limit = u64::MAX - u64::MAX % bound;
    loop {
        let word = rng.next_u64();
        if word < limit {
            return (word % bound) as usize;
        }
    }
}

/// Shuffles in place (Fisher and Yates).
pub fn shuffle<T>(items: &mut [T], rng: &mut impl Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, below(rng, last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_differ_by_every_part_of_their_name() {
        let word = |seed, purpose, place: &[&str]| stream(seed, purpose, place).next_u64();
        let all = [
            word(1, "order", &["0", "1"]),
            word(2, "order", &["0", "1"]),
            word(1, "augment", &["0", "1"]),
            word(1, "order", &["01"]),
            word(1, "order", &["0", "1", ""]),
        ];
        assert_eq!(all[0], word(1, "order", &["0", "1"]));
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| a != b));
        }
    }

    #[test]
    fn a_shuffle_keeps_every_item_and_reaches_every_place() {
        let mut seen = [[false; 5]; 5];
        for round in 0..200 {
            let mut items = [0, 1, 2, 3, 4];
            shuffle(&mut items, &mut stream(round, "test", &[]));
            for (at, item) in items.iter().enumerate() {
                seen[at][*item] = true;
            }
            items.sort_unstable();
            assert_eq!(items, [0, 1, 2, 3, 4]);
        }
        assert!(seen.iter().flatten().all(|s| *s));
    }
}
