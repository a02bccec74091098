//! The zip files that torch writes: their entries are stored, never compressed, so a tensor is a region of the file.
//!
//! Only the central directory and local headers are read; sizes are checked against the file before anything is allocated.
//! Entries that nobody asks for, such as TorchScript's `code/`, are never looked at.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::Error;

/// Most entries that an archive may list; the largest CLIP has about 1,500.
const MAX_ENTRIES: u64 = 65_536;
/// Most bytes of a central directory.
const MAX_DIRECTORY: u64 = 16 << 20;
const LOCAL_HEADER: &[u8] = b"PK\x03\x04";
const DIRECTORY_HEADER: &[u8] = b"PK\x01\x02";
const END: &[u8] = b"PK\x05\x06";
const END_64_LOCATOR: &[u8] = b"PK\x06\x07";
const END_64: &[u8] = b"PK\x06\x06";
/// Marks a field whose value stands in the zip64 extra field.
const IN_EXTRA: u64 = u32::MAX as u64;

/// Why a zip file was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// No end record: cut off, or not a zip file.
    #[error("it has no end record; the file is cut off")]
    NoEnd,
    /// A record of the directory does not parse.
    #[error("its directory is damaged at byte {offset}")]
    Directory {
        /// Position in the file.
        offset: u64,
    },
    /// More entries, or a larger directory, than any checkpoint has.
    #[error("its directory claims {found} {what}, at most {limit} are read")]
    TooLarge {
        /// What there is too much of.
        what: &'static str,
        /// The claim.
        found: u64,
        /// The limit.
        limit: u64,
    },
    /// Two entries have one name.
    #[error("it holds `{entry}` twice")]
    Duplicate {
        /// The entry.
        entry: String,
    },
    /// An entry that every torch file has is not there.
    #[error("it has no entry `{entry}`")]
    Missing {
        /// The entry.
        entry: String,
    },
    /// A compressed entry; torch stores tensors as they are, and a small file could unpack without end.
    #[error(
        "entry `{entry}` is compressed (method {method}), torch stores it plain; save the file again with torch"
    )]
    Compressed {
        /// The entry.
        entry: String,
        /// Zip's number of the method.
        method: u16,
    },
    /// An encrypted entry.
    #[error("entry `{entry}` is encrypted")]
    Encrypted {
        /// The entry.
        entry: String,
    },
    /// An entry that does not lie where the directory says.
    #[error("entry `{entry}` does not lie where the directory says")]
    Displaced {
        /// The entry.
        entry: String,
    },
    /// An entry's bytes are not those that were written.
    #[error("entry `{entry}` is damaged: its CRC-32 is {found:08x}, expected {expected:08x}")]
    Checksum {
        /// The entry.
        entry: String,
        /// CRC-32 in the directory.
        expected: u32,
        /// CRC-32 of the bytes.
        found: u32,
    },
    /// Tensors in big-endian order.
    #[error("its byte order is `{found}`, only `little` is read")]
    ByteOrder {
        /// The order named.
        found: String,
    },
}

/// An open file with its length.
pub(super) struct Source {
    pub path: PathBuf,
    file: File,
    pub len: u64,
}

/// A run of bytes of a file.
#[derive(Debug, Clone)]
pub(super) struct Region {
    pub start: u64,
    pub len: u64,
    /// The entry's name and the CRC-32 of the whole region, if the format has one.
    pub checksum: Option<(String, u32)>,
}

struct Entry {
    header: u64,
    size: u64,
    stored_size: u64,
    crc32: u32,
    method: u16,
    flags: u16,
}

pub(super) struct Archive {
    entries: BTreeMap<String, Entry>,
    /// Where the directory begins; every entry ends before.
    directory: u64,
}

impl Source {
    pub(super) fn open(path: &Path) -> Result<Self, Error> {
        let read = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(read)?;
        let len = file.metadata().map_err(read)?.len();
        Ok(Source { path: path.to_owned(), file, len })
    }

