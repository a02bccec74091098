//! Products of matrices in f64 whose sums run in a fixed order: the same bits on every processor and number of threads.
//!
//! A library's product sums in blocks that depend on the processor's caches, and with or without fused operations.

use pulp::{Simd, WithSimd};

/// Lines and columns of a tile; its sums stay in registers.
const LINES: usize = 4;
const COLUMNS: usize = 8;

/// The lines of a left factor in panels of four.
pub(super) type Lines = Panels<LINES>;
/// The columns of a right factor in panels of eight.
pub(super) type Columns = Panels<COLUMNS>;

/// `count` lines or columns of `length` values each: by panel of `N`, then k, then line. The last panel is filled up with zeros.
#[derive(Debug)]
pub(super) struct Panels<const N: usize> {
    values: Vec<[f64; N]>,
    count: usize,
    length: usize,
}

impl<const N: usize> Panels<N> {
    /// With the value `at(index, k)`.
    pub(super) fn new(count: usize, length: usize, at: impl Fn(usize, usize) -> f64) -> Self {
        let mut values = Vec::with_capacity(count.div_ceil(N) * length);
        for first in (0..count).step_by(N) {
            let value = |k, lane| if first + lane < count { at(first + lane, k) } else { 0.0 };
            values.extend((0..length).map(|k| std::array::from_fn(|lane| value(k, lane))));
        }
        Self { values, count, length }
    }

    fn panels(&self) -> impl Iterator<Item = &[[f64; N]]> {
        self.values.chunks_exact(self.length.max(1))
    }
}

/// Adds to `sums` `[A, B]`, row-major, the products of A lines and B columns of one length, each sum in the order of k.
///
/// A panel of columns is read for all lines while it is in the cache.
pub(super) struct AddProducts<'a> {
    pub(super) lines: &'a Lines,
    pub(super) columns: &'a Columns,
    pub(super) sums: &'a mut [f64],
}

impl WithSimd for AddProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.columns.count;
        for (columns, first) in self.columns.panels().zip((0..width).step_by(COLUMNS)) {
            let held = first..width.min(first + COLUMNS);
            for (lines, sums) in self.lines.panels().zip(self.sums.chunks_mut(width * LINES)) {
                let mut tile = [[0.0; COLUMNS]; LINES];
                for (tile, sums) in tile.iter_mut().zip(sums.chunks_exact(width)) {
                    tile[..held.len()].copy_from_slice(&sums[held.clone()]);
                }
                match S::F64_LANES {
                    8 => add_tile::<S, 1>(simd, lines, columns, &mut tile),
                    4 => add_tile::<S, 2>(simd, lines, columns, &mut tile),
                    2 => add_tile::<S, 4>(simd, lines, columns, &mut tile),
                    _ => add_tile::<S, 8>(simd, lines, columns, &mut tile),
                }
                for (tile, sums) in tile.iter().zip(sums.chunks_exact_mut(width)) {
                    sums[held.clone()].copy_from_slice(&tile[..held.len()]);
                }
            }
        }
    }
}

/// One tile, `V` vectors wide. A product is rounded before it is added, as without vectors.
#[inline(always)]
fn add_tile<S: Simd, const V: usize>(
    simd: S,
    lines: &[[f64; LINES]],
    columns: &[[f64; COLUMNS]],
    tile: &mut [[f64; COLUMNS]; LINES],
) {
    let mut sums = [[simd.splat_f64s(0.0); V]; LINES];
    for (sums, tile) in sums.iter_mut().zip(&*tile) {
        sums.copy_from_slice(S::as_simd_f64s(tile).0);
    }
    for (line, column) in lines.iter().zip(columns) {
        let column = S::as_simd_f64s(column).0;
        for row in 0..LINES {
            let value = simd.splat_f64s(line[row]);
            for at in 0..V {
                sums[row][at] = simd.add_f64s(sums[row][at], simd.mul_f64s(value, column[at]));
            }
        }
    }
    for (sums, tile) in sums.iter().zip(tile) {
        S::as_mut_simd_f64s(tile).0.copy_from_slice(sums);
    }
}
