//! Matrix products with what stands around them: `activation(residual + left . right + bias)`.
//!
//! Every number of the result is summed in one order, that of [`pieces`]: neither the number of threads nor the cut into
//! tiles changes a bit of it.

use std::ops::Range;

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::{Finish, MAX_ROWS, MAX_WIDTH, dot_rows, finish, write};
use super::left::{Left, Piece, pieces};
use super::panels::{Panels, panel_width};
use super::simd::arch;

/// Rows of the result that one task computes at most: with [`super::left::DEPTH`] numbers each they stay in the cache.
const TASK_ROWS: usize = 96;
/// Columns of the result that one task computes at most: its part of the result stays in the cache from one group of
/// pieces to the next.
const TASK_COLUMNS: usize = 384;

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

    /// No matrix.
    pub(super) const NONE: Target = Target { data: std::ptr::null_mut(), stride: 0 };

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

/// What a product is added to.
pub(super) enum Residual<'a> {
    /// Nothing.
    None,
    /// A matrix that others still read.
    Shared(&'a [f32]),
    /// A matrix that becomes the result.
    Owned(Vec<f32>),
}

/// `finish(residual + left . right)`, `[rows, right.columns]`.
pub(super) fn product(
    left: &Left<'_>,
    rows: usize,
    right: &Panels,
    residual: Residual<'_>,
    finish: Finish<'_>,
) -> Vec<f32> {
    assert!(right.depth > 0, "a product of rows without numbers");
    assert_eq!(left.taps() * left.channels(), right.depth, "inner sizes of a product");
    let columns = right.columns;
    assert!(finish.bias.is_none_or(|bias| bias.len() == columns), "bias of a product");
    let given = match &residual {
        Residual::None => rows * columns,
        Residual::Shared(values) => values.len(),
        Residual::Owned(values) => values.len(),
    };
    assert_eq!(given, rows * columns, "residual of a product");
    let (mut output, shared) = match residual {
        Residual::None => (Vec::with_capacity(rows * columns), std::ptr::null()),
        Residual::Shared(values) => (Vec::with_capacity(rows * columns), values.as_ptr()),
        Residual::Owned(values) => (values, std::ptr::null()),
    };
    let is_owned = !output.is_empty();
    let target = Target { data: output.as_mut_ptr(), stride: columns };
    let base = Target { data: if is_owned { target.data } else { shared.cast_mut() }, stride: columns };
    let groups = pieces(left.taps(), left.channels());
    let threads = rayon::current_num_threads();
    let height = rows.div_ceil(4 * threads).next_multiple_of(2 * MAX_ROWS).min(TASK_ROWS);
    let bands = rows.div_ceil(height.max(1));
    let across = (4 * threads).div_ceil(bands.max(1)).clamp(1, right.count().max(1));
    let width = right.count().div_ceil(across).min(TASK_COLUMNS / panel_width()).max(1);
    let across = right.count().div_ceil(width);
    (0..bands * across).into_par_iter().for_each(|task| {
        let (band, part) = (task / across, task % across);
        let rows = band * height..rows.min((band + 1) * height);
        let panels = part * width..right.count().min((part + 1) * width);
        arch().dispatch(Part { left, right, groups: &groups, rows, panels, base, target, finish });
    });
    // SAFETY: the vector has that capacity, and the tasks have written every row of every panel.
    unsafe { output.set_len(rows * columns) };
    output
}

/// One task of a product.
struct Part<'a> {
    left: &'a Left<'a>,
    right: &'a Panels,
    groups: &'a [Vec<Piece>],
    rows: Range<usize>,
    panels: Range<usize>,
    /// Added to; null for nothing, `target` itself for what is there.
    base: Target,
    target: Target,
    finish: Finish<'a>,
}

impl WithSimd for Part<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Part { left, right, groups, rows, panels, base, target, finish } = self;
        // SAFETY: `product` gives disjoint parts of one output that has all rows and columns.
        unsafe { multiply(simd, left, right, groups, rows, panels, base, target, &finish) }
    }
}

/// The part of a product in some rows and panels, on this thread.
///
/// # Safety
///
/// `target`, and `base` if not null, have all `rows`, each of `right.columns` numbers; nobody else writes the part.
#[inline(always)]
#[allow(clippy::too_many_arguments)]
pub(super) unsafe fn multiply<S: Simd>(
    simd: S,
    left: &Left<'_>,
    right: &Panels,
    groups: &[Vec<Piece>],
    rows: Range<usize>,
    panels: Range<usize>,
    base: Target,
    target: Target,
    finish: &Finish<'_>,
) {
    // Sixteen registers hold a tile of six rows; with thirty-two, eight rows leave the row pointers in registers too.
    // SAFETY: the caller's promise.
    unsafe {
        if S::REGISTER_COUNT >= 32 {
            multiply_tall::<S, 8>(simd, left, right, groups, rows, panels, base, target, finish);
        } else {
            multiply_tall::<S, 6>(simd, left, right, groups, rows, panels, base, target, finish);
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
    base: Target,
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
                    let base = if index == 0 { base } else { target };
                    put::<S, ROWS>(simd, sums, place, right.columns, base, target, after);
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
    base: Target,
    target: Target,
    after: Option<&Finish<'_>>,
) {
    let Place { row, column, valid } = place;
    let (stride, width) = (target.stride, 2 * S::F32_LANES);
    // SAFETY: the tile's valid rows and columns are in the target; the rest goes through a tile of its own.
    unsafe {
        let corner = target.data.add(row * stride + column);
        let base = if base.data.is_null() { std::ptr::null() } else { base.data.add(row * stride + column) };
        if column + width <= columns {
            write(simd, sums, corner, base, stride, valid);
            if let Some(after) = after {
                let bias = after.bias.map_or(std::ptr::null(), |bias| bias[column..].as_ptr());
                finish(simd, corner, bias, stride, valid, after.activation);
            }
            return;
        }
        let rest = columns - column;
        let mut tile = [0.0; MAX_ROWS * MAX_WIDTH];
        if !base.is_null() {
            for i in 0..valid {
                for j in 0..rest {
                    tile[i * width + j] = *base.add(i * stride + j);
                }
            }
        }
        write(simd, sums, tile.as_mut_ptr(), tile.as_ptr(), width, valid);
        if let Some(after) = after {
            let mut bias = [0.0; MAX_WIDTH];
            if let Some(values) = after.bias {
                bias[..rest].copy_from_slice(&values[column..]);
            }
            finish(simd, tile.as_mut_ptr(), bias.as_ptr(), width, valid, after.activation);
        }
        for i in 0..valid {
            for j in 0..rest {
                *corner.add(i * stride + j) = tile[i * width + j];
            }
        }
    }
}
