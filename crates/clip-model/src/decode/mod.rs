//! PNG and JPEG files to pixels, in the modes Pillow 13 opens them with, and Pillow's conversion of these modes to RGB.
//!
//! Nothing is applied that Pillow does not apply by itself: no EXIF orientation, no gamma, no colour profile.
//! Memory is bounded before anything is allocated: at most [`MAX_IMAGE_PIXELS`] pixels, and no more than the bytes of the
//! file can hold.

mod jpeg;
mod png;

use std::fs;
use std::path::Path;

use image::RgbImage;

pub use jpeg::jpeg_decoder;

use crate::Error;
use crate::resample::{Target, resize, resize_grey16, resize_nearest};

/// The largest number of pixels of an image: the bound above which Pillow reports a decompression bomb.
pub const MAX_IMAGE_PIXELS: u64 = 2 * 89_478_485;

/// An image as its file holds it.
#[derive(Debug, Clone, PartialEq)]
pub struct DecodedImage {
    width: u32,
    height: u32,
    pixels: Pixels,
}

/// Samples in rows from the top, channels interleaved; the names in the comments are Pillow's modes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Pixels {
    /// `1`: 0 or 255.
    Bilevel(Vec<u8>),
    /// `L`.
    Grey(Vec<u8>),
    /// `LA`.
    GreyAlpha(Vec<u8>),
    /// `I;16`.
    Grey16(Vec<u16>),
    /// `RGB`.
    Rgb(Vec<u8>),
    /// `RGBA`.
    Rgba(Vec<u8>),
    /// `P`: indices and the colours they stand for.
    Palette(Vec<u8>, Box<[[u8; 3]; 256]>),
    /// `CMYK`, ink 0 is none.
    Cmyk(Vec<u8>),
}

impl DecodedImage {
    /// Reads a PNG or JPEG file.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be read, is neither PNG nor JPEG, is damaged or cut off, or has more pixels than
    /// [`MAX_IMAGE_PIXELS`] or than its bytes can hold.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let bytes = fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        Self::from_bytes(&bytes, path)
    }

    /// Decodes a PNG or JPEG file that has been read; `path` names it in errors.
    ///
    /// # Errors
    ///
    /// As [`DecodedImage::open`].
    pub fn from_bytes(bytes: &[u8], path: &Path) -> Result<Self, Error> {
        if bytes.starts_with(b"\x89PNG\r\n\x1a\n") {
            png::decode(bytes, path)
        } else if bytes.starts_with(&[0xff, 0xd8, 0xff]) {
            jpeg::decode(bytes, path)
        } else {
            let found: Vec<String> = bytes.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
            Err(Error::ImageFormat { path: path.to_owned(), found: found.join(" ") })
        }
    }

    /// Width in pixels, at least 1.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height in pixels, at least 1.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Pillow's name of the mode.
    pub fn mode(&self) -> &'static str {
        match self.pixels {
            Pixels::Bilevel(_) => "1",
            Pixels::Grey(_) => "L",
            Pixels::GreyAlpha(_) => "LA",
            Pixels::Grey16(_) => "I;16",
            Pixels::Rgb(_) => "RGB",
            Pixels::Rgba(_) => "RGBA",
            Pixels::Palette(..) => "P",
            Pixels::Cmyk(_) => "CMYK",
        }
    }

    /// Colours as Pillow's `convert("RGB")` gives them: grey is repeated, alpha and transparent colours are dropped without
    /// blending, 16-bit grey is clipped to 255 (not scaled), ink is multiplied out.
    pub fn into_rgb(self) -> RgbImage {
        let repeat = |grey: u8| [grey; 3];
        let samples = match self.pixels {
            Pixels::Rgb(samples) => samples,
            Pixels::Bilevel(samples) | Pixels::Grey(samples) => {
                samples.into_iter().flat_map(repeat).collect()
            }
            Pixels::GreyAlpha(samples) => {
                samples.as_chunks::<2>().0.iter().flat_map(|pixel| repeat(pixel[0])).collect()
            }
            Pixels::Grey16(samples) => {
                samples.into_iter().flat_map(|sample| repeat(sample.min(255) as u8)).collect()
            }
            Pixels::Rgba(samples) => without_alpha(&samples),
            Pixels::Palette(indices, colors) => {
                indices.into_iter().flat_map(|index| colors[usize::from(index)]).collect()
            }
            Pixels::Cmyk(samples) => samples.as_chunks::<4>().0.iter().flat_map(cmyk_to_rgb).collect(),
        };
        RgbImage::from_raw(self.width, self.height, samples)
            .expect("every mode gives three samples per pixel")
    }

    /// Part of the resized image, with Pillow's rules for each mode: palette and bilevel images take the nearest pixel, alpha
    /// is multiplied in before the bicubic resize and divided out after it.
    pub(crate) fn resize(&self, target: &Target) -> DecodedImage {
        let size = (self.width, self.height);
        let is_whole = target.size == size;
        let pixels = match &self.pixels {
            Pixels::Bilevel(samples) => Pixels::Bilevel(resize_nearest(samples, size, target)),
            Pixels::Grey(samples) => Pixels::Grey(resize::<1>(samples, size, target)),
            Pixels::GreyAlpha(samples) if is_whole => Pixels::GreyAlpha(resize::<2>(samples, size, target)),
            Pixels::GreyAlpha(samples) => {
                let resized =
                    resize::<2>(&map_pixels(samples, |[l, a]| [multiply(*l, *a), *a]), size, target);
                Pixels::GreyAlpha(map_pixels(&resized, |[l, a]| [divide(*l, *a), *a]))
            }
            Pixels::Grey16(samples) => Pixels::Grey16(resize_grey16(samples, size, target)),
            Pixels::Rgb(samples) => Pixels::Rgb(resize::<3>(samples, size, target)),
            Pixels::Rgba(samples) if is_whole => Pixels::Rgba(resize::<4>(samples, size, target)),
            Pixels::Rgba(samples) => {
                let premultiply =
                    |[r, g, b, a]: &[u8; 4]| [multiply(*r, *a), multiply(*g, *a), multiply(*b, *a), *a];
                let resized = resize::<4>(&map_pixels(samples, premultiply), size, target);
                let divide = |[r, g, b, a]: &[u8; 4]| [divide(*r, *a), divide(*g, *a), divide(*b, *a), *a];
                Pixels::Rgba(map_pixels(&resized, divide))
            }
            Pixels::Palette(indices, colors) => {
                Pixels::Palette(resize_nearest(indices, size, target), colors.clone())
            }
            Pixels::Cmyk(samples) => Pixels::Cmyk(resize::<4>(samples, size, target)),
        };
        let (width, height) = target.extent();
        DecodedImage { width: width as u32, height: height as u32, pixels }
    }
}

