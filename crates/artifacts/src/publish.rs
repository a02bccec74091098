//! Atomic publication of one file: whole or not there, and the first to come stays.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use pipeline_spec::{Digest, file_blake3, file_digests};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::Error;

/// What became of a file that was to be published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Published {
    /// It was not there before.
    New,
    /// The same content was there already.
    Same,
    /// Other content was there already and stays.
    Kept {
        /// BLAKE3 of what was there.
        existing: Digest,
    },
}

/// How a finished temporary file gets its final name without replacing another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// `renameat2` with `RENAME_NOREPLACE`.
    NoReplace,
    /// A hard link, then unlink: for NFS and Lustre, which lack the former.
    Link,
    /// A plain rename after a look: for file systems without hard links. Two writers at the same instant may both win;
    /// each file is still whole.
    Rename,
}

/// A file that is written, synced and read back, but has only a temporary name yet. Dropped, it is removed.
pub(crate) struct Staged {
    file: tempfile::NamedTempFile,
    /// BLAKE3 of the content.
    pub(crate) blake3: Digest,
    /// Length of the content in bytes.
    pub(crate) size_bytes: u64,
    /// SHA-256 of the content.
    pub(crate) sha256: Digest,
}

impl Staged {
    /// Writes what `fill` writes to a new file in `tmp_dir`, syncs it and reads it back.
    ///
    /// The name ends in `.tmp`, never in `.parquet`: the globs of DuckDB and polars would read it.
    ///
    /// # Errors
    ///
    /// Fails if the file cannot be written, whatever `fill` makes of that, or with the error of `fill`.
    pub(crate) fn create(
        tmp_dir: &Path,
        target: &Path,
        fill: impl FnOnce(&mut Sink<'_>) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        create_folder(tmp_dir)?;
        let name = target.file_name().map(|n| n.to_string_lossy().replace('.', "-")).unwrap_or_default();
        let file = tempfile::Builder::new()
            .prefix(&format!("{name}-{}-", std::process::id()))
            .suffix(".tmp")
            .tempfile_in(tmp_dir)
            .map_err(|e| Error::write(tmp_dir, e))?;
        let path = file.path().to_owned();
        let failed = |e| Error::write(&path, e);
        let written = fill_file(file.as_file(), &path, fill)?;
        readable_by_all(file.as_file()).and_then(|()| file.as_file().sync_all()).map_err(failed)?;
        let (size_bytes, blake3, sha256) = file_digests(&path)?;
        if blake3 != written {
            return Err(Error::ReadBack { path });
        }
        Ok(Self { file, blake3, size_bytes, sha256 })
    }

    /// As [`Self::create`] with the given bytes.
    pub(crate) fn from_bytes(tmp_dir: &Path, target: &Path, bytes: &[u8]) -> Result<Self, Error> {
        Self::create(tmp_dir, target, |sink| sink.write_all(bytes).map_err(|e| Error::write(target, e)))
    }

    /// Gives the file its name unless that is taken.
    pub(crate) fn publish(self, target: &Path) -> Result<Published, Error> {
        self.publish_by(target, &[Method::NoReplace, Method::Link, Method::Rename])
    }

    /// Gives the file its name and replaces what has it.
    pub(crate) fn replace(self, target: &Path) -> Result<(), Error> {
        let folder = parent(target);
        create_folder(folder)?;
        self.file.into_temp_path().persist(target).map_err(|e| Error::write(target, e.error))?;
        sync_folder(folder)
    }

    /// Tries the methods in turn until the file system knows one.
    fn publish_by(self, target: &Path, methods: &[Method]) -> Result<Published, Error> {
        let folder = parent(target);
        create_folder(folder)?;
        let mut result = Err(io::Error::from(io::ErrorKind::Unsupported));
        for method in methods {
            result = move_without_replacing(self.file.path(), target, *method);
            match &result {
                Err(e) if is_unsupported(e) => {}
                _ => break,
            }
        }
        match result {
            Ok(()) => {
                sync_folder(folder)?;
                Ok(Published::New)
            }
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                let (_, existing) = file_blake3(target)?;
                Ok(if existing == self.blake3 { Published::Same } else { Published::Kept { existing } })
            }
            Err(e) => Err(Error::write(target, e)),
        }
    }
}

/// Writes what `fill` writes to `file`, whose path is for errors; gives its BLAKE3.
fn fill_file(
    file: &File,
    path: &Path,
    fill: impl FnOnce(&mut Sink<'_>) -> Result<(), Error>,
) -> Result<Digest, Error> {
    let hashing = Hashing { inner: file, hasher: blake3::Hasher::new(), refused: None };
    let mut sink = Sink::with_capacity(1 << 20, hashing);
    let filled = fill(&mut sink);
    let flushed = sink.flush();
    let (hashing, _) = sink.into_parts();
    // An encoder may make another error of a full disk.
    match (hashing.refused, flushed) {
        (Some(refused), _) | (None, Err(refused)) => return Err(Error::write(path, refused)),
        (None, Ok(())) => filled?,
    }
    Ok(Digest::try_from(hashing.hasher.finalize().to_hex().to_string())?)
}

/// Where the content of a file goes.
pub(crate) type Sink<'a> = io::BufWriter<Hashing<'a>>;

/// A file; counts what goes into it into a digest and remembers why it took no more.
pub(crate) struct Hashing<'a> {
    inner: &'a File,
    hasher: blake3::Hasher,
    refused: Option<io::Error>,
}

