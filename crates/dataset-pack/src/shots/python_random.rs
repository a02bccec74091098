//! CPython's `random.Random`, bit for bit, as far as shot lists need it.
//!
//! The published few-shot lists were drawn with `random.seed(n)` and `random.sample`. This is the Mersenne
//! Twister MT19937 (Matsumoto and Nishimura 1998) with CPython's way to seed it from an integer
//! (`random_seed` in `Modules/_randommodule.c`) and to draw from it (`_randbelow_with_getrandbits` and
//! `sample` in `Lib/random.py`, the same since Python 3.2).

use std::collections::HashSet;

const N: usize = 624;
const M: usize = 397;

/// A generator in the state that `random.seed(n)` leaves.
#[derive(Debug, Clone)]
pub struct PythonRandom {
    state: [u32; N],
    index: usize,
}

impl PythonRandom {
    /// `random.seed(seed)` for a non-negative integer.
    pub fn seed(seed: u64) -> Self {
        // The key is the integer in 32-bit digits, lowest first, at least one.
        let (low, high) = (seed as u32, (seed >> 32) as u32);
        if high == 0 { Self::from_key(&[low]) } else { Self::from_key(&[low, high]) }
    }

    fn from_key(key: &[u32]) -> Self {
        let mut state = [0_u32; N];
        state[0] = 19_650_218;
        for i in 1..N {
            let previous = state[i - 1];
            state[i] = (previous ^ (previous >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
        }
        let (mut i, mut j) = (1, 0);
        for _ in 0..N.max(key.len()) {
            let mixed = (state[i - 1] ^ (state[i - 1] >> 30)).wrapping_mul(1_664_525);
            state[i] = (state[i] ^ mixed).wrapping_add(key[j]).wrapping_add(j as u32);
            i += 1;
            j = (j + 1) % key.len();
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        for _ in 0..N - 1 {
            let mixed = (state[i - 1] ^ (state[i - 1] >> 30)).wrapping_mul(1_566_083_941);
            state[i] = (state[i] ^ mixed).wrapping_sub(i as u32);
            i += 1;
            if i == N {
                state[0] = state[N - 1];
                i = 1;
            }
        }
        state[0] = 0x8000_0000;
        Self { state, index: N }
    }

    fn refill(&mut self) {
        for i in 0..N {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % N] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + M) % N] ^ (y >> 1) ^ odd;
        }
        self.index = 0;
    }

    fn next_u32(&mut self) -> u32 {
        if self.index == N {
            self.refill();
        }
        let mut y = self.state[self.index];
        self.index += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// `random.getrandbits(bits)` for 1 to 32 bits.
    fn getrandbits(&mut self, bits: u32) -> u32 {
        self.next_u32() >> (32 - bits)
    }

    /// `random.randrange(n)` for `n` of at least 1: draws as many bits as `n` has until they are below `n`.
    pub fn randbelow(&mut self, n: u32) -> u32 {
        let bits = u32::BITS - n.leading_zeros();
        if bits == 0 {
            return 0;
        }
        loop {
            let drawn = self.getrandbits(bits);
            if drawn < n {
                return drawn;
            }
        }
    }

    /// `random.random()`: 53 bits, in [0, 1).
    pub fn random(&mut self) -> f64 {
        let (a, b) = (self.next_u32() >> 5, self.next_u32() >> 6);
        (f64::from(a) * 67_108_864.0 + f64::from(b)) / 9_007_199_254_740_992.0
    }

    /// `random.choices(range(n), k=k)` for `n` of at least 1: with replacement.
    pub fn choices(&mut self, n: u32, k: u32) -> Vec<u32> {
        (0..k).map(|_| (self.random() * f64::from(n)).floor() as u32).collect()
    }

    /// `random.sample(range(n), k)`; `None` where Python raises `ValueError` (`k > n`).
    pub fn sample(&mut self, n: u32, k: u32) -> Option<Vec<u32>> {
        if k > n {
            return None;
        }
        if u64::from(n) <= set_size(k) {
            let mut pool: Vec<u32> = (0..n).collect();
            let drawn = (0..k).map(|i| {
                let j = self.randbelow(n - i) as usize;
                let value = pool[j];
                pool[j] = pool[(n - i - 1) as usize];
                value
            });
            return Some(drawn.collect());
        }
        let mut seen = HashSet::new();
        let drawn = (0..k).map(|_| {
            loop {
                let j = self.randbelow(n);
                if seen.insert(j) {
                    return j;
                }
            }
        });
        Some(drawn.collect())
    }
}

/// Largest population for which CPython copies the list instead of remembering what it drew: 21, and for `k >
/// 5` the size of the hash set as well, `4 ** ceil(log(k * 3, 4))`.
fn set_size(k: u32) -> u64 {
    let mut size = 21;
    if k > 5 {
        let mut power = 1_u64;
        while power < u64::from(k) * 3 {
            power *= 4;
        }
        size += power;
    }
    size
}
