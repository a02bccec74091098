//! Prompts that exist: a JSON file as CuPL (arXiv 2209.03320), CaFo (arXiv 2303.02151) and APE (arXiv 2304.01195) publish
//! them, an object from class name to a list of prompts; or a folder with a text file for each class, one prompt a line.
//!
//! Class names match after trimming, without regard to case, and with `_` read as a space. A class of the data set
//! without an entry, and an entry for no class, are errors: a file for another data set must not pass.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use artifacts::PromptRow;
use pipeline_spec::{Digest, prompts_digest};
use serde::de::{Deserializer as _, MapAccess, Visitor};

use crate::Error;
use crate::class_prompts::{ClassPrompts, Origin};

/// Largest prompt file that is read, in bytes. CuPL's for ImageNet has 7 MB.
const MAX_BYTES: u64 = 256 << 20;

/// Reads the prompts of `class_names` from the file or folder `path`, after its digest is checked.
///
/// Prompts are trimmed; repeats within a class are kept once.
///
/// # Errors
///
/// Fails if the file cannot be read, is not the pinned one, is no prompt file, lacks a class, has an unknown one, or
/// has an empty list or an empty prompt.
pub fn read(path: &Path, expected: &Digest, class_names: &[String]) -> Result<Vec<PromptRow>, Error> {
    let found = prompts_digest(path)?;
    if found != *expected {
        let (path, expected) = (path.to_owned(), expected.clone());
        return Err(Error::Digest { path, field: "provider.digest", expected, found });
    }
    let entries = if path.is_dir() { text_files(path)? } else { parse(path, &bounded(path)?)? };
    rows(path, entries, class_names)
}

/// The bytes of a file that is not too large.
fn bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let length = std::fs::metadata(path).map_err(|e| Error::read(path, e))?.len();
    if length > MAX_BYTES {
        return Err(Error::prompt_file(path, format!("at most {MAX_BYTES} bytes, found {length} bytes")));
    }
    std::fs::read(path).map_err(|e| Error::read(path, e))
}

/// An entry for each text file of a folder, named as the file; blank lines do not count.
fn text_files(folder: &Path) -> Result<Vec<(String, Vec<String>)>, Error> {
    let failed = |e| Error::read(folder, e);
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(failed)? {
        paths.push(entry.map_err(failed)?.path());
    }
    paths.retain(|path| path.extension().is_some_and(|e| e == "txt"));
    paths.sort();
    let mut entries = Vec::with_capacity(paths.len());
    for path in paths {
        let text = String::from_utf8(bounded(&path)?)
            .map_err(|e| Error::prompt_file(&path, format!("UTF-8 text, found {e}")))?;
        let name = path.file_stem().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        let lines = text.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned);
        entries.push((name, lines.collect()));
    }
    Ok(entries)
}

/// The entries in file order.
fn parse(path: &Path, bytes: &[u8]) -> Result<Vec<(String, Vec<String>)>, Error> {
    let not_json = |e: serde_json::Error| Error::prompt_file(path, format!("found: {e}"));
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let entries = deserializer.deserialize_map(Entries).map_err(not_json)?;
    deserializer.end().map_err(not_json)?;
    Ok(entries)
}

fn rows(
    path: &Path,
    entries: Vec<(String, Vec<String>)>,
    class_names: &[String],
) -> Result<Vec<PromptRow>, Error> {
    let mut by_class: HashMap<String, (String, Vec<String>)> = HashMap::new();
    for (name, prompts) in entries {
        if prompts.is_empty() {
            return Err(Error::prompt_file(
                path,
                format!("at least one prompt for `{name}`, found an empty list"),
            ));
        }
        if let Some(at) = prompts.iter().position(|p| p.trim().is_empty()) {
            return Err(Error::prompt_file(
                path,
                format!("text in prompt {at} of `{name}`, found an empty one"),
            ));
        }
        if let Some((earlier, _)) = by_class.insert(fold(&name), (name.clone(), prompts)) {
            return Err(Error::prompt_file(
                path,
                format!("one entry for each class, found `{earlier}` and `{name}`"),
            ));
        }
    }
    let mut rows = Vec::new();
    let mut missing = Vec::new();
    for (class_id, class_name) in (0_u32..).zip(class_names) {
        let Some((_, entry)) = by_class.remove(&fold(class_name)) else {
            missing.push(class_name.clone());
            continue;
        };
        let mut prompts = ClassPrompts::new(class_id, class_name);
        for prompt in entry {
            prompts.push(prompt.trim().to_owned(), Origin::FILE);
        }
        rows.extend(prompts.into_rows());
    }
    if !missing.is_empty() {
        return Err(Error::MissingClasses { path: path.to_owned(), classes: missing });
    }
    let mut unknown: Vec<String> = by_class.into_values().map(|(name, _)| name).collect();
    unknown.sort();
    if unknown.is_empty() {
        Ok(rows)
    } else {
        Err(Error::UnknownClasses { path: path.to_owned(), classes: unknown })
    }
}

/// The form under which class names are compared.
fn fold(name: &str) -> String {
    name.trim().replace('_', " ").to_lowercase()
}

/// Reads an object as a list of entries, so that a class that stands twice is seen.
struct Entries;

impl<'de> Visitor<'de> for Entries {
    type Value = Vec<(String, Vec<String>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object from class name to a list of prompts")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(entries)
    }
}
