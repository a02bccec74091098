//! Sheets of small images as one PNG.

use image::{Rgb, RgbImage};
use std::path::Path;

use crate::error::Error;

/// Space between two images in pixels.
const GAP: u32 = 2;

/// Writes images in rows, each `[S, S, 3]` bytes, with white gaps.
///
/// # Errors
///
/// Fails if the file cannot be written.
pub fn write(rows: &[Vec<Vec<u8>>], side: usize, path: &Path) -> Result<(), Error> {
    let side = side as u32;
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0) as u32;
    let extent = |count: u32| count * (side + GAP) + GAP;
    let mut sheet = RgbImage::from_pixel(extent(columns), extent(rows.len() as u32), Rgb([255; 3]));
    for (row, images) in (0..).zip(rows) {
        for (column, bytes) in (0..).zip(images) {
            let (left, top) = (extent(column), extent(row));
            for (index, pixel) in (0_u32..).zip(bytes.chunks_exact(3)) {
                let (x, y) = (left + index % side, top + index / side);
                sheet.put_pixel(x, y, Rgb([pixel[0], pixel[1], pixel[2]]));
            }
        }
    }
    sheet.save(path).map_err(|source| Error::Png { path: path.to_path_buf(), source })
}
