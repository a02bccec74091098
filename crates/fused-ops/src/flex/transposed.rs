//! Products whose left operand is transposed: `left^T . right`, a weight's gradient.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::{dot_columns, write};
use super::left::{DEPTH, Left};
use super::panels::{Panels, Source, panel_width};
use super::simd::arch;

/// Columns of the result that one task computes at most.
const TASK_COLUMNS: usize = 256;
/// Tasks to aim at. A constant: the cut along the rows decides the order of summation.
const TASKS: usize = 16;

/// `left^T . right` for `rows` rows: `[left.taps() * left.channels(), columns]`.
///
/// The rows are cut into parts whose sums are added in order; the cut depends on the shapes alone.
pub(super) fn transposed_product(left: &Left<'_>, rows: usize, right: &[f32], columns: usize) -> Vec<f32> {
    assert_eq!(right.len(), rows * columns, "rows of a transposed product");
    let depth = left.taps() * left.channels();
    if rows == 0 || depth == 0 || columns == 0 {
        return vec![0.0; depth * columns];
    }
    let width = TASK_COLUMNS.min(columns.next_multiple_of(panel_width()));
    let bands = columns.div_ceil(width);
    let cuts = TASKS.div_ceil(bands).min(rows.div_ceil(2 * DEPTH));
    let height = rows.div_ceil(cuts).next_multiple_of(DEPTH);
    let cuts = rows.div_ceil(height);
    let parts: Vec<Vec<f32>> = (0..bands * cuts)
        .into_par_iter()
        .map(|task| {
            let (band, cut) = (task / cuts, task % cuts);
            let rows = cut * height..rows.min((cut + 1) * height);
            let band = band * width..columns.min((band + 1) * width);
            arch().dispatch(Part { left, right, stride: columns, rows, columns: band })
        })
        .collect();
    let mut output = vec![0.0; depth * columns];
    output.par_chunks_mut(columns).enumerate().for_each(|(row, output)| {
        for (band, output) in output.chunks_mut(width).enumerate() {
            let stride = output.len().next_multiple_of(panel_width());
            for part in &parts[band * cuts..][..cuts] {
                for (sum, value) in output.iter_mut().zip(&part[row * stride..]) {
                    *sum += value;
                }
            }
        }
    });
    output
}

/// One task: all of the result's rows, some of its columns, summed over some rows of the operands.
struct Part<'a> {
    left: &'a Left<'a>,
    right: &'a [f32],
    /// Numbers in a row of `right`.
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
}

impl WithSimd for Part<'_> {
    type Output = Vec<f32>;

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> Vec<f32> {
        if S::REGISTER_COUNT >= 32 { self.compute::<S, 8>(simd) } else { self.compute::<S, 6>(simd) }
    }
}

impl Part<'_> {
    /// Rows of whole panels.
    #[inline(always)]
    fn compute<S: Simd, const ROWS: usize>(self, simd: S) -> Vec<f32> {
        let Part { left, right, stride, rows, columns } = self;
        let (taps, channels) = (left.taps(), left.channels());
        let padded = columns.len().next_multiple_of(2 * S::F32_LANES);
        let mut output = vec![0.0; taps * channels * padded];
        let mut panels = Panels::new();
        let mut runs: Vec<&[f32]> = Vec::new();
        let mut interleaved = Vec::new();
        for first in rows.clone().step_by(DEPTH) {
            let depth = DEPTH.min(rows.end - first);
            let source = Source::matrix(&right[first * stride + columns.start..], depth, stride);
            panels.repack(&source, columns.len());
            for tap in 0..taps {
                runs.clear();
                for row in first..first + depth {
                    runs.push(left.run(row, tap));
                }
                let output = &mut output[tap * channels * padded..][..channels * padded];
                accumulate::<S, ROWS>(simd, &runs, channels, &panels, output, &mut interleaved);
            }
        }
        output
    }
}

/// Adds `runs^T . panels` to `output`, whose rows hold whole panels: `[channels, padded columns]`.
#[inline(always)]
fn accumulate<S: Simd, const ROWS: usize>(
    simd: S,
    runs: &[&[f32]],
    channels: usize,
    panels: &Panels,
    output: &mut [f32],
    interleaved: &mut Vec<f32>,
) {
    let padded = panels.count() * 2 * S::F32_LANES;
    assert!(panels.depth == runs.len() && output.len() >= channels * padded, "a transposed product's shapes");
    interleaved.resize(runs.len() * ROWS, 0.0);
    for channel in (0..channels).step_by(ROWS) {
        let valid = ROWS.min(channels - channel);
        interleave::<ROWS>(runs, channel, valid, interleaved);
        for panel in 0..panels.count() {
            let packed = panels.from(panel, 0).as_ptr();
            let target = output[channel * padded + panel * 2 * S::F32_LANES..].as_mut_ptr();
            // SAFETY: `interleaved` and the panel have a row per run; the output has the tile's valid rows, each of
            // whole panels.
            unsafe {
                let sums = dot_columns::<S, ROWS>(simd, interleaved.as_ptr(), runs.len(), packed);
                write(simd, sums, target, padded, valid, false);
            }
        }
    }
}

/// [`accumulate`] with tiles as tall as the processor's registers allow.
#[inline(always)]
pub(super) fn accumulate_transposed<S: Simd>(
    simd: S,
    runs: &[&[f32]],
    channels: usize,
    panels: &Panels,
    output: &mut [f32],
) {
    let mut interleaved = Vec::new();
    if S::REGISTER_COUNT >= 32 {
        accumulate::<S, 8>(simd, runs, channels, panels, output, &mut interleaved);
    } else {
        accumulate::<S, 6>(simd, runs, channels, panels, output, &mut interleaved);
    }
}

/// `valid` numbers of each run from `start` on, `ROWS` apart.
#[inline(always)]
fn interleave<const ROWS: usize>(runs: &[&[f32]], start: usize, valid: usize, output: &mut [f32]) {
    if valid == ROWS {
        for (to, run) in output.chunks_exact_mut(ROWS).zip(runs) {
            to.copy_from_slice(&run[start..start + ROWS]);
        }
        return;
    }
    for (to, run) in output.chunks_exact_mut(ROWS).zip(runs) {
        to.fill(0.0);
        to[..valid].copy_from_slice(&run[start..start + valid]);
    }
}
