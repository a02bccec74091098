//! JPEG files. By default a decoder in pure Rust (zune-jpeg), whose samples differ a little from libjpeg-turbo's; with the
//! feature `pil-exact` the C code of libjpeg-turbo (as mozjpeg ships it), whose samples equal Pillow's.
//!
//! Measured with `tests/scale/images.py` (Pillow 13.0.0, libjpeg-turbo 3.2.0): `pil-exact` 0 of 99.9 million samples differ in
//! 315 files. zune-jpeg 0.5.15: on 63 photographs 6.0 % of the samples differ, by 0.08 levels on average and 7 at most; grey by 1
//! at most, 4:4:4 and CMYK by 3; noise of odd sizes with subsampled colour by up to 80, near the right and lower edge.
//!
//! The markers are walked here first, so that size, number of scans and completeness are checked before any decoder runs.

use std::path::Path;

use super::{DecodedImage, Pixels, damaged, refuse_too_large};
use crate::Error;

const FORMAT: &str = "JPEG";
/// Scans of a progressive file; encoders write about ten. Each costs a pass over all pixels, however few bytes it has.
const MAX_SCANS: usize = 100;
/// Every block of 64 samples of the component with the most samples takes at least one bit.
const MAX_PIXELS_PER_BYTE: u64 = 64 * 8;

const START_OF_SCAN: u8 = 0xda;
const END_OF_IMAGE: u8 = 0xd9;

/// Which JPEG decoder this build has, for records of how features were made: decoders differ in the last bits.
pub fn jpeg_decoder() -> &'static str {
    decoder::NAME
}

pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<DecodedImage, Error> {
    let frame = frame(bytes).map_err(|reason| damaged(path, FORMAT, reason))?;
    refuse_too_large(path, frame.width, frame.height, bytes.len() as u64 * MAX_PIXELS_PER_BYTE, bytes.len())?;
    let pixels = decoder::decode(bytes, &frame).map_err(|reason| damaged(path, FORMAT, reason))?;
    Ok(DecodedImage { width: frame.width, height: frame.height, pixels })
}

/// What the frame header says.
struct Frame {
    width: u32,
    height: u32,
    components: u8,
}

/// Finds the frame header before the first scan, and checks that the file is whole.
fn frame(bytes: &[u8]) -> Result<Frame, String> {
    let mut found = None;
    let mut at = 2;
    loop {
        // Between segments there may be fill bytes and, in careless files, others.
        let marker = loop {
            match bytes.get(at..at + 2) {
                Some([0xff, code]) if *code != 0xff && *code != 0 => break *code,
                Some(_) => at += 1,
                None => return Err("the file ends before its first scan; it is cut off".to_owned()),
            }
        };
        at += 2;
        match marker {
            START_OF_SCAN => break,
            END_OF_IMAGE => return Err("the image ends before its first scan".to_owned()),
            // Markers without a segment.
            0x01 | 0xd0..=0xd8 => continue,
            _ => {}
        }
        let length =
            bytes.get(at..at + 2).map_or(0, |length| usize::from(length[0]) << 8 | usize::from(length[1]));
        let Some(segment) = bytes.get(at..at + length).filter(|_| length >= 2) else {
            return Err(format!("the segment of marker ff{marker:02x} does not fit into the file"));
        };
        // Frames of all kinds; c4, c8 and cc are tables.
        if matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc) {
            let [_, _, precision, h1, h0, w1, w0, components, ..] = *segment else {
                return Err("the frame header is too short".to_owned());
            };
            if found.is_some() {
                return Err("there are two frame headers".to_owned());
            }
            if precision != 8 {
                return Err(format!("samples have {precision} bits, expected 8"));
            }
            if !matches!(marker, 0xc0..=0xc2) {
                return Err(format!(
                    "frames of marker ff{marker:02x} (lossless, hierarchical or arithmetic) are not read"
                ));
            }
            let number = |high: u8, low: u8| u32::from(high) << 8 | u32::from(low);
            found = Some(Frame { width: number(w1, w0), height: number(h1, h0), components });
        }
        at += length;
    }
    let frame = found.ok_or("no frame header stands before the first scan")?;
    if frame.width == 0 || frame.height == 0 {
        return Err(format!("the size is {} x {}", frame.width, frame.height));
    }
    let data = &bytes[at..];
    let count = |code: u8| data.windows(2).filter(|pair| *pair == [0xff, code]).count();
    let scans = count(START_OF_SCAN) + 1;
    if scans > MAX_SCANS {
        return Err(format!("there are {scans} scans, expected at most {MAX_SCANS}"));
    }
    if count(END_OF_IMAGE) == 0 {
        return Err("the end-of-image marker is missing; the file is cut off".to_owned());
    }
    Ok(frame)
}

/// The pure Rust decoder.
#[cfg(not(feature = "pil-exact"))]
mod decoder {
    use zune_core::bytestream::ZCursor;
    use zune_core::colorspace::ColorSpace;
    use zune_core::options::DecoderOptions;
    use zune_jpeg::JpegDecoder;

    use super::{Frame, MAX_SCANS, Pixels};

    pub(super) const NAME: &str = "zune-jpeg 0.5";

