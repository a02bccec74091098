//! Weights in several files that an index joins, as transformers and diffusers write large models.
//!
//! `model.safetensors.index.json` (or `pytorch_model.bin.index.json`) holds `weight_map`: for every tensor the file beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};

use super::tensor_file::TensorFile;
use crate::Error;
use crate::config::read_json;

/// Largest index in bytes; that of a CLIP has 0.1 MB.
const MAX_INDEX: u64 = 16 << 20;
/// Most files of an index.
const MAX_SHARDS: usize = 256;

#[derive(Deserialize)]
struct Index {
    /// File of each tensor.
    #[serde(deserialize_with = "unique")]
    weight_map: BTreeMap<String, String>,
}

/// A map in which no key stands twice; serde's own would take the last.
fn unique<'de, D: Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    struct Unique;
    impl<'de> Visitor<'de> for Unique {
        type Value = BTreeMap<String, String>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a file name for every tensor")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some((key, file)) = access.next_entry::<String, String>()? {
                if map.contains_key(&key) {
                    return Err(A::Error::custom(format!("the tensor `{key}` stands twice")));
                }
                map.insert(key, file);
            }
            Ok(map)
        }
    }
    deserializer.deserialize_map(Unique)
}

/// Whether a path is an index by its name: `*.index.json`, or `*.index.fp16.json` of a variant.
pub(super) fn is_index(path: &Path) -> bool {
    path.file_name().is_some_and(|name| {
        let name = name.to_string_lossy();
        name.ends_with(".json") && name.contains(".index.")
    })
}

/// Names of the files that an index joins, in alphabetical order; they lie beside it. Of another file its own name alone.
///
/// # Errors
///
/// Fails if the index cannot be read, is malformed or names something that is not a file beside it.
pub fn shard_names(path: &Path) -> Result<Vec<String>, Error> {
    if is_index(path) {
        return Ok(read(path)?.1);
    }
    Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()).into_iter().collect())
}

fn read(path: &Path) -> Result<(Index, Vec<String>), Error> {
    let size = fs::metadata(path).map_err(|source| Error::Read { path: path.to_owned(), source })?.len();
    if size > MAX_INDEX {
        return Err(Error::Field {
            path: path.to_owned(),
            field: "weight_map".to_owned(),
            expected: format!("at most {MAX_INDEX} bytes"),
            found: format!("{size} bytes"),
        });
    }
    let index: Index = read_json(path, "index of a checkpoint's files")?;
    let names: BTreeSet<&String> = index.weight_map.values().collect();
    let refuse = |name: &str, expected| {
        let name = name.chars().take(100).collect();
        Err(Error::ShardName { path: path.to_owned(), name, expected })
    };
    for name in &names {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
        let is_name = !name.is_empty() && !name.starts_with('.') && name.bytes().all(is_plain);
        if !is_name || is_index(Path::new(name)) {
            return refuse(name, "the plain name of a weight file beside it");
        }
    }
    if names.len() > MAX_SHARDS {
        return refuse(&format!("and {} more", names.len() - 1), "at most 256 files");
    }
    let names = names.into_iter().cloned().collect();
    Ok((index, names))
}

/// Opens the files of an index as one.
///
/// # Errors
///
/// Fails if a file is missing, or unless every tensor lies in the one file that the index names.
pub(super) fn open(path: &Path) -> Result<TensorFile, Error> {
    let (index, names) = read(path)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut joined: Option<TensorFile> = None;
    let disagree = |key: &str, expected: String, found: String| Error::ShardTensor {
        path: path.to_owned(),
        key: key.to_owned(),
        expected,
        found,
    };
    for name in &names {
        let file = folder.join(name);
        if !file.is_file() {
            let expected = "a file beside it; fetch what is missing";
            return Err(Error::ShardName { path: path.to_owned(), name: name.clone(), expected });
        }
        let mut opened = TensorFile::open(&file)?;
        for key in opened.tensors.keys() {
            match index.weight_map.get(key) {
                Some(listed) if listed == name => {}
                Some(listed) => {
                    return Err(disagree(key, format!("in `{listed}` alone"), format!("in `{name}`")));
                }
                None => return Err(disagree(key, "in the index".to_owned(), format!("in `{name}` alone"))),
            }
        }
        match &mut joined {
            None => {
                opened.path = path.to_owned();
                joined = Some(opened);
            }
            Some(joined) => {
                let shard = joined.shards.len();
                opened.tensors.values_mut().for_each(|tensor| tensor.shard = shard);
                joined.tensors.append(&mut opened.tensors);
                joined.shards.append(&mut opened.shards);
            }
        }
    }
    let joined = joined.ok_or_else(|| Error::Field {
        path: path.to_owned(),
        field: "weight_map".to_owned(),
        expected: "at least one tensor".to_owned(),
        found: "{}".to_owned(),
    })?;
    match index.weight_map.iter().find(|(key, _)| !joined.tensors.contains_key(*key)) {
        Some((key, name)) => Err(disagree(key, format!("in `{name}`"), "not there".to_owned())),
        None => Ok(joined),
    }
}
