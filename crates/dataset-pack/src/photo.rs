//! Image files: what they are by their bytes, and whether they can be decoded to the end.
//!
//! The header is read first, because a decoder must not allocate what a few bytes ask for.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::{DynamicImage, ImageFormat, ImageReader};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use crate::jpeg;

/// Largest file, in bytes.
pub const MAX_BYTES: u64 = 64 << 20;
/// Most pixels by default, width times height: where Pillow begins to warn of a decompression bomb.
pub const MAX_PIXELS: u64 = 89_478_485;

/// A format that is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// PNG.
    Png,
    /// JPEG.
    Jpeg,
}

/// What an image is, by its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Its format.
    pub format: Format,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Bits of a sample.
    pub bits: u8,
    /// Whether its colours are CMYK.
    pub cmyk: bool,
    /// Whether it holds more than one frame.
    pub animated: bool,
}

impl Header {
    /// Reads the header of `bytes`.
    ///
    /// # Errors
    ///
    /// Says what was expected and found: another format, a damaged header, or more than `max_pixels`.
    pub fn read(bytes: &[u8], max_pixels: u64) -> Result<Self, String> {
        let header = match bytes {
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => png_header(bytes)?,
            [0xff, 0xd8, 0xff, ..] => {
                let frame = jpeg::frame(bytes)?;
                Self {
                    format: Format::Jpeg,
                    width: frame.width.into(),
                    height: frame.height.into(),
                    bits: frame.bits,
                    cmyk: frame.num_components == 4,
                    animated: false,
                }
            }
            _ => return Err(format!("expected PNG or JPEG, found {}", found(bytes))),
        };
        let (width, height) = (header.width, header.height);
        match u64::from(width) * u64::from(height) {
            0 => Err(format!("it has {width} x {height} pixels, expected at least one")),
            n if n > max_pixels => Err(format!(
                "it has {width} x {height} pixels, more than the limit of {max_pixels}; raise it with `--max-pixels` if you trust the file"
            )),
            _ => Ok(header),
        }
    }

    /// What is unusual about a good image of this `path`, for the doctor; training sees it as Pillow would.
    pub fn remarks(&self, path: &str) -> Vec<String> {
        let mut remarks = Vec::new();
        let extension = Path::new(path).extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
        let (name, fits): (_, &[&str]) = match self.format {
            Format::Png => ("PNG", &["png"]),
            Format::Jpeg => ("JPEG", &["jpg", "jpeg", "jpe", "jfif"]),
        };
        if let Some(extension) = extension.filter(|e| !fits.contains(&e.as_str())) {
            remarks.push(format!("it is a {name} file named `.{extension}`"));
        }
        if self.cmyk {
            remarks.push("its colours are CMYK".to_owned());
        }
        if self.bits != 8 && self.bits > 4 {
            remarks.push(format!("its samples have {} bits", self.bits));
        }
        if self.animated {
            remarks.push("it is animated; the first frame is used".to_owned());
        }
        remarks
    }
}

/// Reads a file of at most [`MAX_BYTES`].
///
/// # Errors
///
/// Says what the system said, or how large the file is.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let file = File::open(path).map_err(|e| format!("cannot be read: {e}"))?;
    // Room for one byte more, by which the end is found.
    let length = file.metadata().map_or(0, |m| m.len().min(MAX_BYTES) + 1);
    let mut bytes = Vec::with_capacity(length as usize);
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| format!("cannot be read: {e}"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(format!("it has more than {MAX_BYTES} bytes"));
    }
    Ok(bytes)
}

/// Decodes an image once to prove that it can be; gives its header.
///
/// # Errors
///
/// Says why it is no whole PNG or JPEG image of at most `max_pixels`.
pub fn check(bytes: &[u8], max_pixels: u64) -> Result<Header, String> {
    let header = Header::read(bytes, max_pixels)?;
    match header.format {
        Format::Png => drop(decode_png(bytes)?),
        Format::Jpeg => {
            if !jpeg::is_whole(bytes) {
                drop(decode_rgb(bytes, &header)?);
            }
        }
    }
    Ok(header)
}

/// Decodes an image of a checked header to 8-bit RGB; alpha is dropped, as Pillow's `convert("RGB")` does.
///
/// # Errors
///
/// Says why it cannot be decoded.
pub fn decode_rgb(bytes: &[u8], header: &Header) -> Result<image::RgbImage, String> {
    match header.format {
        Format::Png => Ok(decode_png(bytes)?.into_rgb8()),
        Format::Jpeg => {
            jpeg::check_end(bytes)?;
            let options = jpeg_options(header).jpeg_set_out_colorspace(ColorSpace::RGB);
            let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
            let pixels = decoder.decode().map_err(|e| format!("cannot be decoded: {e}"))?;
            image::RgbImage::from_raw(header.width, header.height, pixels)
                .ok_or_else(|| "cannot be decoded: the decoder gave too few pixels".to_owned())
        }
    }
}

fn jpeg_options(header: &Header) -> DecoderOptions {
    DecoderOptions::default()
        .set_strict_mode(false)
        .set_max_width(header.width as usize)
        .set_max_height(header.height as usize)
}

fn decode_png(bytes: &[u8]) -> Result<DynamicImage, String> {
    // The decoder is content without its last chunk, type and CRC of which are always these.
    if !bytes.windows(8).rev().any(|w| w == b"IEND\xaeB\x60\x82") {
        return Err(format!("it is truncated: its {} bytes hold no end of the image", bytes.len()));
    }
    let mut reader = ImageReader::with_format(Cursor::new(bytes), ImageFormat::Png);
    // The number of pixels was checked.
    reader.no_limits();
    reader.decode().map_err(|e| format!("cannot be decoded: {e}"))
}

fn png_header(bytes: &[u8]) -> Result<Header, String> {
    let decoder = png::Decoder::new(Cursor::new(bytes));
    let reader = decoder.read_info().map_err(|e| format!("its header cannot be read: {e}"))?;
    let info = reader.info();
    Ok(Header {
        format: Format::Png,
        width: info.width,
        height: info.height,
        bits: info.bit_depth as u8,
        cmyk: false,
        animated: info.animation_control.is_some_and(|a| a.num_frames > 1),
    })
}

/// What bytes that are neither PNG nor JPEG are.
fn found(bytes: &[u8]) -> &'static str {
    match bytes {
        [] => "an empty file",
        [b'G', b'I', b'F', b'8', ..] => "a GIF file; convert the frame that shows the class",
        [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => "a WebP file; convert it",
        [b'B', b'M', ..] => "a BMP file; convert it",
        [b'I', b'I', 42, 0, ..] | [b'M', b'M', 0, 42, ..] => "a TIFF file; convert it",
        [_, _, _, _, b'f', b't', b'y', b'p', ..] => "an AVIF or HEIC file; convert it",
        [b'<', ..] => "a web page; the download failed",
        [b'v', b'e', b'r', b's', b'i', b'o', b'n', b' ', ..] => "a Git LFS pointer; run `git lfs pull`",
        _ if bytes.iter().all(|b| *b == 0) => "zeros; the copy was cut",
        _ => "neither",
    }
}
