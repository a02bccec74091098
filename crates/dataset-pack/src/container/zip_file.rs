//! Images inside a zip file.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;
use zip::read::ZipFile;

use super::{bad, visible};
use crate::Error;
use crate::photo::MAX_BYTES;

/// Type bits of a Unix mode, and their value for links.
const TYPE_BITS: u32 = 0o170_000;
const LINK: u32 = 0o120_000;

/// Names of the plain files in order; hidden ones are empty.
pub(super) fn names(path: &Path) -> Result<Vec<String>, Error> {
    let mut archive = open(path)?;
    let mut names = Vec::new();
    for index in 0..archive.len() {
        let file = entry(path, &mut archive, index)?;
        let name = checked(path, &file)?;
        if !file.is_dir() {
            names.push(name);
        }
    }
    Ok(names)
}

/// Calls `take` with the plain files at the positions `wanted` (ascending).
pub(super) fn read(path: &Path, wanted: &[usize], mut take: impl FnMut(usize, Vec<u8>)) -> Result<(), Error> {
    let mut archive = open(path)?;
    let (mut left, mut position) = (wanted.iter().copied().peekable(), 0);
    for index in 0..archive.len() {
        if left.peek().is_none() {
            break;
        }
        let mut file = entry(path, &mut archive, index)?;
        if file.is_dir() {
            continue;
        }
        if left.next_if_eq(&position).is_some() {
            let name = checked(path, &file)?;
            let mut bytes = Vec::new();
            let length = (&mut file).take(MAX_BYTES + 1).read_to_end(&mut bytes);
            let length = length.map_err(|e| bad(path, &name, &format!("cannot be read: {e}")))?;
            if length as u64 > MAX_BYTES {
                return Err(bad(path, &name, &format!("it unpacks to more than {MAX_BYTES} bytes")));
            }
            take(position, bytes);
        }
        position += 1;
    }
    match left.next() {
        Some(position) => {
            Err(bad(path, &position.to_string(), "the archive changed: it has fewer entries now"))
        }
        None => Ok(()),
    }
}

fn open(path: &Path) -> Result<ZipArchive<BufReader<File>>, Error> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    ZipArchive::new(BufReader::with_capacity(1 << 18, file))
        .map_err(|e| bad(path, "", &format!("not a readable zip file: {e}; download it again")))
}

fn entry<'a>(
    path: &Path,
    archive: &'a mut ZipArchive<BufReader<File>>,
    index: usize,
) -> Result<ZipFile<'a>, Error> {
    archive.by_index(index).map_err(|e| bad(path, &format!("entry {index}"), &format!("cannot be read: {e}")))
}

/// The name, after it and the kind of the entry were checked.
fn checked(path: &Path, file: &ZipFile<'_>) -> Result<String, Error> {
    let name = visible(path, file.name_raw())?;
    if file.unix_mode().is_some_and(|mode| mode & TYPE_BITS == LINK) {
        return Err(bad(path, file.name(), "expected a plain file or folder, found a link"));
    }
    Ok(name)
}
