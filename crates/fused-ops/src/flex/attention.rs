//! Attention head by head: the weights of a block of queries live in the cache and nowhere else.

use pulp::{Simd, WithSimd};
use rayon::prelude::*;

use super::kernel::Finish;
use super::left::{Left, pieces};
use super::panels::{Panels, Source, panel_width};
use super::product::{Target, multiply};
use super::simd::{arch, exp};
use super::transposed::accumulate_transposed;

/// Numbers in a block of weights.
const BLOCK: usize = 64 * 1024;

/// Sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Heads {
    /// B.
    pub batch: usize,
    /// T.
    pub queries: usize,
    /// S.
    pub keys: usize,
    /// D, of all heads.
    pub width: usize,
    /// Heads.
    pub num_heads: usize,
    /// Whether query i sees only the keys up to i.
    pub is_causal: bool,
}

impl Heads {
    fn head_width(&self) -> usize {
        self.width / self.num_heads
    }

    /// Queries of a block.
    fn block(&self) -> usize {
        (BLOCK / self.keys.max(1)).next_multiple_of(24).min(96)
    }

    /// Keys that some of the queries up to `end` see.
    fn visible(&self, end: usize) -> usize {
        if self.is_causal { end.min(self.keys) } else { self.keys }
    }

    /// First number of a head's queries or keys, of `tokens` each.
    fn origin(&self, task: usize, tokens: usize) -> usize {
        task / self.num_heads * tokens * self.width + task % self.num_heads * self.head_width()
    }
}

/// `softmax(query . key / sqrt(head width)) . value` for every head: `[B, T, D]`.
pub(super) fn attention(query: &[f32], key: &[f32], value: &[f32], heads: Heads) -> Vec<f32> {
    let mut output = vec![0.0; query.len()];
    let target = Target::new(&mut output, heads.width);
    (0..heads.batch * heads.num_heads).into_par_iter().for_each(|task| {
        let origin = heads.origin(task, heads.queries);
        let (key, value) = (&key[heads.origin(task, heads.keys)..], &value[heads.origin(task, heads.keys)..]);
        // SAFETY: the head's columns are in the output.
        let output = unsafe { target.skip(0, origin) };
        arch().dispatch(Forward { query: &query[origin..], key, value, output, heads });
    });
    output
}

struct Forward<'a> {
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    output: Target,
    heads: Heads,
}

impl WithSimd for Forward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Forward { query, key, value, output, heads } = self;
        let mut weights = Weights::new(heads, query, key);
        let mut values = Panels::new();
        values.repack(&Source::matrix(value, heads.keys, heads.width), heads.head_width());
        for first in (0..heads.queries).step_by(heads.block()) {
            let end = heads.queries.min(first + heads.block());
            weights.compute(simd, first, end);
            let seen = heads.visible(end);
            let left = Left::Rows { data: &weights.block, stride: weights.stride, channels: seen };
            let groups = pieces(1, seen);
            // SAFETY: the head's rows `first .. end` are in the output, and this task's alone.
            unsafe {
                let output = output.skip(first, 0);
                multiply(
                    simd,
                    &left,
                    &values,
                    &groups,
                    0..end - first,
                    0..values.count(),
                    output,
                    &Finish::NONE,
                );
                for (row, sum) in weights.sums.iter().enumerate() {
                    divide(output.row(row, heads.head_width()), *sum);
                }
            }
        }
    }
}

/// The weights of a block of queries, before the division by their sums.
struct Weights<'a> {
    heads: Heads,
    query: &'a [f32],
    keys: Panels,
    /// A row per query, of whole panels.
    block: Vec<f32>,
    stride: usize,
    sums: Vec<f32>,
}

impl<'a> Weights<'a> {
    #[inline(always)]
    fn new(heads: Heads, query: &'a [f32], key: &[f32]) -> Self {
        let mut keys = Panels::new();
        keys.repack(&Source::transposed(key, heads.head_width(), heads.width), heads.keys);
        keys.pad();
        let stride = keys.columns;
        Weights { heads, query, keys, block: vec![0.0; heads.block() * stride], stride, sums: Vec::new() }
    }

