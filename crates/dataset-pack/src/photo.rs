//! Image files that keep their bytes, after they were decoded once to prove that they can be.

use std::fs::File;
use std::io::{Cursor, Read};
use std::path::Path;

use image::{ImageFormat, ImageReader};

use crate::Error;

/// Largest file, in bytes.
const MAX_BYTES: u64 = 64 << 20;
/// Most pixels, width times height.
const MAX_PIXELS: u64 = 100_000_000;

/// Reads an image file and decodes it once; gives its bytes.
///
/// # Errors
///
/// Fails if the file cannot be read, is larger than 64 MiB or 100 million pixels, is neither PNG nor JPEG by
/// its first bytes, or cannot be decoded to the end.
pub fn read_checked(path: &Path) -> Result<Vec<u8>, Error> {
    let bad = |problem: String| Error::Image { path: path.into(), problem };
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let mut bytes = Vec::new();
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(bad(format!("it has more than {MAX_BYTES} bytes")));
    }
    let reader = || {
        let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
        reader.map_err(|e| Error::io(path, e))
    };
    match reader()?.format() {
        Some(ImageFormat::Png | ImageFormat::Jpeg) => {}
        Some(other) => return Err(bad(format!("expected PNG or JPEG, found {other:?}"))),
        None => return Err(bad("expected PNG or JPEG, found neither".to_owned())),
    }
    // The header first: a decoder must not allocate what a few bytes ask for.
    let (width, height) = reader()?.into_dimensions().map_err(|e| bad(format!("cannot be decoded: {e}")))?;
    let pixels = u64::from(width) * u64::from(height);
    if pixels == 0 || pixels > MAX_PIXELS {
        return Err(bad(format!("it has {width} x {height} pixels, expected 1 to {MAX_PIXELS} in all")));
    }
    reader()?.decode().map_err(|e| bad(format!("cannot be decoded: {e}")))?;
    Ok(bytes)
}
