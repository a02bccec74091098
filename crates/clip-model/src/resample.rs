//! Bicubic resampling: Pillow's fixed-point resize for images, PyTorch's interpolation for position embeddings.
//!
//! Pillow's algorithm (Pillow 13.0.0, `libImaging/Resample.c`): antialiased, the kernel (a = -0.5) widens with the scale;
//! two passes, each rounded to 8 bits; coefficients with 22 fractional bits. Only what a crop of the result shows is computed.

use std::ops::Range;

use image::RgbImage;

use crate::resample_kernels::{columns_pass, rows_pass};

/// Fractional bits of the coefficients, as in Pillow's `PRECISION_BITS` for 8-bit channels.
pub(crate) const PRECISION_BITS: u32 = 22;
/// One half in fixed point: sums start with it, so that the shift at the end rounds half up.
pub(crate) const HALF: i32 = 1 << (PRECISION_BITS - 1);

/// Resizes an image as Pillow 13's `Image.resize(.., BICUBIC)` does, sample for sample.
///
/// Columns come first unless the rows shrink by more than twice as many pixels as the columns do. Pillow before 13 always
/// starts with the columns, so its results differ by a few levels for images that are more than twice as tall as wide.
///
/// # Panics
///
/// Panics if the image or the target is empty.
pub fn resize_bicubic(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    let target = Target { size: (width, height), columns: 0..width, rows: 0..height };
    let samples = resize::<3>(image.as_raw(), image.dimensions(), &target);
    RgbImage::from_raw(width, height, samples).expect("one pixel was written per column and row")
}

/// A resized image and the part of it that is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// Width and height of the whole result.
    pub size: (u32, u32),
    /// The wanted columns of it.
    pub columns: Range<u32>,
    /// The wanted rows of it.
    pub rows: Range<u32>,
}

impl Target {
    /// Number of wanted columns and rows.
    pub fn extent(&self) -> (usize, usize) {
        (self.columns.len(), self.rows.len())
    }
}

/// One axis of a resize.
pub(crate) struct Axis {
    /// The source samples of each wanted output sample.
    pub windows: Vec<Window>,
    /// Every source sample that some window reads.
    pub reads: Range<usize>,
    /// Whether the axis keeps its size: the pass is left out, as in Pillow, and `windows` is empty.
    pub is_copy: bool,
}

/// The source samples of one output sample.
pub(crate) struct Window {
    /// The first source sample.
    pub first: usize,
    /// Weights from there on, summing to one.
    pub weights: Vec<f64>,
}

impl Window {
    /// The weights in fixed point, rounded half away from zero.
    pub fn coefficients(&self) -> Vec<i32> {
        let fixed =
            |weight: &f64| (weight * f64::from(1 << PRECISION_BITS) + 0.5f64.copysign(*weight)) as i32;
        self.weights.iter().map(fixed).collect()
    }
}

impl Axis {
    /// The windows of the output samples `wanted` when `input` samples become `output`.
    pub fn new(input: u32, output: u32, wanted: Range<u32>) -> Self {
        if input == output {
            let reads = wanted.start as usize..wanted.end as usize;
            return Axis { windows: Vec::new(), reads, is_copy: true };
        }
        let scale = f64::from(input) / f64::from(output);
        let filter_scale = scale.max(1.0);
        let support = 2.0 * filter_scale;
        let inverse = 1.0 / filter_scale;
        let window = |index: u32| {
            let center = (f64::from(index) + 0.5) * scale;
            // Truncation towards zero, then clamping to the image.
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).min(i64::from(input)) as usize;
            let mut weights: Vec<f64> =
                (first..end).map(|x| pillow_kernel((x as f64 - center + 0.5) * inverse)).collect();
            let total: f64 = weights.iter().sum();
            if total != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= total);
            }
            Window { first, weights }
        };
        let windows: Vec<Window> = wanted.map(window).collect();
        let start = windows.iter().map(|window| window.first).min().unwrap_or(0);
        let end = windows.iter().map(|window| window.first + window.weights.len()).max().unwrap_or(start);
        Axis { windows, reads: start..end, is_copy: false }
    }
}

/// Bicubic kernel with a = -0.5.
fn pillow_kernel(x: f64) -> f64 {
    const A: f64 = -0.5;
    let x = x.abs();
    if x < 1.0 {
        ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0
    } else if x < 2.0 {
        (((x - 5.0) * x + 8.0) * x - 4.0) * A
    } else {
        0.0
    }
}

/// Whether Pillow 13 resizes the columns of each row first: cheaper unless the height shrinks much more than the width.
pub(crate) fn columns_first(from: (u32, u32), to: (u32, u32)) -> bool {
    let lost_columns = i64::from(from.0) - i64::from(to.0);
    let lost_rows = i64::from(from.1) - i64::from(to.1);
    !(lost_rows > 0 && lost_rows > 2 * lost_columns)
}