    /// Computes the weights of the queries `first .. end`.
    #[inline(always)]
    fn compute<S: Simd>(&mut self, simd: S, first: usize, end: usize) {
        let heads = self.heads;
        scores(
            simd,
            &self.query[first * heads.width..],
            heads,
            &self.keys,
            &mut self.block,
            end - first,
            end,
        );
        let scale = (heads.head_width() as f32).sqrt().recip();
        self.sums.clear();
        for (query, row) in (first..end).zip(self.block.chunks_exact_mut(self.stride)) {
            self.sums.push(exponentials(simd, row, heads.visible(query + 1), scale));
        }
    }
}

/// `rows . keys`: products of `count` rows, `heads.width` apart, with the keys visible to the query before `end`.
#[inline(always)]
fn scores<S: Simd>(
    simd: S,
    rows: &[f32],
    heads: Heads,
    keys: &Panels,
    block: &mut [f32],
    count: usize,
    end: usize,
) {
    let left = Left::Rows { data: rows, stride: heads.width, channels: heads.head_width() };
    let panels = heads.visible(end).div_ceil(2 * S::F32_LANES);
    let groups = pieces(1, heads.head_width());
    assert!(block.len() >= count * keys.columns, "a block of attention weights");
    let target = Target::new(block, keys.columns);
    // SAFETY: the block has room for every row.
    unsafe { multiply(simd, &left, keys, &groups, 0..count, 0..panels, target, &Finish::NONE) }
}

/// Replaces the first `visible` scores by `exp(scale * (score - largest))`, the others by 0; gives the sum.
#[inline(always)]
fn exponentials<S: Simd>(simd: S, row: &mut [f32], visible: usize, scale: f32) -> f32 {
    let padded = visible.next_multiple_of(S::F32_LANES);
    row[visible..].fill(f32::NEG_INFINITY);
    let (vectors, _) = S::as_mut_simd_f32s(&mut row[..padded]);
    let mut largest = simd.splat_f32s(f32::NEG_INFINITY);
    for vector in vectors.iter() {
        largest = simd.max_f32s(largest, *vector);
    }
    let largest = simd.splat_f32s(simd.reduce_max_f32s(largest));
    let scale = simd.splat_f32s(scale);
    let mut sum = simd.splat_f32s(0.0);
    for vector in vectors.iter_mut() {
        *vector = exp(simd, simd.mul_f32s(simd.sub_f32s(*vector, largest), scale));
        sum = simd.add_f32s(sum, *vector);
    }
    row[visible..].fill(0.0);
    simd.reduce_sum_f32s(sum)
}

#[inline(always)]
fn divide(row: &mut [f32], divisor: f32) {
    let factor = divisor.recip();
    for value in row {
        *value *= factor;
    }
}

/// Gradients of query, key and value.
pub(super) fn attention_gradients(
    [query, key, value]: [&[f32]; 3],
    output: &[f32],
    grad: &[f32],
    heads: Heads,
) -> [Vec<f32>; 3] {
    let mut all = [vec![0.0; query.len()], vec![0.0; key.len()], vec![0.0; value.len()]];
    let targets = all.each_mut().map(|gradient| Target::new(gradient, heads.width));
    (0..heads.batch * heads.num_heads).into_par_iter().for_each(|task| {
        let (from, to) = (heads.origin(task, heads.queries), heads.origin(task, heads.keys));
        // SAFETY: the head's columns are in the gradients.
        let targets = unsafe { [targets[0].skip(0, from), targets[1].skip(0, to), targets[2].skip(0, to)] };
        arch().dispatch(Backward {
            query: &query[from..],
            key: &key[to..],
            value: &value[to..],
            output: &output[from..],
            grad: &grad[from..],
            targets,
            heads,
        });
    });
    all
}

