//! Digests of files and of checkpoint folders.

use serde::{Deserialize, Serialize};
use sha2::Digest as _;
use std::fmt;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::Error;

/// A BLAKE3 or SHA-256 digest as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Digest(String);

impl Digest {
    /// BLAKE3 of `bytes`.
    pub fn blake3(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }

    /// The digest as hexadecimal text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        if text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
            Ok(Self(text))
        } else {
            Err(Error::InvalidId {
                what: "digest",
                found: text,
                expected: "64 lower-case hexadecimal digits",
            })
        }
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Length in bytes and BLAKE3 of a file, read in pieces of 1 MiB.
///
/// # Errors
///
/// Fails if the file cannot be read.
pub fn file_blake3(path: &Path) -> Result<(u64, Digest), Error> {
    let mut blake = blake3::Hasher::new();
    let length = read_pieces(path, |piece| {
        blake.update(piece);
    })?;
    Ok((length, Digest(blake.finalize().to_hex().to_string())))
}

/// Length in bytes, BLAKE3 and SHA-256 of a file, read once.
///
/// # Errors
///
/// Fails if the file cannot be read.
pub fn file_digests(path: &Path) -> Result<(u64, Digest, Digest), Error> {
    let (mut blake, mut sha) = (blake3::Hasher::new(), sha2::Sha256::new());
    let length = read_pieces(path, |piece| {
        blake.update(piece);
        sha.update(piece);
    })?;
    let sha: String = sha.finalize().iter().map(|b| format!("{b:02x}")).collect();
    Ok((length, Digest(blake.finalize().to_hex().to_string()), Digest(sha)))
}

/// Calls `f` with the pieces of a file in turn; gives its length.
fn read_pieces(path: &Path, mut f: impl FnMut(&[u8])) -> Result<u64, Error> {
    let mut file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let (mut buffer, mut length) = (vec![0; 1 << 20], 0);
    loop {
        match file.read(&mut buffer).map_err(|e| Error::io(path, e))? {
            0 => return Ok(length),
            n => {
                f(&buffer[..n]);
                length += n as u64;
            }
        }
    }
}

/// Files of a checkpoint that decide what it computes: configuration, tokenizer, weights.
const CHECKPOINT_EXTENSIONS: [&str; 8] = ["json", "txt", "gz", "safetensors", "bin", "pt", "pth", "ckpt"];

/// Digest of a checkpoint folder: BLAKE3 over the sorted relative paths and BLAKE3 digests of its configuration, tokenizer and
/// weight files (`.json`, `.txt`, `.gz`, `.safetensors`, `.bin`, `.pt`, `.pth`, `.ckpt`). A model card, a picture, `training.json` or `evaluation.json` (how it was trained, what it
/// reached) beside them does not change it.
///
/// # Errors
///
/// Fails if the folder cannot be read or holds no such file.
pub fn checkpoint_digest(folder: &Path) -> Result<Digest, Error> {
    let is_part = |path: &Path| {
        let is_note = path.file_name().is_some_and(|n| n == "training.json" || n == "evaluation.json");
        let is_known = |found: &std::ffi::OsStr| CHECKPOINT_EXTENSIONS.iter().any(|known| found == *known);
        !is_note && path.extension().is_some_and(is_known)
    };
    folder_digest(folder, &is_part)?.ok_or_else(|| {
        let extensions = CHECKPOINT_EXTENSIONS.join(", .");
        let reason = format!("no configuration or weights in it: no file in .{extensions}");
        Error::Malformed { path: folder.into(), what: "checkpoint folder", reason }
    })
}

/// Digest of prompts that exist: BLAKE3 of a file; of a folder, over the sorted paths and digests of its `.txt` files.
///
/// # Errors
///
/// Fails if the file or folder cannot be read or the folder holds no such file.
pub fn prompts_digest(path: &Path) -> Result<Digest, Error> {
    if !path.is_dir() {
        return Ok(file_blake3(path)?.1);
    }
    folder_digest(path, &|path| path.extension().is_some_and(|e| e == "txt"))?.ok_or_else(|| {
        let reason = "no `.txt` file in it, expected one for each class".to_owned();
        Error::Malformed { path: path.into(), what: "folder of prompts", reason }
    })
}

/// BLAKE3 over the sorted relative paths and digests of the files that are a part, if there are any.
fn folder_digest(folder: &Path, is_part: &dyn Fn(&Path) -> bool) -> Result<Option<Digest>, Error> {
    let mut files = Vec::new();
    collect(folder, folder, is_part, &mut files)?;
    files.sort();
    if files.is_empty() {
        return Ok(None);
    }
    let mut hasher = blake3::Hasher::new();
    for relative in files {
        let (_, digest) = file_blake3(&folder.join(&relative))?;
        let name: Vec<_> = relative.iter().map(|c| c.to_string_lossy()).collect();
        hasher.update(format!("{}\0{digest}\n", name.join("/")).as_bytes());
    }
    Ok(Some(Digest(hasher.finalize().to_hex().to_string())))
}

fn collect(
    root: &Path,
    folder: &Path,
    is_part: &dyn Fn(&Path) -> bool,
    files: &mut Vec<PathBuf>,
) -> Result<(), Error> {
    for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
        let path = entry.map_err(|e| Error::io(folder, e))?.path();
        if path.is_dir() {
            collect(root, &path, is_part, files)?;
        } else if is_part(&path) {
            files.extend(path.strip_prefix(root).map(Path::to_path_buf));
        }
    }
    Ok(())
}