fn map_pixels<const C: usize>(samples: &[u8], map: impl Fn(&[u8; C]) -> [u8; C]) -> Vec<u8> {
    samples.as_chunks::<C>().0.iter().flat_map(map).collect()
}

/// `a * b / 255`, rounded.
fn multiply(a: u8, b: u8) -> u8 {
    let product = u32::from(a) * u32::from(b) + 128;
    (((product >> 8) + product) >> 8) as u8
}

/// A channel without its alpha: truncated, clipped, and left alone where alpha says nothing.
fn divide(sample: u8, alpha: u8) -> u8 {
    if alpha == 0 || alpha == 255 {
        sample
    } else {
        (255 * u32::from(sample) / u32::from(alpha)).min(255) as u8
    }
}

fn cmyk_to_rgb([cyan, magenta, yellow, black]: &[u8; 4]) -> [u8; 3] {
    let light = 255 - *black;
    [cyan, magenta, yellow].map(|ink| light.saturating_sub(multiply(*ink, light)))
}

fn without_alpha(samples: &[u8]) -> Vec<u8> {
    samples.as_chunks::<4>().0.iter().flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]).collect()
}

/// Refuses what would take too much memory: `capacity` is the number of pixels that the file's bytes can hold.
fn refuse_too_large(path: &Path, width: u32, height: u32, capacity: u64, bytes: usize) -> Result<(), Error> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_IMAGE_PIXELS {
        return Err(Error::ImageTooLarge { path: path.to_owned(), width, height, limit: MAX_IMAGE_PIXELS });
    }
    if pixels > capacity {
        return Err(Error::ImageTooShort { path: path.to_owned(), width, height, bytes });
    }
    Ok(())
}

fn damaged(path: &Path, format: &'static str, reason: impl ToString) -> Error {
    Error::Image { path: path.to_owned(), format, reason: reason.to_string() }
}