/// The wanted part of a resized image of `C` interleaved 8-bit channels.
///
/// # Panics
///
/// Panics if the image or the target is empty, or if `samples` does not hold `size.0 * size.1 * C` samples.
pub(crate) fn resize<const C: usize>(samples: &[u8], size: (u32, u32), target: &Target) -> Vec<u8> {
    assert!(size.0 > 0 && size.1 > 0, "the image has no pixels");
    assert!(!target.columns.is_empty() && !target.rows.is_empty(), "the target has no pixels");
    let stride = size.0 as usize * C;
    assert_eq!(samples.len(), stride * size.1 as usize, "the image has one row of samples per pixel row");
    let horizontal = Axis::new(size.0, target.size.0, target.columns.clone());
    let vertical = Axis::new(size.1, target.size.1, target.rows.clone());
    if columns_first(size, target.size) {
        let read = vertical.reads.clone();
        let rows = &samples[read.start * stride..read.end * stride];
        let narrowed = columns_pass::<C>(rows, size.0 as usize, 0, &horizontal);
        let width = target.columns.len();
        rows_pass(&narrowed, width * C, 0..width * C, read.start, &vertical)
    } else {
        let read = horizontal.reads.clone();
        let flattened = rows_pass(samples, stride, read.start * C..read.end * C, 0, &vertical);
        columns_pass::<C>(&flattened, read.len(), read.start, &horizontal)
    }
}

/// The wanted part of a resized image of 16-bit grey: sums in double precision, each pass rounded to 16 bits.
pub(crate) fn resize_grey16(samples: &[u16], size: (u32, u32), target: &Target) -> Vec<u16> {
    let horizontal = Axis::new(size.0, target.size.0, target.columns.clone());
    let vertical = Axis::new(size.1, target.size.1, target.rows.clone());
    let stride = size.0 as usize;
    let round = |sum: f64| (if sum >= 0.0 { sum + 0.5 } else { sum - 0.5 } as i64).clamp(0, 65535) as u16;
    let narrow = |samples: &[u16], stride: usize, start: usize| -> Vec<u16> {
        let row_of = |row: &[u16]| -> Vec<u16> {
            if horizontal.is_copy {
                return row[horizontal.reads.start - start..horizontal.reads.end - start].to_vec();
            }
            let sum = |window: &Window| {
                row[window.first - start..].iter().zip(&window.weights).map(|(s, w)| f64::from(*s) * w).sum()
            };
            horizontal.windows.iter().map(|window| round(sum(window))).collect()
        };
        samples.chunks_exact(stride).flat_map(row_of).collect()
    };
    let flatten = |samples: &[u16], stride: usize, columns: Range<usize>, start: usize| -> Vec<u16> {
        let at = |row: usize, column: usize| samples[(row - start) * stride + column];
        if vertical.is_copy {
            let rows = vertical.reads.clone();
            return rows.flat_map(|row| columns.clone().map(move |column| at(row, column))).collect();
        }
        let mut out = Vec::with_capacity(vertical.windows.len() * columns.len());
        for window in &vertical.windows {
            for column in columns.clone() {
                let rows = window.first..;
                let sum: f64 = rows.zip(&window.weights).map(|(row, w)| f64::from(at(row, column)) * w).sum();
                out.push(round(sum));
            }
        }
        out
    };
    if columns_first(size, target.size) {
        let read = vertical.reads.clone();
        let narrowed = narrow(&samples[read.start * stride..read.end * stride], stride, 0);
        let width = target.columns.len();
        flatten(&narrowed, width, 0..width, read.start)
    } else {
        let read = horizontal.reads.clone();
        let flattened = flatten(samples, stride, read.clone(), 0);
        narrow(&flattened, read.len(), read.start)
    }
}

/// The wanted part of an image resized to the nearest pixels, as Pillow does for palette and bilevel images whatever filter
/// is asked for.
pub(crate) fn resize_nearest(samples: &[u8], size: (u32, u32), target: &Target) -> Vec<u8> {
    // Pillow adds the scale up step by step instead of multiplying, so its rounding errors accumulate.
    let positions = |input: u32, output: u32, wanted: &Range<u32>| -> Vec<usize> {
        let scale = f64::from(input) / f64::from(output);
        let mut at = scale * 0.5;
        let mut positions = Vec::with_capacity(wanted.len());
        for index in 0..wanted.end {
            if index >= wanted.start {
                positions.push((at as usize).min(input as usize - 1));
            }
            at += scale;
        }
        positions
    };
    let columns = positions(size.0, target.size.0, &target.columns);
    let rows = positions(size.1, target.size.1, &target.rows);
    let stride = size.0 as usize;
    let pick = |row: &usize| columns.iter().map(|column| samples[row * stride + column]).collect::<Vec<u8>>();
    rows.iter().flat_map(pick).collect()
}

/// One axis of PyTorch's bicubic `interpolate` (`align_corners=False`, no antialias, a = -0.75) as a matrix
/// `[output, input]` in row-major order.
pub(crate) fn bicubic_matrix(input: usize, output: usize) -> Vec<f32> {
    let mut matrix = vec![0f32; output * input];
    let scale = input as f32 / output as f32;
    for (index, row) in matrix.chunks_exact_mut(input).enumerate() {
        let source = scale * (index as f32 + 0.5) - 0.5;
        let floor = source.floor();
        for (tap, weight) in pytorch_weights(source - floor).into_iter().enumerate() {
            // Taps beyond the border read the border.
            let at = (floor as i64 + tap as i64 - 1).clamp(0, input as i64 - 1);
            row[at as usize] += weight;
        }
    }
    matrix
}

/// Weights of the four taps at distances 1 + t, t, 1 - t and 2 - t.
fn pytorch_weights(t: f32) -> [f32; 4] {
    const A: f32 = -0.75;
    let near = |x: f32| ((A + 2.0) * x - (A + 3.0)) * x * x + 1.0;
    let far = |x: f32| ((A * x - 5.0 * A) * x + 8.0 * A) * x - 4.0 * A;
    [far(t + 1.0), near(t), near(1.0 - t), far(2.0 - t)]
}
