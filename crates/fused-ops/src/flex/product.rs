//! Matrix products with what follows them: `activation(left . right + bias + residual)`.
//!
//! Every number of the result is summed in one order, that of [`pieces`]: neither the number of threads nor the cut into
//! tiles changes a bit of it.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::{Finish, MAX_ROWS, MAX_WIDTH, dot_rows, finish, write};
use super::left::{Left, Piece, pieces};
use super::panels::Panels;
use super::simd::arch;

/// Rows of the result that one task computes at most: with [`super::left::DEPTH`] numbers each they stay in the cache.
const TASK_ROWS: usize = 96;

/// A matrix that tasks write disjoint parts of.
#[derive(Clone, Copy)]
pub(super) struct Target {
    data: *mut f32,
    stride: usize,
}

// SAFETY: the pointer is to plain numbers, and those who write through it hold disjoint parts.
unsafe impl Send for Target {}
// SAFETY: as above.
unsafe impl Sync for Target {}

impl Target {
    /// A matrix with `stride` numbers from row to row.
    pub(super) fn new(data: &mut [f32], stride: usize) -> Self {
        Target { data: data.as_mut_ptr(), stride }
    }

    /// The matrix from one number on.
    ///
    /// # Safety
    ///
    /// The number is in the matrix.
    pub(super) unsafe fn skip(self, row: usize, column: usize) -> Self {
        // SAFETY: the caller's promise.
        Target { data: unsafe { self.data.add(row * self.stride + column) }, ..self }
    }

    /// Some numbers of a row.
    ///
    /// # Safety
    ///
    /// They are in the matrix, and nobody else touches them.
    pub(super) unsafe fn row<'a>(self, row: usize, len: usize) -> &'a mut [f32] {
        // SAFETY: the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.data.add(row * self.stride), len) }
    }
}

/// `finish(left . right)`, `[rows, right.columns]`.
pub(super) fn product(left: &Left<'_>, rows: usize, right: &Panels, finish: Finish<'_>) -> Vec<f32> {
    assert_eq!(left.taps() * left.channels(), right.depth, "inner sizes of a product");
    let columns = right.columns;
    assert!(finish.bias.is_none_or(|bias| bias.len() == columns), "bias of a product");
    assert!(finish.residual.is_none_or(|residual| residual.len() == rows * columns), "residual of a product");
    let mut output = vec![0.0; rows * columns];
    let groups = pieces(left.taps(), left.channels());
    let target = Target::new(&mut output, columns);
    let threads = rayon::current_num_threads();
    let height = rows.div_ceil(4 * threads).next_multiple_of(2 * MAX_ROWS).min(TASK_ROWS);
    let bands = rows.div_ceil(height.max(1));
    let across = (4 * threads).div_ceil(bands.max(1)).clamp(1, right.count().max(1));
    let width = right.count().div_ceil(across);
    (0..bands * across).into_par_iter().for_each(|task| {
        let (band, part) = (task / across, task % across);
        let rows = band * height..rows.min((band + 1) * height);
        let panels = part * width..right.count().min((part + 1) * width);
        arch().dispatch(Part { left, right, groups: &groups, rows, panels, target, finish });
    });
    output
}

/// One task of a product.
struct Part<'a> {
    left: &'a Left<'a>,
    right: &'a Panels,
    groups: &'a [Vec<Piece>],
    rows: Range<usize>,
    panels: Range<usize>,
    target: Target,
    finish: Finish<'a>,
}

impl WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Part { left, right, groups, rows, panels, target, finish } = self;
        // SAFETY: `product` gives disjoint parts of one output that has all rows and columns.
        unsafe { multiply(simd, left, right, groups, rows, panels, target, &finish) }
    }
}

/// The part of a product in some rows and panels, on this thread.
///
/// # Safety
///
/// `target` has all `rows`, each of `right.columns` numbers, and nobody else touches the part.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn multiply<S: Simd>(
    simd: S,
    left: &Left<'_>,
    right: &Panels,
    groups: &[Vec<Piece>],
    rows: Range<usize>,
    panels: Range<usize>,
    target: Target,
    finish: &Finish<'_>,
) {
    // Sixteen registers hold a tile of six rows; with thirty-two, eight rows leave the row pointers in registers too.
    // SAFETY: the caller's promise.
    unsafe {
        if S::REGISTER_COUNT >= 32 {
            multiply_tall::<S, 8>(simd, left, right, groups, rows, panels, target, finish);
        } else {
            multiply_tall::<S, 6>(simd, left, right, groups, rows, panels, target, finish);
        }
    }
}

