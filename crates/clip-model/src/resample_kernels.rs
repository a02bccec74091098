//! The two passes of a fixed-point resize, written for wide vectors.
//!
//! All arithmetic is on integers and exact, so every version below gives the same samples. The wide version is chosen at run
//! time: one binary serves all machines.

use std::ops::Range;

use crate::resample::{Axis, HALF, PRECISION_BITS};

/// A window in fixed point.
struct Taps {
    first: usize,
    coefficients: Vec<i32>,
}

fn taps(axis: &Axis, offset: usize) -> Vec<Taps> {
    let taps = |window: &crate::resample::Window| Taps {
        first: window.first - offset,
        coefficients: window.coefficients(),
    };
    axis.windows.iter().map(taps).collect()
}

/// Clips a fixed-point sum to 8 bits; it began with one half.
#[inline(always)]
fn clip8(sum: i32) -> u8 {
    (sum >> PRECISION_BITS).clamp(0, 255) as u8
}

/// Resizes every row of `width` pixels with `C` channels; the first pixel of a row is number `offset` of the axis.
pub(crate) fn columns_pass<const C: usize>(
    samples: &[u8],
    width: usize,
    offset: usize,
    axis: &Axis,
) -> Vec<u8> {
    let stride = width * C;
    if axis.is_copy {
        let kept = (axis.reads.start - offset) * C..(axis.reads.end - offset) * C;
        return samples.chunks_exact(stride).flat_map(|row| &row[kept.clone()]).copied().collect();
    }
    let taps = taps(axis, offset);
    let rows = samples.len() / stride;
    let mut out = vec![0; rows * taps.len() * C];
    #[cfg(target_arch = "x86_64")]
    if C == 3 && is_x86_feature_detected!("avx2") {
        wide::columns_rgb(samples, stride, &taps, &mut out);
        return out;
    }
    for (row, out) in samples.chunks_exact(stride).zip(out.chunks_exact_mut(taps.len() * C)) {
        narrow_row::<C>(row, &taps, out);
    }
    out
}

/// One row, one output pixel after the other.
fn narrow_row<const C: usize>(row: &[u8], taps: &[Taps], out: &mut [u8]) {
    for (taps, out) in taps.iter().zip(out.chunks_exact_mut(C)) {
        let mut sums = [HALF; C];
        for (pixel, coefficient) in row[taps.first * C..].chunks_exact(C).zip(&taps.coefficients) {
            for (sum, sample) in sums.iter_mut().zip(pixel) {
                *sum = sum.wrapping_add(i32::from(*sample).wrapping_mul(*coefficient));
            }
        }
        for (out, sum) in out.iter_mut().zip(sums) {
            *out = clip8(sum);
        }
    }
}

/// Resizes the columns `columns` (in samples) of an image of rows of `stride` samples; the first row is number `offset` of
/// the axis.
pub(crate) fn rows_pass(
    samples: &[u8],
    stride: usize,
    columns: Range<usize>,
    offset: usize,
    axis: &Axis,
) -> Vec<u8> {
    if axis.is_copy {
        let rows = samples[(axis.reads.start - offset) * stride..].chunks_exact(stride);
        return rows.take(axis.reads.len()).flat_map(|row| &row[columns.clone()]).copied().collect();
    }
    let mut out = vec![0; axis.windows.len() * columns.len()];
    for (taps, out) in taps(axis, offset).iter().zip(out.chunks_exact_mut(columns.len())) {
        let rows = &samples[taps.first * stride + columns.start..];
        #[cfg(target_arch = "x86_64")]
        if is_x86_feature_detected!("avx2") {
            wide::sum_rows(rows, stride, &taps.coefficients, out);
            continue;
        }
        sum_rows(rows, stride, &taps.coefficients, out);
    }
    out
}

/// Samples whose sums are kept in registers at once.
const BLOCK: usize = 32;

/// The weighted sum of rows that lie `stride` apart.
#[inline(always)]
fn sum_rows(rows: &[u8], stride: usize, coefficients: &[i32], out: &mut [u8]) {
    let (blocks, rest) = out.as_chunks_mut::<BLOCK>();
    let mut at = 0;
    for block in blocks {
        let mut sums = [HALF; BLOCK];
        for (row, coefficient) in coefficients.iter().enumerate() {
            let start = row * stride + at;
            let Some(samples) = rows[start..].first_chunk::<BLOCK>() else { continue };
            for (sum, sample) in sums.iter_mut().zip(samples) {
                *sum = sum.wrapping_add(i32::from(*sample).wrapping_mul(*coefficient));
            }
        }
        *block = sums.map(clip8);
        at += BLOCK;
    }
    for (index, out) in rest.iter_mut().enumerate() {
        let mut sum = HALF;
        for (row, coefficient) in coefficients.iter().enumerate() {
            sum = sum.wrapping_add(i32::from(rows[row * stride + at + index]).wrapping_mul(*coefficient));
        }
        *out = clip8(sum);
    }
}

