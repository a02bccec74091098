//! PNG files, in the modes of Pillow's `PngImagePlugin`.

use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, DecodeOptions, Decoder, Limits, Reader, Transformations};

use super::{DecodedImage, Pixels, damaged, refuse_too_large};
use crate::Error;

const FORMAT: &str = "PNG";
/// Deflate gives at most 1032 bytes for one: 258 bytes for two bits.
const MAX_EXPANSION: u64 = 1032;

/// What the header says.
#[derive(Clone, Copy)]
struct Header {
    width: usize,
    height: usize,
    color: ColorType,
    depth: BitDepth,
    line: usize,
}

pub(super) fn decode(bytes: &[u8], path: &Path) -> Result<DecodedImage, Error> {
    let refuse = |reason: png::DecodingError| damaged(path, FORMAT, reason);
    let mut options = DecodeOptions::default();
    options.set_ignore_text_chunk(true);
    options.set_ignore_iccp_chunk(true);
    let mut decoder = Decoder::new_with_options(Cursor::new(bytes), options);
    decoder.set_transformations(Transformations::IDENTITY);
    let info = decoder.read_header_info().map_err(refuse)?;
    let (width, height) = info.size();
    let bits = u64::from(info.bits_per_pixel() as u32);
    // The chunks of a file may come after the pixels, never instead of them: the whole file bounds the compressed data.
    let capacity = bytes.len() as u64 * MAX_EXPANSION * 8 / bits;
    refuse_too_large(path, width, height, capacity, bytes.len())?;
    // What is left to bound are the rows being unfiltered and the chunks kept.
    decoder.set_limits(Limits { bytes: 64 << 20 });
    let mut reader = decoder.read_info().map_err(refuse)?;
    let (color, depth) = reader.output_color_type();
    let line = reader.output_line_size(width).ok_or_else(|| damaged(path, FORMAT, "a row is too long"))?;
    let header = Header { width: width as usize, height: height as usize, color, depth, line };
    let pixels = pixels(&mut reader, header).map_err(refuse)?;
    Ok(DecodedImage { width, height, pixels })
}

type PngReader<'a> = Reader<Cursor<&'a [u8]>>;

fn pixels(reader: &mut PngReader<'_>, header: Header) -> Result<Pixels, png::DecodingError> {
    let bits = header.depth as u8;
    let pixels = match (header.color, header.depth) {
        (ColorType::Grayscale, BitDepth::One) => {
            Pixels::Bilevel(unpack(&read(reader, header)?, header, |bit| bit * 255))
        }
        (ColorType::Grayscale, BitDepth::Two) => {
            Pixels::Grey(unpack(&read(reader, header)?, header, |level| level * 85))
        }
        (ColorType::Grayscale, BitDepth::Four) => {
            Pixels::Grey(unpack(&read(reader, header)?, header, |level| level * 17))
        }
        (ColorType::Grayscale, BitDepth::Eight) => Pixels::Grey(read(reader, header)?),
        (ColorType::Grayscale, BitDepth::Sixteen) => {
            let rows = read_mapped(reader, header, |row, out: &mut Vec<u16>| {
                out.extend(row.as_chunks::<2>().0.iter().map(|sample| u16::from_be_bytes(*sample)));
            })?;
            Pixels::Grey16(rows)
        }
        (ColorType::Rgb, BitDepth::Sixteen) => Pixels::Rgb(read_high_bytes(reader, header)?),
        (ColorType::Rgb, _) => Pixels::Rgb(read(reader, header)?),
        (ColorType::Rgba, BitDepth::Sixteen) => Pixels::Rgba(read_high_bytes(reader, header)?),
        (ColorType::Rgba, _) => Pixels::Rgba(read(reader, header)?),
        // Pillow opens 16-bit grey with alpha as RGBA.
        (ColorType::GrayscaleAlpha, BitDepth::Sixteen) => {
            let rows = read_mapped(reader, header, |row, out: &mut Vec<u8>| {
                out.extend(row.as_chunks::<4>().0.iter().flat_map(|p| [p[0], p[0], p[0], p[2]]));
            })?;
            Pixels::Rgba(rows)
        }
        (ColorType::GrayscaleAlpha, _) => Pixels::GreyAlpha(read(reader, header)?),
        (ColorType::Indexed, _) => {
            let colors = palette(reader.info().palette.as_deref().unwrap_or_default());
            let packed = read(reader, header)?;
            let indices = if bits == 8 { packed } else { unpack(&packed, header, |index| index) };
            Pixels::Palette(indices, colors)
        }
    };
    Ok(pixels)
}

/// The colours of all indices: those of the file, then black.
fn palette(colors: &[u8]) -> Box<[[u8; 3]; 256]> {
    let mut palette = Box::new([[0; 3]; 256]);
    for (entry, color) in palette.iter_mut().zip(colors.as_chunks::<3>().0) {
        *entry = *color;
    }
    palette
}

/// All rows as they are packed in the file.
fn read(reader: &mut PngReader<'_>, header: Header) -> Result<Vec<u8>, png::DecodingError> {
    let mut samples = vec![0; header.line * header.height];
    if reader.info().interlaced {
        reader.next_frame(&mut samples)?;
    } else {
        for row in samples.chunks_exact_mut(header.line) {
            reader.read_row(row)?;
        }
    }
    Ok(samples)
}

/// All rows, converted one at a time unless they are interlaced.
fn read_mapped<T>(
    reader: &mut PngReader<'_>,
    header: Header,
    convert: impl Fn(&[u8], &mut Vec<T>),
) -> Result<Vec<T>, png::DecodingError> {
    let mut out = Vec::new();
    if reader.info().interlaced {
        convert(&read(reader, header)?, &mut out);
        return Ok(out);
    }
    let mut row = vec![0; header.line];
    for _ in 0..header.height {
        reader.read_row(&mut row)?;
        convert(&row, &mut out);
    }
    Ok(out)
}

/// 16-bit samples cut to their upper 8 bits.
fn read_high_bytes(reader: &mut PngReader<'_>, header: Header) -> Result<Vec<u8>, png::DecodingError> {
    read_mapped(reader, header, |row, out: &mut Vec<u8>| {
        out.extend(row.as_chunks::<2>().0.iter().map(|sample| sample[0]));
    })
}

/// One sample per byte from rows of samples of 1, 2 or 4 bits, the leftmost in the highest bits.
fn unpack(packed: &[u8], header: Header, map: impl Fn(u8) -> u8) -> Vec<u8> {
    let bits = header.depth as usize;
    let per_byte = 8 / bits;
    let mask = (1u8 << bits) - 1;
    let mut out = Vec::with_capacity(header.width * header.height);
    for row in packed.chunks_exact(header.line) {
        let sample = |x: usize| (row[x / per_byte] >> (8 - bits - x % per_byte * bits)) & mask;
        out.extend((0..header.width).map(|x| map(sample(x))));
    }
    out
}
