//! Images inside a tar file, plain or gzipped.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tar::{Archive, Entry};

use super::entries::Capped;
use super::{bad, visible};
use crate::Error;
use crate::photo::MAX_BYTES;

/// Bytes that a gzipped archive may unpack to: this many times its length, and this many more. Photographs hardly
/// shrink; only a bomb grows so much.
const MAX_RATIO: u64 = 200;
const MIN_UNPACKED: u64 = 64 << 20;

/// Names of the plain files in order; hidden ones are empty.
pub(super) fn names(path: &Path, gzipped: bool) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    each(path, gzipped, |_, name, _| {
        names.push(name);
        Ok(())
    })?;
    Ok(names)
}

/// Calls `take` with the plain files at the positions `wanted` (ascending).
pub(super) fn read(
    path: &Path,
    gzipped: bool,
    wanted: &[usize],
    mut take: impl FnMut(usize, Vec<u8>),
) -> Result<(), Error> {
    let mut left = wanted.iter().copied().peekable();
    each(path, gzipped, |position, name, entry| {
        if left.next_if_eq(&position).is_some() {
            let mut bytes = Vec::new();
            let length = entry.take(MAX_BYTES + 1).read_to_end(&mut bytes);
            let length = length.map_err(|e| bad(path, &name, &format!("cannot be read: {e}")))?;
            if length as u64 > MAX_BYTES {
                return Err(bad(path, &name, &format!("it has more than {MAX_BYTES} bytes")));
            }
            take(position, bytes);
        }
        Ok(())
    })?;
    match left.next() {
        Some(position) => {
            Err(bad(path, &position.to_string(), "the archive changed: it has fewer entries now"))
        }
        None => Ok(()),
    }
}

/// Calls `f` with position, name and content of every plain file.
fn each(
    path: &Path,
    gzipped: bool,
    f: impl FnMut(usize, String, &mut dyn Read) -> Result<(), Error>,
) -> Result<(), Error> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    if gzipped {
        let length = file.metadata().map_err(|e| Error::io(path, e))?.len();
        let left = MIN_UNPACKED + MAX_RATIO * length;
        let reader = Capped { inner: MultiGzDecoder::new(BufReader::with_capacity(1 << 20, file)), left };
        let mut archive = Archive::new(reader);
        walk(path, archive.entries().map_err(|e| broken(path, &e))?, f)
    } else {
        // Seeking passes over contents that nobody wants.
        let mut archive = Archive::new(file);
        walk(path, archive.entries_with_seek().map_err(|e| broken(path, &e))?, f)
    }
}

fn walk<'a, R: Read + 'a>(
    path: &Path,
    entries: impl Iterator<Item = std::io::Result<Entry<'a, R>>>,
    mut f: impl FnMut(usize, String, &mut dyn Read) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut position = 0;
    for entry in entries {
        let mut entry = entry.map_err(|e| broken(path, &e))?;
        let kind = entry.header().entry_type();
        if kind.is_pax_global_extensions() {
            continue;
        }
        let raw = entry.path_bytes().into_owned();
        let name = visible(path, &raw)?;
        if kind.is_dir() {
            continue;
        }
        if !kind.is_file() {
            let problem = format!("expected a plain file or folder, found entry type {kind:?}");
            return Err(bad(path, &String::from_utf8_lossy(&raw), &problem));
        }
        f(position, name, &mut entry)?;
        position += 1;
    }
    Ok(())
}

fn broken(path: &Path, error: &std::io::Error) -> Error {
    bad(path, "", &format!("not a readable tar file: {error}; download it again"))
}
