//! A CSV file (RFC 4180) as records of text with their lines.

use std::path::Path;

use csv_core::{ReadRecordResult, Reader};

use crate::Error;
use crate::split_file::read_bounded;

/// A record: the line that it ends in and its fields.
pub type Record = (u64, Vec<String>);

/// Reads the header and the records of a file; every record has as many fields as the header.
///
/// # Errors
///
/// Fails if the file cannot be read, is not UTF-8 or has no header, or with the first record of another length.
pub fn read(path: &Path) -> Result<(Vec<String>, Vec<Record>), Error> {
    let bytes = read_bounded(path)?;
    let bad = |line: u64, problem: &str| Error::SplitFile {
        path: path.into(),
        problem: format!("line {line}: {problem}"),
    };
    let text = std::str::from_utf8(&bytes).map_err(|e| bad(0, &format!("expected UTF-8 text: {e}")))?;
    let mut input = text.strip_prefix('\u{feff}').unwrap_or(text).as_bytes();
    let mut reader = Reader::new();
    // A record is no longer than the file, and has no more ends of fields than bytes; both grow when needed.
    let (mut output, mut ends) = (vec![0; 1 << 12], vec![0; 64]);
    let (mut written, mut num_ends) = (0, 0);
    let (mut header, mut records) = (None, Vec::new());
    loop {
        let (result, read, wrote, ended) =
            reader.read_record(input, &mut output[written..], &mut ends[num_ends..]);
        input = &input[read..];
        written += wrote;
        num_ends += ended;
        match result {
            ReadRecordResult::InputEmpty => {}
            ReadRecordResult::OutputFull => output.resize(output.len() * 2, 0),
            ReadRecordResult::OutputEndsFull => ends.resize(ends.len() * 2, 0),
            ReadRecordResult::End => break,
            ReadRecordResult::Record => {
                let mut start = 0;
                let field = |end: &usize| {
                    let field = String::from_utf8_lossy(&output[start..*end]).into_owned();
                    start = *end;
                    field
                };
                let fields: Vec<String> = ends[..num_ends].iter().map(field).collect();
                (written, num_ends) = (0, 0);
                match &header {
                    None => header = Some(fields),
                    Some(header) if header.len() == fields.len() => records.push((reader.line() - 1, fields)),
                    Some(header) => {
                        let problem = format!("expected {} fields, found {}", header.len(), fields.len());
                        return Err(bad(reader.line() - 1, &problem));
                    }
                }
            }
        }
    }
    header.map(|header| (header, records)).ok_or_else(|| bad(1, "expected a header, found an empty file"))
}