/// Versions for AVX2.
#[cfg(target_arch = "x86_64")]
mod wide {
    use std::arch::x86_64::{
        __m128i, __m256i, _mm_cvtsi128_si64, _mm_extract_epi32, _mm_set_epi64x, _mm_setr_epi8,
        _mm_shuffle_epi8, _mm_unpacklo_epi32, _mm256_add_epi32, _mm256_broadcastsi128_si256,
        _mm256_castsi256_si128, _mm256_extracti128_si256, _mm256_madd_epi16, _mm256_packs_epi32,
        _mm256_packus_epi16, _mm256_permute2x128_si256, _mm256_set_epi64x, _mm256_set1_epi32,
        _mm256_setr_epi8, _mm256_setzero_si256, _mm256_shuffle_epi8, _mm256_slli_epi32, _mm256_srai_epi32,
    };

    use super::{HALF, PRECISION_BITS, Taps};

    /// Fractional bits of the lower half of a coefficient. Both halves fit 16 bits: 22 + 2 bits less 10.
    const LOW_BITS: u32 = 10;
    /// Pixels that one instruction weighs.
    const LANES: usize = 4;

    /// The coefficients of four neighbouring taps, split in halves and laid out as the samples are.
    struct Quad {
        high: __m256i,
        low: __m256i,
    }

    pub(super) fn sum_rows(rows: &[u8], stride: usize, coefficients: &[i32], out: &mut [u8]) {
        #[target_feature(enable = "avx2")]
        fn inner(rows: &[u8], stride: usize, coefficients: &[i32], out: &mut [u8]) {
            super::sum_rows(rows, stride, coefficients, out);
        }
        // SAFETY: the callers have found the machine to have AVX2.
        #[allow(unsafe_code)]
        unsafe {
            inner(rows, stride, coefficients, out);
        }
    }

    /// Resizes rows of RGB pixels.
    pub(super) fn columns_rgb(samples: &[u8], stride: usize, taps: &[Taps], out: &mut [u8]) {
        // SAFETY: the caller has found the machine to have AVX2.
        #[allow(unsafe_code)]
        unsafe {
            columns_rgb_avx2(samples, stride, taps, out);
        }
    }

    #[target_feature(enable = "avx2")]
    fn columns_rgb_avx2(samples: &[u8], stride: usize, taps: &[Taps], out: &mut [u8]) {
        // Every output has as many quads as the longest, the last of them perhaps of zeros.
        let count = taps.iter().map(|taps| taps.coefficients.len().div_ceil(LANES)).max().unwrap_or(0);
        let mut quads = Vec::with_capacity(count * taps.len());
        for taps in taps {
            let four = |index: usize| taps.coefficients.get(index * LANES..).unwrap_or_default();
            quads.extend((0..count).map(|index| quad(four(index))));
        }
        let rows = samples.len() / stride;
        // A quad reads 16 bytes from its first pixel on, which may lie beyond the row: zero weights there, but the bytes must
        // exist. After the last row they come from a copy with a margin.
        let margin = count * LANES * 3 + 16;
        let direct = rows.saturating_sub(margin.div_ceil(stride));
        for (row, out) in out.chunks_exact_mut(taps.len() * 3).enumerate() {
            let start = row * stride;
            if row < direct {
                row_rgb(&samples[start..start + stride + margin], taps, &quads, count, out);
            } else {
                let mut padded = vec![0; stride + margin];
                padded[..stride].copy_from_slice(&samples[start..start + stride]);
                row_rgb(&padded, taps, &quads, count, out);
            }
        }
    }