    pub(super) fn decode(bytes: &[u8], frame: &Frame) -> Result<Pixels, String> {
        let options = DecoderOptions::default()
            .set_max_width(frame.width as usize)
            .set_max_height(frame.height as usize)
            .jpeg_set_max_scans(MAX_SCANS);
        let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
        decoder.decode_headers().map_err(|error| error.to_string())?;
        let (width, height) = decoder.dimensions().ok_or("the header holds no size")?;
        if (width, height) != (frame.width as usize, frame.height as usize) {
            return Err(format!("the size is {width} x {height} in one place and not in another"));
        }
        let input = decoder.input_colorspace().ok_or("the header holds no colour space")?;
        let output = match frame.components {
            1 => ColorSpace::Luma,
            3 => ColorSpace::RGB,
            4 if input == ColorSpace::YCCK => ColorSpace::YCCK,
            4 => ColorSpace::CMYK,
            components => return Err(format!("there are {components} components, expected 1, 3 or 4")),
        };
        decoder.set_options(options.jpeg_set_out_colorspace(output));
        let mut samples = vec![0; width * height * usize::from(frame.components)];
        decoder.decode_into(&mut samples).map_err(|error| error.to_string())?;
        Ok(match output {
            ColorSpace::Luma => Pixels::Grey(samples),
            ColorSpace::RGB => Pixels::Rgb(samples),
            _ => {
                let is_ycck = output == ColorSpace::YCCK;
                for pixel in samples.as_chunks_mut::<4>().0 {
                    *pixel = ink(*pixel, is_ycck);
                }
                Pixels::Cmyk(samples)
            }
        })
    }

    /// Ink from what the file holds: Adobe's convention, which Pillow takes for granted, stores it inverted.
    fn ink([a, b, c, black]: [u8; 4], is_ycck: bool) -> [u8; 4] {
        if !is_ycck {
            return [255 - a, 255 - b, 255 - c, 255 - black];
        }
        let [red, green, blue] = ycc_to_rgb([a, b, c]);
        [red, green, blue, 255 - black]
    }

    /// The conversion of the JPEG standard in 16-bit fixed point, as in libjpeg.
    fn ycc_to_rgb([y, cb, cr]: [u8; 3]) -> [u8; 3] {
        const HALF: i32 = 1 << 15;
        let (y, cb, cr) = (i32::from(y), i32::from(cb) - 128, i32::from(cr) - 128);
        let red = y + ((91_881 * cr + HALF) >> 16);
        let green = y + ((-22_554 * cb - 46_802 * cr + HALF) >> 16);
        let blue = y + ((116_130 * cb + HALF) >> 16);
        [red, green, blue].map(|level| level.clamp(0, 255) as u8)
    }
}

/// libjpeg-turbo's decoder.
#[cfg(feature = "pil-exact")]
mod decoder {
    use std::io::{self, BufRead, Read};
    use std::panic::catch_unwind;

    use mozjpeg::{ColorSpace, Decompress};

    use super::{Frame, Pixels};

    pub(super) const NAME: &str = "libjpeg-turbo 2 (mozjpeg)";

    pub(super) fn decode(bytes: &[u8], frame: &Frame) -> Result<Pixels, String> {
        // libjpeg leaves a failed call by unwinding, here without a panic message.
        let decoded = catch_unwind(|| decode_unwinding(bytes, frame));
        decoded.unwrap_or_else(|cause| {
            let message =
                cause.downcast::<String>().map_or_else(|_| "libjpeg gave up".to_owned(), |text| *text);
            Err(message)
        })
    }

    fn decode_unwinding(bytes: &[u8], frame: &Frame) -> Result<Pixels, String> {
        let (output, make): (_, fn(Vec<u8>) -> Pixels) = match frame.components {
            1 => (ColorSpace::JCS_GRAYSCALE, Pixels::Grey),
            3 => (ColorSpace::JCS_RGB, Pixels::Rgb),
            4 => (ColorSpace::JCS_CMYK, |mut samples| {
                // Adobe's convention, which Pillow takes for granted, stores ink inverted.
                samples.iter_mut().for_each(|sample| *sample = 255 - *sample);
                Pixels::Cmyk(samples)
            }),
            components => return Err(format!("there are {components} components, expected 1, 3 or 4")),
        };
        let decoder = Decompress::new_reader(Whole(bytes)).map_err(|error| error.to_string())?;
        let size = (decoder.width(), decoder.height());
        if size != (frame.width as usize, frame.height as usize) {
            return Err(format!("the size is {} x {} in one place and not in another", size.0, size.1));
        }
        let mut started = decoder.to_colorspace(output).map_err(|error| error.to_string())?;
        let mut samples = vec![0; size.0 * size.1 * usize::from(frame.components)];
        started.read_scanlines_into(&mut samples).map_err(|error| error.to_string())?;
        Ok(make(samples))
    }

    /// A file in memory whose end is an error: libjpeg would invent the rest of a file that is cut off.
    struct Whole<'a>(&'a [u8]);

    impl Read for Whole<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = self.fill_buf()?.read(buffer)?;
            self.consume(count);
            Ok(count)
        }
    }

    impl BufRead for Whole<'_> {
        fn fill_buf(&mut self) -> io::Result<&[u8]> {
            if self.0.is_empty() {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is cut off"));
            }
            Ok(self.0)
        }

        fn consume(&mut self, count: usize) {
            self.0 = &self.0[count.min(self.0.len())..];
        }
    }
}
