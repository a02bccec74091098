//! Named files out of a `.tgz` without unpacking it to disk, with limits.
//!
//! npm archives hold plain files below `package/`. Anything else in them (absolute paths, `..`, links,
//! devices, entries that are larger than they need to be) is refused, although nothing is ever written.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::check_path;
use crate::Error;

/// How much an archive may hold.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Bytes of one entry.
    pub entry_bytes: u64,
    /// Bytes of the unpacked archive.
    pub total_bytes: u64,
    /// Number of entries.
    pub entries: usize,
}

impl Limits {
    /// Fits icon sets and vocabularies: 64 MiB an entry, 512 MiB in all, 20,000 entries.
    pub const ICON_SET: Self = Self { entry_bytes: 64 << 20, total_bytes: 512 << 20, entries: 20_000 };
}

/// Reads the entries called `names` from the gzipped tar file `path`.
///
/// # Errors
///
/// Fails if the file is no gzipped tar, breaks a limit, has an entry that is no plain file or folder or whose
/// path leaves the archive, or lacks one of `names`.
pub fn read_entries(path: &Path, names: &[&str], limits: Limits) -> Result<BTreeMap<String, Vec<u8>>, Error> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let unpacked = flate2::read::GzDecoder::new(BufReader::new(file));
    let mut archive = tar::Archive::new(Capped { inner: unpacked, left: limits.total_bytes });
    let bad =
        |entry: &str, problem: String| Error::Archive { path: path.into(), entry: entry.to_owned(), problem };
    let broken = |e: std::io::Error| bad("", format!("not a readable `.tgz`: {e}"));
    let mut found = BTreeMap::new();
    for (index, entry) in archive.entries().map_err(broken)?.enumerate() {
        let mut entry = entry.map_err(broken)?;
        let raw = entry.path_bytes();
        let name = String::from_utf8_lossy(&raw).into_owned();
        if index >= limits.entries {
            return Err(bad(&name, format!("more than {} entries", limits.entries)));
        }
        check_path(&name).map_err(|problem| bad(&name, problem))?;
        let kind = entry.header().entry_type();
        if !kind.is_file() && !kind.is_dir() {
            return Err(bad(&name, format!("expected a plain file or folder, found entry type {kind:?}")));
        }
        if entry.size() > limits.entry_bytes {
            let problem = format!("it has {} bytes, expected at most {}", entry.size(), limits.entry_bytes);
            return Err(bad(&name, problem));
        }
        if names.contains(&name.as_str()) && kind.is_file() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).map_err(|e| bad(&name, e.to_string()))?;
            if found.insert(name.clone(), bytes).is_some() {
                return Err(bad(&name, "it stands in the archive twice".to_owned()));
            }
        }
    }
    match names.iter().find(|n| !found.contains_key(**n)) {
        Some(missing) => Err(bad(missing, "it is missing".to_owned())),
        None => Ok(found),
    }
}

/// A reader that fails, rather than ends, after `left` bytes: a decompression bomb is an error.
pub(super) struct Capped<R> {
    pub(super) inner: R,
    pub(super) left: u64,
}

impl<R: Read> Read for Capped<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let n = self.inner.read(buffer)?;
        match self.left.checked_sub(n as u64) {
            Some(left) => self.left = left,
            None => return Err(std::io::Error::other("it unpacks to more bytes than allowed")),
        }
        Ok(n)
    }
}
