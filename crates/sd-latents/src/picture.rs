//! Images as PNG files.

use std::io::Cursor;

use image::codecs::png::{CompressionType, FilterType, PngEncoder};
use image::{ImageEncoder, ImageError, ImageFormat};

/// The image `[H, W, 3]` as PNG with fixed settings, read back to be sure that it decodes.
pub fn encode_png(rgb: &[u8], [height, width]: [usize; 2]) -> Result<Vec<u8>, ImageError> {
    let too_large = |_| {
        let kind = image::error::ParameterErrorKind::DimensionMismatch;
        ImageError::Parameter(image::error::ParameterError::from_kind(kind))
    };
    let (width, height) =
        (u32::try_from(width).map_err(too_large)?, u32::try_from(height).map_err(too_large)?);
    let mut bytes = Vec::new();
    PngEncoder::new_with_quality(Cursor::new(&mut bytes), CompressionType::Default, FilterType::Adaptive)
        .write_image(rgb, width, height, image::ExtendedColorType::Rgb8)?;
    image::load_from_memory_with_format(&bytes, ImageFormat::Png)?;
    Ok(bytes)
}
