//! The innermost loops of a product: a tile of a few rows and two vectors of columns, held in registers.

use pulp::Simd;

use super::simd::{activate, load, store};
use crate::extension::Activation;

/// The tallest tile.
pub(super) const MAX_ROWS: usize = 8;
/// The widest panel.
pub(super) const MAX_WIDTH: usize = 32;

/// What happens to a finished product.
#[derive(Clone, Copy)]
pub(super) struct Finish<'a> {
    /// Added to every row.
    pub bias: Option<&'a [f32]>,
    /// Added; laid out as the product.
    pub residual: Option<&'a [f32]>,
    /// Applied to the sum.
    pub activation: Activation,
}

impl Finish<'_> {
    /// Nothing.
    pub(super) const NONE: Finish<'static> =
        Finish { bias: None, residual: None, activation: Activation::Identity };

    /// Whether anything happens.
    pub(super) fn is_none(&self) -> bool {
        self.bias.is_none() && self.residual.is_none() && self.activation == Activation::Identity
    }
}

/// Sums of products for `ROWS` rows and one panel: the rows by pointer, piece after piece.
///
/// # Safety
///
/// `rows[p][i]` points to `lens[p]` readable numbers; `panel` to as many rows of `2 * S::F32_LANES` numbers as all pieces
/// have numbers together.
#[inline(always)]
pub(super) unsafe fn dot_rows<S: Simd, const ROWS: usize>(
    simd: S,
    rows: &[[*const f32; ROWS]],
    lens: &[usize],
    panel: *const f32,
) -> [[S::f32s; 2]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
    let mut panel = panel;
    for (pointers, &len) in rows.iter().zip(lens) {
        let pointers = *pointers;
        for step in 0..len {
            // SAFETY: the caller's promise, for step < len.
            unsafe {
                let (left, right) = (load(simd, panel), load(simd, panel.add(S::F32_LANES)));
                for i in 0..ROWS {
                    let factor = simd.splat_f32s(*pointers[i].add(step));
                    sums[i][0] = simd.mul_add_e_f32s(factor, left, sums[i][0]);
                    sums[i][1] = simd.mul_add_e_f32s(factor, right, sums[i][1]);
                }
                panel = panel.add(2 * S::F32_LANES);
            }
        }
    }
    sums
}

/// Sums of products for `ROWS` rows and one panel: the rows interleaved, `columns[step * ROWS + i]`.
///
/// # Safety
///
/// `columns` points to `depth * ROWS` readable numbers, `panel` to `depth * 2 * S::F32_LANES`.
#[inline(always)]
pub(super) unsafe fn dot_columns<S: Simd, const ROWS: usize>(
    simd: S,
    columns: *const f32,
    depth: usize,
    panel: *const f32,
) -> [[S::f32s; 2]; ROWS] {
    let mut sums = [[simd.splat_f32s(0.0); 2]; ROWS];
    let (mut columns, mut panel) = (columns, panel);
    for _ in 0..depth {
        // SAFETY: the caller's promise, for each of `depth` steps.
        unsafe {
            let (left, right) = (load(simd, panel), load(simd, panel.add(S::F32_LANES)));
            for i in 0..ROWS {
                let factor = simd.splat_f32s(*columns.add(i));
                sums[i][0] = simd.mul_add_e_f32s(factor, left, sums[i][0]);
                sums[i][1] = simd.mul_add_e_f32s(factor, right, sums[i][1]);
            }
            columns = columns.add(ROWS);
            panel = panel.add(2 * S::F32_LANES);
        }
    }
    sums
}

/// Writes the first `valid` rows of a tile, added to what is there unless `fresh`.
///
/// # Safety
///
/// `target` points to `valid` rows of `2 * S::F32_LANES` writable numbers, `stride` apart.
#[inline(always)]
pub(super) unsafe fn write<S: Simd, const ROWS: usize>(
    simd: S,
    sums: [[S::f32s; 2]; ROWS],
    target: *mut f32,
    stride: usize,
    valid: usize,
    fresh: bool,
) {
    for i in 0..ROWS {
        if i < valid {
            // SAFETY: the caller's promise, for i < valid.
            unsafe {
                let left = target.add(i * stride);
                let right = left.add(S::F32_LANES);
                if fresh {
                    store(simd, left, sums[i][0]);
                    store(simd, right, sums[i][1]);
                } else {
                    store(simd, left, simd.add_f32s(load(simd, left), sums[i][0]));
                    store(simd, right, simd.add_f32s(load(simd, right), sums[i][1]));
                }
            }
        }
    }
}

/// Adds bias and residual to the first `valid` rows of a tile and applies the activation.
///
/// # Safety
///
/// `target`, and `residual` if not null, point to `valid` rows of `2 * S::F32_LANES` numbers, `stride` apart; `bias`, if
/// not null, to `2 * S::F32_LANES`.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd>(
    simd: S,
    target: *mut f32,
    bias: *const f32,
    residual: *const f32,
    stride: usize,
    valid: usize,
    activation: Activation,
) {
    for i in 0..valid {
        for half in 0..2 {
            // SAFETY: the caller's promise, for i < valid and both vectors of a row.
            unsafe {
                let column = half * S::F32_LANES;
                let place = target.add(i * stride + column);
                let mut value = load(simd, place);
                if !bias.is_null() {
                    value = simd.add_f32s(value, load(simd, bias.add(column)));
                }
                if !residual.is_null() {
                    value = simd.add_f32s(value, load(simd, residual.add(i * stride + column)));
                }
                store(simd, place, activate(simd, value, activation));
            }
        }
    }
}
