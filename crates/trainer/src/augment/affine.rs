//! Affine transforms with Pillow's bicubic filter (Pillow 13.0.0, `libImaging/Geometry.c`): the kernel has a = -1, pixels
//! outside the image are clamped to its edge, and an output pixel whose centre falls outside takes the fill colour.

use image::{Rgb, RgbImage};

/// `x_in = a x + b y + c`, `y_in = d x + e y + f`, as Pillow's `AFFINE` data.
pub type Matrix = [f64; 6];

/// Shears along x.
pub fn shear_x(factor: f64) -> Matrix {
    [1.0, factor, 0.0, 0.0, 1.0, 0.0]
}

/// Shears along y.
pub fn shear_y(factor: f64) -> Matrix {
    [1.0, 0.0, 0.0, factor, 1.0, 0.0]
}

/// Moves the content to the left and up by these pixels.
pub fn translate(x: f64, y: f64) -> Matrix {
    [1.0, 0.0, x, 0.0, 1.0, y]
}

/// Rotates by `degrees` counter-clockwise about the centre, with sine and cosine rounded to 15 decimals as Pillow does.
pub fn rotate(degrees: f64, (width, height): (u32, u32)) -> Matrix {
    let angle = -degrees.rem_euclid(360.0).to_radians();
    let rounded = |value: f64| (value * 1e15).round_ties_even() / 1e15;
    let (cos, sin) = (rounded(angle.cos()), rounded(angle.sin()));
    let (x, y) = (f64::from(width) / 2.0, f64::from(height) / 2.0);
    [cos, sin, cos * -x + sin * -y + x, -sin, cos, -sin * -x + cos * -y + y]
}

/// Transforms `image`; the result has the same size.
pub fn transform(image: &RgbImage, matrix: Matrix, fill: Rgb<u8>) -> RgbImage {
    let (width, height) = image.dimensions();
    let [a, b, c, d, e, f] = matrix;
    RgbImage::from_fn(width, height, |x, y| {
        let (x, y) = (f64::from(x) + 0.5, f64::from(y) + 0.5);
        bicubic(image, a * x + b * y + c, d * x + e * y + f).unwrap_or(fill)
    })
}

/// The image at a point; `None` outside of it.
fn bicubic(image: &RgbImage, x: f64, y: f64) -> Option<Rgb<u8>> {
    let (width, height) = (i64::from(image.width()), i64::from(image.height()));
    if x < 0.0 || x >= width as f64 || y < 0.0 || y >= height as f64 {
        return None;
    }
    let (x, y) = (x - 0.5, y - 0.5);
    let (column, row) = (x.floor() as i64, y.floor() as i64);
    let (dx, dy) = (x - column as f64, y - row as f64);
    let columns = [-1, 0, 1, 2].map(|offset| (column + offset).clamp(0, width - 1) as u32);
    Some(Rgb([0, 1, 2].map(|channel| {
        let along = |row: i64| {
            let row = row.clamp(0, height - 1) as u32;
            cubic(columns.map(|column| f64::from(image.get_pixel(column, row)[channel])), dx)
        };
        // A row below the image repeats the value of the row above it, which clamping gives as well.
        let value = cubic([-1, 0, 1, 2].map(|offset| along(row + offset)), dy);
        // Truncation, as the C code's cast.
        value.clamp(0.0, 255.0) as u8
    })))
}

/// The cubic through four samples at -1, 0, 1, 2, with a = -1.
fn cubic([v1, v2, v3, v4]: [f64; 4], d: f64) -> f64 {
    let p2 = -v1 + v3;
    let p3 = 2.0 * (v1 - v2) + v3 - v4;
    let p4 = -v1 + v2 - v3 + v4;
    v2 + d * (p2 + d * (p3 + d * p4))
}
