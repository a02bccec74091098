//! The segments of a JPEG file (ITU T.81, annex B): its frame header, and whether the file was cut.
//!
//! Decoders fill what is missing with grey, so a cut file must be found here.

mod scan;

pub use scan::is_whole;

/// The frame header of a JPEG file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Width in pixels.
    pub width: u16,
    /// Height in pixels.
    pub height: u16,
    /// Bits of a sample.
    pub bits: u8,
    /// Number of components: 1 grey, 3 colour, 4 CMYK.
    pub num_components: u8,
}

const END_OF_IMAGE: u8 = 0xd9;
const START_OF_SCAN: u8 = 0xda;

/// Reads the frame header.
///
/// # Errors
///
/// Says what is wrong if there is none.
pub fn frame(bytes: &[u8]) -> Result<Frame, String> {
    let mut found = None;
    walk(bytes, |marker, content, _| {
        let is_frame = matches!(marker, 0xc0..=0xcf) && ![0xc4, 0xc8, 0xcc].contains(&marker);
        if let (true, [bits, h1, h0, w1, w0, num_components, ..]) = (is_frame, content) {
            let (width, height) = (u16::from_be_bytes([*w1, *w0]), u16::from_be_bytes([*h1, *h0]));
            found = Some(Frame { width, height, bits: *bits, num_components: *num_components });
        }
        found.is_none()
    });
    found.ok_or_else(|| "its header cannot be read: no frame header before the end of the file".to_owned())
}

/// Fails if the file ends before the end of its image.
///
/// # Errors
///
/// Says how many bytes there are.
pub fn check_end(bytes: &[u8]) -> Result<(), String> {
    let mut ended = false;
    walk(bytes, |marker, _, _| {
        ended = marker == END_OF_IMAGE;
        !ended
    });
    if ended {
        return Ok(());
    }
    Err(format!("it is truncated: its {} bytes hold no end of the image", bytes.len()))
}

/// Calls `f` with each marker after the first, the content of its segment and all that follows, until `f` says no or the
/// file ends.
fn walk(bytes: &[u8], mut f: impl FnMut(u8, &[u8], &[u8]) -> bool) {
    let mut rest = &bytes[2.min(bytes.len())..];
    while let Some((marker, after)) = next_marker(rest) {
        let length = match (marker, after) {
            (0x01 | 0xd0..=0xd9, _) => 0,
            (_, [high, low, ..]) => usize::from(u16::from_be_bytes([*high, *low])),
            _ => return,
        };
        let Some(segment) = after.get(..length) else { return };
        rest = &after[length..];
        if !f(marker, segment.get(2..).unwrap_or_default(), rest) {
            return;
        }
        if marker == START_OF_SCAN {
            rest = &rest[scan_length(rest)..];
        }
    }
}

/// The next marker and what follows it.
fn next_marker(bytes: &[u8]) -> Option<(u8, &[u8])> {
    let mut start = bytes.iter().position(|b| *b == 0xff)?;
    while *bytes.get(start)? == 0xff {
        start += 1;
    }
    Some((bytes[start], &bytes[start + 1..]))
}

/// Length of the entropy-coded data at the start of `bytes`: up to the next marker that is no restart.
fn scan_length(bytes: &[u8]) -> usize {
    let mut position = 0;
    while let Some(found) = memchr::memchr(0xff, &bytes[position..]) {
        position += found;
        match bytes.get(position + 1) {
            Some(0x00 | 0xd0..=0xd7) => position += 2,
            Some(0xff) => position += 1,
            Some(_) => return position,
            None => break,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markers_inside_a_scan_are_no_end() {
        let head = [0xff, 0xd8, 0xff, 0xc0, 0, 8, 8, 0, 3, 0, 5, 1];
        let scan = [0xff, 0xda, 0, 2, 1, 2, 0xff, 0x00, 0xff, 0xd0, 3];
        let whole = [&head[..], &scan, &[0xff, 0xff, 0xd9]].concat();
        assert_eq!(frame(&whole), Ok(Frame { width: 5, height: 3, bits: 8, num_components: 1 }));
        assert_eq!(check_end(&whole), Ok(()));
        for length in 0..whole.len() {
            assert!(check_end(&whole[..length]).is_err(), "{length}");
        }
        assert!(frame(&head[..6]).is_err());
    }
}
