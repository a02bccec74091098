//! Parquet's own structures, in Thrift's compact protocol, before the library reads them.
//!
//! parquet 60.1 goes over a list of booleans that it does not know without taking a byte for each, so that four kilobytes of
//! nested lists keep it busy for hours. No footer and no page header has a list of booleans: one that has is refused.

use std::path::Path;

use bytes::Bytes;
use parquet::file::metadata::ParquetMetaData;
use parquet::file::reader::ChunkReader;

use crate::Error;
use crate::parquet_file::unparsable;

/// Length of the footer and `PAR1`, at the end of a file.
const TAIL: u64 = 8;
/// Structs, lists and maps within one another.
const MAX_DEPTH: u8 = 64;
/// Field of a page header: the page's length in the file.
const COMPRESSED_PAGE_SIZE: i64 = 3;

/// The footer of `file` must be a struct without lists of booleans; what has no footer is left to the library.
pub(crate) fn check_footer(file: &impl ChunkReader, path: &Path) -> Result<(), Error> {
    let read = |start, length| file.get_bytes(start, length).map_err(|e| unparsable(path, e.to_string()));
    let Some(end) = file.len().checked_sub(TAIL) else { return Ok(()) };
    let tail = read(end, TAIL as usize)?;
    let length = u32::from_le_bytes([tail[0], tail[1], tail[2], tail[3]]);
    let Some(start) = end.checked_sub(u64::from(length)) else { return Ok(()) };
    let footer = read(start, length as usize)?;
    match skip_struct(&mut &footer[..], MAX_DEPTH, None) {
        Some(_) => Ok(()),
        None => Err(unparsable(path, "the footer is no Thrift struct of Parquet's".to_owned())),
    }
}

/// The headers of all pages must be structs without lists of booleans, each before its page.
pub(crate) fn check_pages(file: &Bytes, metadata: &ParquetMetaData, path: &Path) -> Result<(), Error> {
    for column in metadata.row_groups().iter().flat_map(|group| group.columns()) {
        let (start, length) = column.byte_range();
        let range = usize::try_from(start).ok().zip(usize::try_from(start.saturating_add(length)).ok());
        let mut rest = range.and_then(|(start, end)| file.get(start..end)).unwrap_or_default();
        while !rest.is_empty() {
            let size = skip_struct(&mut rest, MAX_DEPTH, Some(COMPRESSED_PAGE_SIZE)).flatten();
            if size.and_then(|size| take(&mut rest, usize::try_from(size).ok()?)).is_none() {
                let name = column.column_path();
                return Err(unparsable(path, format!("a page header of column `{name}` is damaged")));
            }
        }
    }
    Ok(())
}

/// Goes over a struct at the start of `bytes`; `None` if there is none. Gives the integer of its field `wanted`.
fn skip_struct(bytes: &mut &[u8], depth: u8, wanted: Option<i64>) -> Option<Option<i64>> {
    let depth = depth.checked_sub(1)?;
    let (mut found, mut id) = (None, 0_i64);
    loop {
        let header = take(bytes, 1)?[0];
        let kind = header & 15;
        if kind == 0 {
            return Some(found);
        }
        id = match header >> 4 {
            0 => zigzag(varint(bytes)?),
            step => id.wrapping_add(step.into()),
        };
        match kind {
            // Booleans of a struct stand in its headers.
            1 | 2 => {}
            5 if wanted == Some(id) => found = Some(zigzag(varint(bytes)?)),
            _ => skip_value(bytes, kind, depth)?,
        }
    }
}

fn skip_value(bytes: &mut &[u8], kind: u8, depth: u8) -> Option<()> {
    match kind {
        3 => take(bytes, 1).map(drop),
        4..=6 => varint(bytes).map(drop),
        7 => take(bytes, 8).map(drop),
        8 => {
            let length = varint(bytes)?;
            take(bytes, usize::try_from(length).ok()?).map(drop)
        }
        9 | 10 => {
            let header = take(bytes, 1)?[0];
            let count = match header >> 4 {
                15 => varint(bytes)?,
                count => count.into(),
            };
            // Some writers say that an empty list is one of nothing.
            if header == 0 { Some(()) } else { skip_elements(bytes, count, &[header & 15], depth) }
        }
        11 => match varint(bytes)? {
            0 => Some(()),
            count => {
                let kinds = take(bytes, 1)?[0];
                skip_elements(bytes, count, &[kinds >> 4, kinds & 15], depth)
            }
        },
        12 => skip_struct(bytes, depth, None).map(drop),
        13 => take(bytes, 16).map(drop),
        _ => None,
    }
}

/// Elements of the `kinds` in turn. Each takes a byte at least, so that the work is bounded by the bytes.
fn skip_elements(bytes: &mut &[u8], count: u64, kinds: &[u8], depth: u8) -> Option<()> {
    let depth = depth.checked_sub(1)?;
    if kinds.iter().any(|kind| matches!(kind, 0..=2)) {
        return None;
    }
    (0..count).try_for_each(|_| kinds.iter().try_for_each(|kind| skip_value(bytes, *kind, depth)))
}

/// The first `length` bytes, which are taken away.
fn take<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (first, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(first)
}

/// Seven bits a byte, the lowest first.
fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let byte = take(bytes, 1)?[0];
        value |= u64::from(byte & 127) << shift;
        if byte & 128 == 0 {
            return Some(value);
        }
    }
    None
}

fn zigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file that is only a footer.
    fn check(footer: &[u8]) -> Result<(), Error> {
        let length = u32::try_from(footer.len()).unwrap().to_le_bytes();
        let file = [footer, &length, b"PAR1"].concat();
        check_footer(&Bytes::from(file), Path::new("part.parquet"))
    }

    #[test]
    fn a_list_of_booleans_is_refused_and_other_fields_pass() {
        // Field 1 is an i32, field 2 a boolean, field 3 a list of two i64, field 4 a struct, field 5 text, field 6 a map.
        let good = [0x15, 2, 0x11, 0x19, 0x26, 2, 4, 0x1c, 0, 0x18, 1, b'x', 0x1b, 1, 0x85, 1, b'k', 6, 0];
        check(&good).unwrap();
        // Field 9 is a list of 2^31 - 1 booleans.
        let bad = [0x99, 0xf1, 0xff, 0xff, 0xff, 0xff, 7, 0];
        let message = check(&bad).unwrap_err().to_string();
        assert!(message.contains("part.parquet") && message.contains("footer"), "{message}");
        assert!(check(&[0x9b, 1, 0x18, 1, 1, b'x', 0]).is_err(), "a map from booleans");
        assert!(check(&[0x99, 0x29, 0xf1, 0xff, 0xff, 0xff, 0xff, 7, 0, 0]).is_err(), "a list of lists");
        assert!(check(&[0x1c; 200]).is_err(), "too deep");
        assert!(check(&good[..good.len() - 1]).is_err(), "cut off");
    }

    #[test]
    fn the_size_of_a_page_is_its_third_field() {
        let mut header: &[u8] = &[0x15, 0, 0x15, 20, 0x15, 14, 0x2c, 0x15, 2, 0, 0, 9];
        assert_eq!(skip_struct(&mut header, MAX_DEPTH, Some(3)), Some(Some(7)));
        assert_eq!(header, [9]);
    }
}
