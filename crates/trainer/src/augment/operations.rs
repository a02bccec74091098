//! The fifteen operations of timm's RandAugment in their "increasing" forms, as Pillow computes them.

use image::{Rgb, RgbImage};

use super::affine::{rotate, shear_x, shear_y, transform, translate};
use super::enhance::{brightness, color, contrast, sharpness};

/// CLIP's mean in 8 bits, which timm fills empty corners with.
pub const FILL: Rgb<u8> = Rgb([123, 117, 104]);
/// The highest level.
pub const MAX_LEVEL: f64 = 10.0;

/// An operation, in timm's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)] // the names are the field's
pub enum Operation {
    AutoContrast,
    Equalize,
    Invert,
    Rotate,
    Posterize,
    Solarize,
    SolarizeAdd,
    Color,
    Contrast,
    Brightness,
    Sharpness,
    ShearX,
    ShearY,
    TranslateX,
    TranslateY,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::AutoContrast,
        Self::Equalize,
        Self::Invert,
        Self::Rotate,
        Self::Posterize,
        Self::Solarize,
        Self::SolarizeAdd,
        Self::Color,
        Self::Contrast,
        Self::Brightness,
        Self::Sharpness,
        Self::ShearX,
        Self::ShearY,
        Self::TranslateX,
        Self::TranslateY,
    ];

    /// Whether the level has a direction, which is drawn.
    pub fn is_signed(self) -> bool {
        !matches!(
            self,
            Self::AutoContrast
                | Self::Equalize
                | Self::Invert
                | Self::Posterize
                | Self::Solarize
                | Self::SolarizeAdd
        )
    }

    /// Applies the operation at `level` (0 to 10), in the other direction if `is_negative`.
    pub fn apply(self, image: &RgbImage, level: f64, is_negative: bool) -> RgbImage {
        let share = level / MAX_LEVEL;
        let signed = |value: f64| if is_negative { -value } else { value };
        let factor = (1.0 + signed(share * 0.9)).max(0.1) as f32;
        let (width, height) = image.dimensions();
        match self {
            Self::AutoContrast => by_channel(image, auto_contrast),
            Self::Equalize => by_channel(image, equalize),
            Self::Invert => by_value(image, |value| 255 - value),
            Self::Rotate => match signed(share * 30.0) {
                0.0 => image.clone(),
                degrees => transform(image, rotate(degrees, (width, height)), FILL),
            },
            Self::Posterize => {
                let bits = 4 - (share * 4.0) as u32;
                by_value(image, |value| value & !((1u16 << (8 - bits)) - 1) as u8)
            }
            Self::Solarize => {
                let threshold = 256 - ((share * 256.0) as i32).min(256);
                by_value(image, |value| if i32::from(value) < threshold { value } else { 255 - value })
            }
            Self::SolarizeAdd => {
                let add = ((share * 110.0) as u8).min(128);
                by_value(image, |value| if value < 128 { value.saturating_add(add) } else { value })
            }
            Self::Color => color(image, factor),
            Self::Contrast => contrast(image, factor),
            Self::Brightness => brightness(image, factor),
            Self::Sharpness => sharpness(image, factor),
            Self::ShearX => transform(image, shear_x(signed(share * 0.3)), FILL),
            Self::ShearY => transform(image, shear_y(signed(share * 0.3)), FILL),
            Self::TranslateX => {
                transform(image, translate(signed(share * 0.45) * f64::from(width), 0.0), FILL)
            }
            Self::TranslateY => {
                transform(image, translate(0.0, signed(share * 0.45) * f64::from(height)), FILL)
            }
        }
    }
}

/// Replaces every sample.
fn by_value(image: &RgbImage, map: impl Fn(u8) -> u8) -> RgbImage {
    let mut out = image.clone();
    out.iter_mut().for_each(|value| *value = map(*value));
    out
}

/// Replaces the samples of each channel by a table that is made from its histogram.
fn by_channel(image: &RgbImage, table: impl Fn(&[u32; 256]) -> Option<[u8; 256]>) -> RgbImage {
    let mut out = image.clone();
    for channel in 0..3 {
        let mut histogram = [0; 256];
        image.pixels().for_each(|pixel| histogram[usize::from(pixel[channel])] += 1);
        if let Some(table) = table(&histogram) {
            out.pixels_mut().for_each(|pixel| pixel[channel] = table[usize::from(pixel[channel])]);
        }
    }
    out
}

/// The darkest value becomes 0, the brightest 255; `None` where there is only one.
fn auto_contrast(histogram: &[u32; 256]) -> Option<[u8; 256]> {
    let low = histogram.iter().position(|count| *count > 0)?;
    let high = histogram.iter().rposition(|count| *count > 0)?;
    if high <= low {
        return None;
    }
    let scale = 255.0 / (high - low) as f64;
    let offset = -(low as f64) * scale;
    Some(std::array::from_fn(|value| (value as f64 * scale + offset).clamp(0.0, 255.0) as u8))
}

/// Spreads the values evenly; `None` where there is nothing to spread.
fn equalize(histogram: &[u32; 256]) -> Option<[u8; 256]> {
    let last = *histogram.iter().rfind(|count| **count > 0)?;
    let step = (histogram.iter().sum::<u32>() - last) / 255;
    if step == 0 {
        return None;
    }
    let mut sum = step / 2;
    Some(std::array::from_fn(|value| {
        let level = (sum / step).min(255) as u8;
        sum += histogram[value];
        level
    }))
}