    /// The bytes of a run, `None` if the file ends before; only then nothing is allocated.
    pub(super) fn bytes(&self, start: u64, len: u64) -> Result<Option<Vec<u8>>, Error> {
        if start.checked_add(len).is_none_or(|end| end > self.len) {
            return Ok(None);
        }
        let Ok(len) = usize::try_from(len) else { return Ok(None) };
        let mut bytes = vec![0; len];
        let mut file = &self.file;
        file.seek(SeekFrom::Start(start))
            .and_then(|_| file.read_exact(&mut bytes))
            .map_err(|source| Error::Read { path: self.path.clone(), source })?;
        Ok(Some(bytes))
    }

    pub(super) fn refuse(&self, source: ArchiveError) -> Error {
        Error::Archive { path: self.path.clone(), source }
    }

    /// Checks a region's CRC-32 in pieces of a megabyte.
    pub(super) fn verify(&self, region: &Region) -> Result<(), Error> {
        let Some((entry, expected)) = &region.checksum else { return Ok(()) };
        let mut hasher = crc32fast::Hasher::new();
        let mut at = 0;
        while at < region.len {
            let len = (region.len - at).min(1 << 20);
            let piece = self.bytes(region.start + at, len)?;
            let piece = piece.ok_or_else(|| self.refuse(ArchiveError::Displaced { entry: entry.clone() }))?;
            hasher.update(&piece);
            at += len;
        }
        self.check_sum(entry, *expected, hasher.finalize())
    }

    /// The bytes of a whole region, its CRC-32 checked.
    pub(super) fn region(&self, region: &Region) -> Result<Vec<u8>, Error> {
        let entry = region.checksum.as_ref().map_or("", |(entry, _)| entry);
        let bytes = self.bytes(region.start, region.len)?;
        let bytes = bytes.ok_or_else(|| self.refuse(ArchiveError::Displaced { entry: entry.to_owned() }))?;
        if let Some((entry, expected)) = &region.checksum {
            self.check_sum(entry, *expected, crc32fast::hash(&bytes))?;
        }
        Ok(bytes)
    }

    fn check_sum(&self, entry: &str, expected: u32, found: u32) -> Result<(), Error> {
        if expected == found {
            return Ok(());
        }
        Err(self.refuse(ArchiveError::Checksum { entry: entry.to_owned(), expected, found }))
    }
}