#[inline(always)]
#[allow(clippy::too_many_arguments)]
unsafe fn multiply_tall<S: Simd, const ROWS: usize>(
    simd: S,
    left: &Left<'_>,
    right: &Panels,
    groups: &[Vec<Piece>],
    rows: Range<usize>,
    panels: Range<usize>,
    target: Target,
    finish: &Finish<'_>,
) {
    let mut pointers: Vec<[*const f32; ROWS]> = Vec::new();
    let mut lens: Vec<usize> = Vec::new();
    let mut start = 0;
    for (index, group) in groups.iter().enumerate() {
        lens.clear();
        pointers.clear();
        for piece in group {
            lens.push(piece.len);
        }
        for first in rows.clone().step_by(ROWS) {
            for piece in group {
                let mut tile = [std::ptr::null(); ROWS];
                for (i, pointer) in tile.iter_mut().enumerate() {
                    // A tile that reaches beyond the last row reads that row again.
                    let run = left.run((first + i).min(rows.end - 1), piece.tap);
                    *pointer = run[piece.start..piece.start + piece.len].as_ptr();
                }
                pointers.push(tile);
            }
        }
        let is_last = index + 1 == groups.len();
        for panel in panels.clone() {
            let packed = right.from(panel, start).as_ptr();
            for (tile, first) in pointers.chunks_exact(group.len()).zip(rows.clone().step_by(ROWS)) {
                // SAFETY: each pointer is to a run of its piece's length, the panel has the group's rows left, and the
                // place is in the target.
                unsafe {
                    let sums = dot_rows::<S, ROWS>(simd, tile, &lens, packed);
                    let place = Place {
                        row: first,
                        column: panel * 2 * S::F32_LANES,
                        valid: ROWS.min(rows.end - first),
                    };
                    let after = if is_last && !finish.is_none() { Some(finish) } else { None };
                    put::<S, ROWS>(simd, sums, place, right.columns, target, index == 0, after);
                }
            }
        }
        for piece in group {
            start += piece.len;
        }
    }
}

/// Where a tile lies in the target.
#[derive(Clone, Copy)]
struct Place {
    row: usize,
    column: usize,
    /// Rows of the tile that the target has.
    valid: usize,
}

#[inline(always)]
unsafe fn put<S: Simd, const ROWS: usize>(
    simd: S,
    sums: [[S::f32s; 2]; ROWS],
    place: Place,
    columns: usize,
    target: Target,
    fresh: bool,
    after: Option<&Finish<'_>>,
) {
    let Place { row, column, valid } = place;
    let (stride, width) = (target.stride, 2 * S::F32_LANES);
    let origin = row * stride + column;
    // SAFETY: the tile's valid rows and columns are in the target; the rest goes through a tile of its own.
    unsafe {
        let corner = target.data.add(origin);
        if column + width <= columns {
            write(simd, sums, corner, stride, valid, fresh);
            if let Some(after) = after {
                let bias = after.bias.map_or(std::ptr::null(), |bias| bias[column..].as_ptr());
                let residual =
                    after.residual.map_or(std::ptr::null(), |residual| residual[origin..].as_ptr());
                finish(simd, corner, bias, residual, stride, valid, after.activation);
            }
            return;
        }
        let rest = columns - column;
        let mut tile = [0.0; MAX_ROWS * MAX_WIDTH];
        write(simd, sums, tile.as_mut_ptr(), width, valid, true);
        for i in 0..valid {
            for j in 0..rest {
                let entry = corner.add(i * stride + j);
                let sum = tile[i * width + j] + if fresh { 0.0 } else { *entry };
                tile[i * width + j] = sum;
            }
        }
        if let Some(after) = after {
            let mut bias = [0.0; MAX_WIDTH];
            let mut residual = [0.0; MAX_ROWS * MAX_WIDTH];
            for j in 0..rest {
                bias[j] = match after.bias {
                    Some(bias) => bias[column + j],
                    None => 0.0,
                };
                for i in 0..valid {
                    residual[i * width + j] = match after.residual {
                        Some(residual) => residual[origin + i * stride + j],
                        None => 0.0,
                    };
                }
            }
            let corner = tile.as_mut_ptr();
            finish(simd, corner, bias.as_ptr(), residual.as_ptr(), width, valid, after.activation);
        }
        for i in 0..valid {
            for j in 0..rest {
                *corner.add(i * stride + j) = tile[i * width + j];
            }
        }
    }
}
