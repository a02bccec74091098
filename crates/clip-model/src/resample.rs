//! Bicubic resampling: Pillow's fixed-point resize for images, PyTorch's interpolation for position embeddings.

use image::RgbImage;

/// Fractional bits of the coefficients, as in Pillow's `PRECISION_BITS` for 8-bit channels.
const PRECISION_BITS: u32 = 22;

/// Resizes an image as Pillow 13's `Image.resize(.., BICUBIC)` does, sample for sample.
///
/// Antialiased: the kernel (a = -0.5) widens with the scale. Two passes, each rounded to 8 bits; a pass that changes nothing
/// is left out. Columns come first unless the rows shrink by more than twice as many pixels as the columns do: found by
/// comparing 3582 random sizes with Pillow 13.0.0. Older releases always start with the columns, so their results differ by
/// a few levels for images that are more than twice as tall as wide.
///
/// # Panics
///
/// Panics if the image or the target is empty.
pub fn resize_bicubic(image: &RgbImage, width: u32, height: u32) -> RgbImage {
    assert!(image.width() > 0 && image.height() > 0, "the image has no pixels");
    assert!(width > 0 && height > 0, "the target has no pixels");
    let lost_columns = u64::from(image.width().saturating_sub(width));
    let lost_rows = u64::from(image.height().saturating_sub(height));
    if lost_rows > 2 * lost_columns {
        resize_width(resize_height(image.clone(), height), width)
    } else {
        resize_height(resize_width(image.clone(), width), height)
    }
}

/// The source samples of one output sample.
struct Window {
    first: usize,
    coefficients: Vec<i64>,
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

/// Windows and fixed-point coefficients of one axis.
fn windows(input: usize, output: usize) -> Vec<Window> {
    let scale = input as f64 / output as f64;
    let filter_scale = scale.max(1.0);
    let support = 2.0 * filter_scale;
    let inverse = 1.0 / filter_scale;
    (0..output)
        .map(|index| {
            let center = (index as f64 + 0.5) * scale;
            // Truncation towards zero, then clamping to the image.
            let first = ((center - support + 0.5) as i64).max(0) as usize;
            let end = ((center + support + 0.5) as i64).min(input as i64) as usize;
            let mut weights: Vec<f64> =
                (first..end).map(|x| pillow_kernel((x as f64 - center + 0.5) * inverse)).collect();
            let total: f64 = weights.iter().sum();
            if total != 0.0 {
                weights.iter_mut().for_each(|weight| *weight /= total);
            }
            let coefficients = weights
                .iter()
                .map(|weight| (weight * f64::from(1 << PRECISION_BITS) + 0.5f64.copysign(*weight)) as i64)
                .collect();
            Window { first, coefficients }
        })
        .collect()
}

/// Rounds a fixed-point sum half up and clips it to 8 bits.
fn clip8(sum: i64) -> u8 {
    ((sum + (1 << (PRECISION_BITS - 1))) >> PRECISION_BITS).clamp(0, 255) as u8
}

fn resize_width(image: RgbImage, width: u32) -> RgbImage {
    if image.width() == width {
        return image;
    }
    let windows = windows(image.width() as usize, width as usize);
    let row_length = image.width() as usize * 3;
    let mut out = Vec::with_capacity(width as usize * image.height() as usize * 3);
    for row in image.as_raw().chunks_exact(row_length) {
        for window in &windows {
            let mut sums = [0i64; 3];
            for (pixel, coefficient) in row[window.first * 3..].chunks_exact(3).zip(&window.coefficients) {
                for (sum, &sample) in sums.iter_mut().zip(pixel) {
                    *sum += i64::from(sample) * coefficient;
                }
            }
            out.extend(sums.map(clip8));
        }
    }
    RgbImage::from_raw(width, image.height(), out).expect("one pixel was written per column and row")
}

fn resize_height(image: RgbImage, height: u32) -> RgbImage {
    if image.height() == height {
        return image;
    }
    let row_length = image.width() as usize * 3;
    let samples = image.as_raw();
    let mut out = Vec::with_capacity(row_length * height as usize);
    let mut sums = vec![0i64; row_length];
    for window in windows(image.height() as usize, height as usize) {
        sums.fill(0);
        for (row, coefficient) in
            samples[window.first * row_length..].chunks_exact(row_length).zip(&window.coefficients)
        {
            for (sum, &sample) in sums.iter_mut().zip(row) {
                *sum += i64::from(sample) * coefficient;
            }
        }
        out.extend(sums.iter().copied().map(clip8));
    }
    RgbImage::from_raw(image.width(), height, out).expect("one row was written per output row")
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