impl Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.inner.write(bytes) {
            Ok(n) => {
                self.hasher.update(&bytes[..n]);
                Ok(n)
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => Err(e),
            Err(e) => {
                let kind = e.kind();
                self.refused.get_or_insert(e);
                Err(kind.into())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn move_without_replacing(from: &Path, to: &Path, method: Method) -> io::Result<()> {
    match method {
        Method::NoReplace => Ok(renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE)?),
        Method::Link => fs::hard_link(from, to).and_then(|()| fs::remove_file(from)),
        Method::Rename if to.exists() => Err(io::ErrorKind::AlreadyExists.into()),
        Method::Rename => fs::rename(from, to),
    }
}

/// Whether the file system does not know the method, so that another may do.
fn is_unsupported(error: &io::Error) -> bool {
    let codes = [Errno::INVAL, Errno::NOSYS, Errno::OPNOTSUPP, Errno::PERM, Errno::MLINK];
    error.raw_os_error().is_some_and(|code| codes.iter().any(|errno| errno.raw_os_error() == code))
}

/// Temporary files are private; artifacts are shared in a lab, as the umask of other files has it.
fn readable_by_all(file: &File) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    file.set_permissions(fs::Permissions::from_mode(0o644))
}

fn parent(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("."))
}

/// Creates a folder and those above it.
pub(crate) fn create_folder(folder: &Path) -> Result<(), Error> {
    fs::create_dir_all(folder).map_err(|e| Error::write(folder, e))
}

/// Makes the names in a folder durable.
fn sync_folder(folder: &Path) -> Result<(), Error> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(|e| Error::write(folder, e))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn every_method_keeps_the_first_content() {
        for method in [Method::NoReplace, Method::Link, Method::Rename] {
            let store = tempfile::tempdir().unwrap();
            let (tmp, target) = (store.path().join("tmp"), store.path().join("data/part.parquet"));
            let publish = |bytes: &[u8]| {
                Staged::from_bytes(&tmp, &target, bytes).unwrap().publish_by(&target, &[method]).unwrap()
            };
            assert_eq!(publish(b"first"), Published::New, "{method:?}");
            assert_eq!(publish(b"first"), Published::Same, "{method:?}");
            assert_eq!(
                publish(b"other"),
                Published::Kept { existing: Digest::blake3(b"first") },
                "{method:?}"
            );
            assert_eq!(fs::read(&target).unwrap(), b"first");
            assert_eq!(names(&tmp), Vec::<String>::new(), "{method:?} leaves nothing behind");
        }
    }

    #[test]
    fn a_temporary_file_never_ends_in_parquet() {
        let store = tempfile::tempdir().unwrap();
        let staged =
            Staged::from_bytes(store.path(), Path::new("data/part-00000-of-00001.parquet"), b"x").unwrap();
        let name = staged.file.path().file_name().unwrap().to_string_lossy().into_owned();
        assert!(name.starts_with("part-00000-of-00001-parquet-") && name.ends_with(".tmp"), "{name}");
    }

    #[test]
    fn a_failed_write_leaves_no_temporary_file() {
        let store = tempfile::tempdir().unwrap();
        let result = Staged::create(store.path(), Path::new("data/part.parquet"), |sink| {
            sink.write_all(b"half").unwrap();
            Err(Error::Shard { found: "x".to_owned() })
        });
        assert!(matches!(result, Err(Error::Shard { .. })));
        assert_eq!(names(store.path()), Vec::<String>::new());
    }

    #[test]
    fn a_full_disk_is_told_as_such_whatever_the_encoder_makes_of_it() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let path = std::env::temp_dir().join("part-parquet-1.tmp");
        for length in [1, 1 << 21] {
            let result = fill_file(&full, &path, |sink| {
                let _ = sink.write_all(&vec![0; length]);
                Err(Error::Encode { kind: pipeline_spec::ArtifactKind::Images, reason: "?".to_owned() })
            });
            let message = result.unwrap_err().to_string();
            assert!(message.contains("part-parquet-1.tmp") && message.contains("MiB free"), "{message}");
        }
    }

    #[test]
    fn an_unsupported_method_falls_through_to_the_next() {
        assert!(is_unsupported(&io::Error::from(Errno::INVAL)));
        assert!(is_unsupported(&io::Error::from(Errno::NOSYS)));
        assert!(!is_unsupported(&io::Error::from(Errno::NOSPC)));
        assert!(!is_unsupported(&io::Error::from(Errno::EXIST)));
    }
}