struct Backward<'a> {
    query: &'a [f32],
    key: &'a [f32],
    value: &'a [f32],
    output: &'a [f32],
    grad: &'a [f32],
    /// Of query, key and value; this task's columns.
    targets: [Target; 3],
    heads: Heads,
}

impl WithSimd for Backward<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Backward { query, key, value, output, grad, targets, heads } = self;
        let (width, stride) = (heads.head_width(), heads.width);
        let mut weights = Weights::new(heads, query, key);
        let (mut keys, mut values, mut rows) = (Panels::new(), Panels::new(), Panels::new());
        keys.repack(&Source::matrix(key, heads.keys, stride), width);
        values.repack(&Source::transposed(value, width, stride), heads.keys);
        values.pad();
        let mut slopes = vec![0.0; weights.block.len()];
        let padded = width.next_multiple_of(panel_width());
        let (mut of_key, mut of_value) = (vec![0.0; heads.keys * padded], vec![0.0; heads.keys * padded]);
        let scale = (width as f32).sqrt().recip();
        for first in (0..heads.queries).step_by(heads.block()) {
            let end = heads.queries.min(first + heads.block());
            let (count, seen) = (end - first, heads.visible(end));
            weights.compute(simd, first, end);
            for (row, sum) in weights.block.chunks_exact_mut(weights.stride).zip(&weights.sums) {
                divide(&mut row[..seen], *sum);
            }
            rows.repack(&Source::matrix(&grad[first * stride..], count, stride), width);
            accumulate_rows(simd, &weights.block, weights.stride, count, seen, &rows, &mut of_value);
            scores(simd, &grad[first * stride..], heads, &values, &mut slopes, count, end);
            for row in 0..count {
                let place = (first + row) * stride;
                let along = dot(&output[place..][..width], &grad[place..][..width]);
                let weights = &weights.block[row * weights.stride..][..seen];
                slope(weights, &mut slopes[row * values.columns..][..seen], along, scale);
            }
            let left = Left::Rows { data: &slopes, stride: values.columns, channels: seen };
            // SAFETY: the head's rows `first .. end` are in the query's gradient, and this task's alone.
            unsafe {
                let target = targets[0].skip(first, 0);
                let groups = pieces(1, seen);
                multiply(simd, &left, &keys, &groups, 0..count, 0..keys.count(), target, &Finish::NONE);
            }
            rows.repack(&Source::matrix(&query[first * stride..], count, stride), width);
            accumulate_rows(simd, &slopes, values.columns, count, seen, &rows, &mut of_key);
        }
        for (target, gradient) in [(targets[1], &of_key), (targets[2], &of_value)] {
            for (row, from) in gradient.chunks_exact(padded).enumerate() {
                // SAFETY: the head's columns of every key are in the gradient, and this task's alone.
                unsafe { target.row(row, width).copy_from_slice(&from[..width]) }
            }
        }
    }
}

/// Adds `block^T . panels`, the first `seen` columns of `count` rows of the block.
#[inline(always)]
fn accumulate_rows<S: Simd>(
    simd: S,
    block: &[f32],
    stride: usize,
    count: usize,
    seen: usize,
    panels: &Panels,
    output: &mut [f32],
) {
    let mut runs: Vec<&[f32]> = Vec::new();
    for row in 0..count {
        runs.push(&block[row * stride..][..seen]);
    }
    accumulate_transposed(simd, &runs, seen, panels, output);
}

#[inline(always)]
fn dot(left: &[f32], right: &[f32]) -> f32 {
    let mut sum = 0.0;
    for (a, b) in left.iter().zip(right) {
        sum += a * b;
    }
    sum
}

/// From the gradient of the weights to that of the scores: `weight * (gradient - along) * scale`.
#[inline(always)]
fn slope(weights: &[f32], slopes: &mut [f32], along: f32, scale: f32) {
    for (slope, weight) in slopes.iter_mut().zip(weights) {
        *slope = weight * (*slope - along) * scale;
    }
}
