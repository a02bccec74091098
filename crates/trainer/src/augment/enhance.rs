//! Pillow's `ImageEnhance` (Pillow 13.0.0): a blend of the image with a degenerate form of it.

use image::RgbImage;

/// Saturation: 0 gives grey, 1 the image.
pub fn color(image: &RgbImage, factor: f32) -> RgbImage {
    let mut grey = image.clone();
    grey.pixels_mut().for_each(|pixel| pixel.0 = [luma(pixel.0); 3]);
    blend(&grey, image, factor)
}

/// 0 gives the mean grey, 1 the image.
pub fn contrast(image: &RgbImage, factor: f32) -> RgbImage {
    let sum: u64 = image.pixels().map(|pixel| u64::from(luma(pixel.0))).sum();
    let count = u64::from(image.width()) * u64::from(image.height());
    let mean = (sum as f64 / count.max(1) as f64 + 0.5) as u8;
    let (width, height) = image.dimensions();
    blend(&RgbImage::from_pixel(width, height, image::Rgb([mean; 3])), image, factor)
}

/// 0 gives black, 1 the image.
pub fn brightness(image: &RgbImage, factor: f32) -> RgbImage {
    blend(&RgbImage::new(image.width(), image.height()), image, factor)
}

/// 0 gives a smoothed image, 1 the image, 2 a sharpened one.
pub fn sharpness(image: &RgbImage, factor: f32) -> RgbImage {
    blend(&smooth(image), image, factor)
}

/// ITU-R 601-2 luma in 16-bit fixed point, as Pillow's conversion to `L`.
fn luma([r, g, b]: [u8; 3]) -> u8 {
    ((u32::from(r) * 19595 + u32::from(g) * 38470 + u32::from(b) * 7471 + 0x8000) >> 16) as u8
}

/// `a + factor * (b - a)` in f32, clipped, truncated.
fn blend(a: &RgbImage, b: &RgbImage, factor: f32) -> RgbImage {
    let mut out = b.clone();
    if factor == 1.0 {
        return out;
    }
    for (out, a) in out.iter_mut().zip(a.iter()) {
        let (a, b) = (f32::from(*a), f32::from(*out));
        *out = (a + factor * (b - a)).clamp(0.0, 255.0) as u8;
    }
    out
}

/// Pillow's `SMOOTH` filter: weights 1, in the middle 5, over 13; the outermost pixels stay as they are.
fn smooth(image: &RgbImage) -> RgbImage {
    let (width, height) = image.dimensions();
    let mut out = image.clone();
    for y in 1..height.saturating_sub(1) {
        for x in 1..width.saturating_sub(1) {
            for channel in 0..3 {
                // Weights and sums in f32, added row by row from below, as the C code's 3 x 3 kernel.
                let at = |dx: u32, dy: u32| f32::from(image.get_pixel(x + dx - 1, y + dy - 1)[channel]);
                let side = 1.0f32 / 13.0;
                let row = |dy: u32, middle: f32| at(0, dy) * side + at(1, dy) * middle + at(2, dy) * side;
                let value = 0.5 + row(2, side) + row(1, 5.0 / 13.0) + row(0, side);
                out.get_pixel_mut(x, y)[channel] = value.clamp(0.0, 255.0) as u8;
            }
        }
    }
    out
}