    /// One row, four output pixels at a time.
    #[target_feature(enable = "avx2")]
    fn row_rgb(row: &[u8], taps: &[Taps], quads: &[Quad], count: usize, out: &mut [u8]) {
        // Three bytes of each of four pixels, from four.
        let close = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
        let groups = taps.chunks(4).zip(quads.chunks(4 * count)).zip(out.chunks_mut(4 * 3));
        for ((taps, quads), out) in groups {
            let mut sums = [_mm256_setzero_si256(); 4];
            for ((sum, taps), quads) in sums.iter_mut().zip(taps).zip(quads.chunks_exact(count)) {
                *sum = weigh(&row[taps.first * 3..], quads);
            }
            // Pixels 0 and 2 in the lower half, 1 and 3 in the upper.
            let (even, odd) = (fold(sums[0], sums[1]), fold(sums[2], sums[3]));
            let words = _mm256_packs_epi32(even, odd);
            let bytes = _mm256_packus_epi16(words, words);
            let (even, odd) = (_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
            let pixels = _mm_shuffle_epi8(_mm_unpacklo_epi32(even, odd), close);
            let (low, high) = (_mm_cvtsi128_si64(pixels), _mm_extract_epi32::<2>(pixels));
            if let Some((first, last)) = out.split_first_chunk_mut::<8>()
                && let Some(last) = last.first_chunk_mut::<4>()
            {
                *first = low.to_le_bytes();
                *last = high.to_le_bytes();
            } else {
                // Fewer than four at the end of a row.
                let bytes = [low.to_le_bytes(), i64::from(high).to_le_bytes()];
                out.iter_mut().zip(bytes.as_flattened()).for_each(|(out, byte)| *out = *byte);
            }
        }
    }

    /// The sums of one output pixel, two pixels' halves that are still apart.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn weigh(row: &[u8], quads: &[Quad]) -> __m256i {
        // Four pixels of three bytes become 16-bit numbers: in each half two pixels, channel by channel, side by side.
        let spread = _mm256_setr_epi8(
            0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1, //
            6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1,
        );
        let (mut high, mut low) = (_mm256_setzero_si256(), _mm256_setzero_si256());
        for (quad, bytes) in quads.iter().zip(row.windows(16).step_by(LANES * 3)) {
            let samples = _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(load(bytes)), spread);
            high = _mm256_add_epi32(high, _mm256_madd_epi16(samples, quad.high));
            low = _mm256_add_epi32(low, _mm256_madd_epi16(samples, quad.low));
        }
        _mm256_add_epi32(_mm256_slli_epi32::<{ LOW_BITS as i32 }>(high), low)
    }

    /// Adds the halves of two sums and rounds: the first pixel in the lower half, the second in the upper.
    #[inline]
    #[target_feature(enable = "avx2")]
    fn fold(first: __m256i, second: __m256i) -> __m256i {
        let lower = _mm256_permute2x128_si256::<0x20>(first, second);
        let upper = _mm256_permute2x128_si256::<0x31>(first, second);
        let sums = _mm256_add_epi32(_mm256_add_epi32(lower, upper), _mm256_set1_epi32(HALF));
        _mm256_srai_epi32::<{ PRECISION_BITS as i32 }>(sums)
    }

    #[inline]
    #[target_feature(enable = "avx2")]
    fn load(bytes: &[u8]) -> __m128i {
        let half = |at: usize| bytes[at..].first_chunk::<8>().map_or(0, |half| i64::from_le_bytes(*half));
        _mm_set_epi64x(half(8), half(0))
    }

    #[target_feature(enable = "avx2")]
    fn quad(four: &[i32]) -> Quad {
        let tap = |index: usize| four.get(index).copied().unwrap_or(0);
        let high = |index: usize| (tap(index) >> LOW_BITS) as i16;
        let low = |index: usize| (tap(index) & ((1 << LOW_BITS) - 1)) as i16;
        let pair = |first: i16, second: i16| {
            let bits = u64::from(first as u16) | u64::from(second as u16) << 16;
            (bits | bits << 32) as i64
        };
        let lay_out = |left: i64, right: i64| _mm256_set_epi64x(right, right, left, left);
        Quad {
            high: lay_out(pair(high(0), high(1)), pair(high(2), high(3))),
            low: lay_out(pair(low(0), low(1)), pair(low(2), low(3))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Samples without any pattern, from a linear congruential generator.
    fn noise(length: usize) -> Vec<u8> {
        let mut state = 7u32;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        };
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn wide_and_narrow_columns_agree() {
        for (width, target) in
            [(1, 9), (2, 5), (3, 1), (7, 20), (37, 16), (64, 64 * 2), (501, 23), (300, 299)]
        {
            for rows in [1, 2, 9] {
                let samples = noise(width as usize * rows * 3);
                let axis = Axis::new(width, target, 0..target);
                let taps = taps(&axis, 0);
                let mut narrow = vec![0; rows * taps.len() * 3];
                let narrow_rows = narrow.chunks_exact_mut(taps.len() * 3);
                for (row, out) in samples.chunks_exact(width as usize * 3).zip(narrow_rows) {
                    narrow_row::<3>(row, &taps, out);
                }
                assert!(
                    columns_pass::<3>(&samples, width as usize, 0, &axis) == narrow,
                    "{width} to {target}"
                );
            }
        }
    }
}
