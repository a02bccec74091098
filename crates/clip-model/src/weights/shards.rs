//! A checkpoint in several files, named by an index: `model.safetensors.index.json` and its kin.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use super::tensor_file::TensorFile;
use crate::Error;
use crate::config::read_json;

/// Which file holds a tensor; the index's total size is not needed.
#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl TensorFile {
    /// Opens the files that an index names, all beside it; reads names and shapes only.
    ///
    /// # Errors
    ///
    /// Fails if the index or a file cannot be read or is damaged, the index names a file elsewhere, a tensor is not in the
    /// file that the index names, or a file holds a tensor that the index does not name.
    pub fn open_index(path: &Path) -> Result<Self, Error> {
        let index: Index = read_json(path, "index of shards (`weight_map`: tensor to file)")?;
        let wrong = |field: String, expected: &str, found: String| Error::Field {
            path: path.to_owned(),
            field,
            expected: expected.to_owned(),
            found,
        };
        let names: BTreeSet<&String> = index.weight_map.values().collect();
        let folder = path.parent().unwrap_or(Path::new("."));
        let mut whole: Option<TensorFile> = None;
        for name in names {
            if Path::new(name).file_name().is_none_or(|file| file != name.as_str()) {
                return Err(wrong("weight_map".to_owned(), "the name of a file beside it", name.clone()));
            }
            let shard = Self::open(&folder.join(name))?;
            // So no tensor lies in two files either.
            let is_misplaced = |(key, file): &(&String, &String)| {
                (*file == name) != shard.tensors.contains_key(key.as_str())
            };
            if let Some((key, file)) = index.weight_map.iter().find(is_misplaced) {
                let expected = "the file that holds the tensor, and no other";
                return Err(wrong(format!("weight_map.{key}"), expected, file.clone()));
            }
            if let Some(key) = shard.tensors.keys().find(|key| !index.weight_map.contains_key(*key)) {
                return Err(wrong(format!("weight_map.{key}"), name, "nothing".to_owned()));
            }
            match &mut whole {
                None => whole = Some(shard),
                Some(whole) => whole.append(shard),
            }
        }
        let whole = whole.ok_or_else(|| wrong("weight_map".to_owned(), "a tensor", "none".to_owned()))?;
        Ok(whole.named(path))
    }
}
