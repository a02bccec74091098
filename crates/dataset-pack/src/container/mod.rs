//! Images inside one file: tar archives (plain or gzipped), zip archives and Parquet files, read without unpacking.
//!
//! A container lists its images once and is then read in one pass for each part that needs some of them. Nothing in
//! it is trusted: paths that leave it, links, devices, doubled names, names that are not UTF-8, oversized entries and
//! decompression bombs are errors that name the entry.

mod entries;
mod tar_file;
mod zip_file;

use std::collections::HashSet;
use std::path::{Component, Path, PathBuf};

pub use entries::{Limits, read_entries};

use crate::Error;
use crate::photo::MAX_BYTES;

/// What a container is, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Tar,
    TarGz,
    Zip,
    Parquet,
}

/// A file that holds images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Container {
    path: PathBuf,
    kind: Kind,
    /// Column of the images of a Parquet file.
    image_column: String,
}

impl Container {
    /// The container at `path`, told by its name; `None` if it is none.
    pub fn at(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        let kind = match name {
            n if n.ends_with(".tar") => Kind::Tar,
            n if n.ends_with(".tar.gz") || n.ends_with(".tgz") => Kind::TarGz,
            n if n.ends_with(".zip") => Kind::Zip,
            n if n.ends_with(".parquet") => Kind::Parquet,
            _ => return None,
        };
        Some(Self { path: path.into(), kind, image_column: "image".to_owned() })
    }

    /// The same container with another image column, for Parquet files.
    pub fn with_image_column(self, column: &str) -> Self {
        Self { image_column: column.to_owned(), ..self }
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of its plain files, in order; the position of a name is what [`Self::read`] takes. Hidden files have an
    /// empty name, as have images of a Parquet file that have none.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read, or with the first entry that must not be there.
    pub fn names(&self) -> Result<Vec<String>, Error> {
        let names = match self.kind {
            Kind::Tar | Kind::TarGz => tar_file::names(&self.path, self.kind == Kind::TarGz)?,
            Kind::Zip => zip_file::names(&self.path)?,
            Kind::Parquet => {
                let cells = artifacts::image_table::cells(&self.path, &self.image_column, None)?;
                return Ok(cells.into_iter().map(|cell| cell.path.unwrap_or_default()).collect());
            }
        };
        let mut seen = HashSet::with_capacity(names.len());
        match names.iter().find(|name| !name.is_empty() && !seen.insert(name.as_str())) {
            Some(twice) => Err(bad(&self.path, twice, "it stands in the archive twice")),
            None => Ok(names),
        }
    }

    /// Calls `take` with each position of `wanted` (ascending) and its bytes.
    ///
    /// # Errors
    ///
    /// Fails if an entry cannot be read or has more than 64 MiB.
    pub fn read(&self, wanted: &[usize], mut take: impl FnMut(usize, Vec<u8>)) -> Result<(), Error> {
        match self.kind {
            Kind::Tar | Kind::TarGz => tar_file::read(&self.path, self.kind == Kind::TarGz, wanted, take),
            Kind::Zip => zip_file::read(&self.path, wanted, take),
            Kind::Parquet => {
                let images =
                    artifacts::image_table::images(&self.path, &self.image_column, wanted, MAX_BYTES)?;
                wanted.iter().zip(images).for_each(|(position, bytes)| take(*position, bytes));
                Ok(())
            }
        }
    }
}

/// Refuses a path that is absolute, leaves its folder or could be read as another path elsewhere.
pub(crate) fn check_path(name: &str) -> Result<(), String> {
    let inside = |c| matches!(c, Component::Normal(_) | Component::CurDir);
    if name.is_empty() || name.contains(['\\', '\0']) || !Path::new(name).components().all(inside) {
        return Err("expected a relative path without `..`".to_owned());
    }
    Ok(())
}

/// A checked name without a leading `./`, or empty for a hidden file (`._x` of macOS, `.DS_Store`).
fn visible(path: &Path, raw: &[u8]) -> Result<String, Error> {
    let Ok(name) = std::str::from_utf8(raw) else {
        return Err(bad(path, &String::from_utf8_lossy(raw), "its name is not UTF-8"));
    };
    check_path(name).map_err(|problem| bad(path, name, &problem))?;
    let name = name.strip_prefix("./").unwrap_or(name);
    let hidden = name.split('/').any(|part| part.starts_with('.') || part == "__MACOSX");
    Ok(if hidden { String::new() } else { name.to_owned() })
}

fn bad(path: &Path, entry: &str, problem: &str) -> Error {
    Error::Archive { path: path.into(), entry: entry.to_owned(), problem: problem.to_owned() }
}
