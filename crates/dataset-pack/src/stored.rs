//! Photographs made smaller before they are stored.
//!
//! The shorter side becomes that of the specification, by bicubic resampling (a = -0.5) with antialiasing in 8 bits, width
//! first, the kernel of Pillow's `BICUBIC`; the picture is then encoded again. An image that is small
//! enough keeps its bytes, and so does one whose colours or depth would be converted by that (CMYK, 16 bits).

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use image::{ImageEncoder as _, RgbImage};
use pipeline_spec::spec::{StoredFormat, StoredSize};

use crate::photo::{Header, decode_rgb};

/// The bytes to store for an image; `None` if it keeps its own.
///
/// # Errors
///
/// Says why the image cannot be decoded or encoded.
pub fn shrink(bytes: &[u8], header: &Header, stored: &StoredSize) -> Result<Option<Vec<u8>>, String> {
    let shorter = header.width.min(header.height);
    if shorter <= stored.shorter_side || header.cmyk || header.bits > 8 {
        return Ok(None);
    }
    let rgb = decode_rgb(bytes, header)?;
    let small = resize_shorter(&rgb, stored.shorter_side)?;
    encode(&small, stored.format).map(Some)
}

/// Width and height after the shorter side became `shorter`; the longer one is cut to whole pixels, as torchvision does.
fn scaled(width: u32, height: u32, shorter: u32) -> (u32, u32) {
    let long = |long: u32, short: u32| (u64::from(shorter) * u64::from(long) / u64::from(short)) as u32;
    if width <= height { (shorter, long(height, width)) } else { (long(width, height), shorter) }
}

/// The image with its shorter side made `shorter` pixels.
///
/// # Errors
///
/// Says why it cannot be resized.
pub fn resize_shorter(rgb: &RgbImage, shorter: u32) -> Result<RgbImage, String> {
    resize(rgb, scaled(rgb.width(), rgb.height(), shorter))
}

fn resize(rgb: &RgbImage, (width, height): (u32, u32)) -> Result<RgbImage, String> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot be resized: {e}");
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::CatmullRom));
    let mut resizer = Resizer::new();
    let source = ImageRef::new(rgb.width(), rgb.height(), rgb.as_raw(), PixelType::U8x3);
    let source = source.map_err(|e| failed(&e))?;
    let mut wide = Image::new(width, rgb.height(), PixelType::U8x3);
    resizer.resize(&source, &mut wide, &options).map_err(|e| failed(&e))?;
    let mut small = Image::new(width, height, PixelType::U8x3);
    resizer.resize(&wide, &mut small, &options).map_err(|e| failed(&e))?;
    RgbImage::from_raw(width, height, small.into_vec()).ok_or_else(|| failed(&"too few pixels"))
}

fn encode(rgb: &RgbImage, format: StoredFormat) -> Result<Vec<u8>, String> {
    let failed = |e: &dyn std::fmt::Display| format!("cannot be encoded: {e}");
    let (width, height) = rgb.dimensions();
    let mut bytes = Vec::new();
    match format {
        StoredFormat::Jpeg { quality } => {
            let side = |n: u32| u16::try_from(n).map_err(|_| failed(&"a side has more than 65535 pixels"));
            let mut encoder = jpeg_encoder::Encoder::new(&mut bytes, quality);
            encoder.set_sampling_factor(jpeg_encoder::SamplingFactor::F_1_1);
            encoder
                .encode(rgb.as_raw(), side(width)?, side(height)?, jpeg_encoder::ColorType::Rgb)
                .map_err(|e| failed(&e))?;
        }
        StoredFormat::Png => {
            let encoder = image::codecs::png::PngEncoder::new(&mut bytes);
            let color = image::ExtendedColorType::Rgb8;
            encoder.write_image(rgb.as_raw(), width, height, color).map_err(|e| failed(&e))?;
        }
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::scaled;

    #[test]
    fn the_shorter_side_becomes_the_one_asked_for() {
        assert_eq!(scaled(512, 384, 224), (298, 224));
        assert_eq!(scaled(333, 500, 224), (224, 336));
        assert_eq!(scaled(100, 100, 64), (64, 64));
    }
}