impl Archive {
    /// Reads the directory.
    pub(super) fn open(source: &Source) -> Result<Self, Error> {
        let (num_entries, size, start) = end_record(source)?;
        for (what, found, limit) in
            [("entries", num_entries, MAX_ENTRIES), ("bytes of directory", size, MAX_DIRECTORY)]
        {
            if found > limit {
                return Err(source.refuse(ArchiveError::TooLarge { what, found, limit }));
            }
        }
        let damaged =
            |at: usize| source.refuse(ArchiveError::Directory { offset: start.saturating_add(at as u64) });
        let bytes = source.bytes(start, size)?.ok_or_else(|| damaged(0))?;
        let mut entries = BTreeMap::new();
        let mut at = 0;
        for _ in 0..num_entries {
            let (name, entry, len) = directory_entry(&bytes[at..]).ok_or_else(|| damaged(at))?;
            at += len;
            if entries.insert(name.clone(), entry).is_some() {
                return Err(source.refuse(ArchiveError::Duplicate { entry: name }));
            }
        }
        Ok(Archive { entries, directory: start })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Where the bytes of an entry lie.
    pub(super) fn region(&self, source: &Source, name: &str) -> Result<Region, Error> {
        let refuse = |error: fn(String) -> ArchiveError| source.refuse(error(name.to_owned()));
        let displaced = || refuse(|entry| ArchiveError::Displaced { entry });
        let entry = self.entries.get(name).ok_or_else(|| refuse(|entry| ArchiveError::Missing { entry }))?;
        if entry.flags & 1 != 0 {
            return Err(refuse(|entry| ArchiveError::Encrypted { entry }));
        }
        if entry.method != 0 {
            let method = entry.method;
            return Err(source.refuse(ArchiveError::Compressed { entry: name.to_owned(), method }));
        }
        let header = source.bytes(entry.header, 30)?.ok_or_else(displaced)?;
        let (name_len, extra_len) = (u16_at(&header, 26), u16_at(&header, 28));
        let (Some(name_len), Some(extra_len)) = (name_len, extra_len) else { return Err(displaced()) };
        let in_place = source.bytes(entry.header + 30, name_len.into())?;
        if !header.starts_with(LOCAL_HEADER) || in_place.as_deref() != Some(name.as_bytes()) {
            return Err(displaced());
        }
        let start = entry.header + 30 + u64::from(name_len) + u64::from(extra_len);
        let ends_before_directory = start.checked_add(entry.size).is_some_and(|end| end <= self.directory);
        if entry.size != entry.stored_size || !ends_before_directory {
            return Err(displaced());
        }
        Ok(Region { start, len: entry.size, checksum: Some((name.to_owned(), entry.crc32)) })
    }
}

/// Number of entries, size and start of the directory.
fn end_record(source: &Source) -> Result<(u64, u64, u64), Error> {
    let no_end = || source.refuse(ArchiveError::NoEnd);
    // The record and a comment of at most 65,535 bytes end the file.
    let tail_len = source.len.min(22 + 65_535);
    let tail_start = source.len - tail_len;
    let tail = source.bytes(tail_start, tail_len)?.ok_or_else(no_end)?;
    let at = (0..tail.len().saturating_sub(21))
        .rev()
        .find(|&at| {
            let comment = u16_at(&tail, at + 20).map(usize::from);
            tail[at..].starts_with(END) && comment == Some(tail.len() - at - 22)
        })
        .ok_or_else(no_end)?;
    let damaged = || source.refuse(ArchiveError::Directory { offset: tail_start + at as u64 });
    let fields = || {
        let (entries, size, start) =
            (u16_at(&tail, at + 10)?, u32_at(&tail, at + 12)?, u32_at(&tail, at + 16)?);
        Some((u64::from(entries), u64::from(size), u64::from(start)))
    };
    let locator = at.checked_sub(20).filter(|&locator| tail[locator..].starts_with(END_64_LOCATOR));
    let Some(locator) = locator else { return fields().ok_or_else(damaged) };
    let end_64 = u64_at(&tail, locator + 8).ok_or_else(damaged)?;
    let record = source.bytes(end_64, 56)?.filter(|record| record.starts_with(END_64)).ok_or_else(damaged)?;
    let fields = || Some((u64_at(&record, 32)?, u64_at(&record, 40)?, u64_at(&record, 48)?));
    fields().ok_or_else(damaged)
}

/// The name, the entry and the length of a directory record.
fn directory_entry(bytes: &[u8]) -> Option<(String, Entry, usize)> {
    if !bytes.starts_with(DIRECTORY_HEADER) {
        return None;
    }
    let [name_len, extra_len, comment_len] = [28, 30, 32].map(|at| u16_at(bytes, at).map(usize::from));
    let (name_end, extra_end) = (46 + name_len?, 46 + name_len? + extra_len?);
    let name = std::str::from_utf8(bytes.get(46..name_end)?).ok()?;
    let mut extra = extra_64(bytes.get(name_end..extra_end)?);
    let mut wide = |value: u32| match u64::from(value) {
        IN_EXTRA => {
            let (first, rest) = extra.split_at_checked(8)?;
            extra = rest;
            u64_at(first, 0)
        }
        value => Some(value),
    };
    // The extra field holds the wide values in this order.
    let size = wide(u32_at(bytes, 24)?)?;
    let stored_size = wide(u32_at(bytes, 20)?)?;
    let header = wide(u32_at(bytes, 42)?)?;
    let entry = Entry {
        header,
        size,
        stored_size,
        crc32: u32_at(bytes, 16)?,
        method: u16_at(bytes, 10)?,
        flags: u16_at(bytes, 8)?,
    };
    let len = extra_end + comment_len?;
    (len <= bytes.len()).then(|| (name.to_owned(), entry, len))
}

/// The zip64 field among the extra fields.
fn extra_64(mut extra: &[u8]) -> &[u8] {
    while let (Some(id), Some(len)) = (u16_at(extra, 0), u16_at(extra, 2)) {
        let end = 4 + usize::from(len);
        let Some(field) = extra.get(4..end) else { break };
        if id == 1 {
            return field;
        }
        extra = &extra[end..];
    }
    &[]
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_le_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}
