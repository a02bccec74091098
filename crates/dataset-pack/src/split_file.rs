//! CoOp's split files: JSON lists `train`, `val` and `test` of `[path, label, class name]`.
//!
//! The order of a list matters: shot lists are drawn from it. A file that names an image twice, leaves a label
//! out or leads out of the data set is refused, because nothing downstream could notice.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use pipeline_spec::Digest;

use crate::Error;
use crate::container::check_path;

/// Largest split file that is read, in bytes; that of Food101 has 6 MB.
const MAX_BYTES: u64 = 256 << 20;

/// An image of a list: path, label, class name.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Listed(pub String, pub u32, pub String);

impl Listed {
    /// Path of the image, relative to the folder of the images.
    pub fn path(&self) -> &str {
        &self.0
    }

    /// Label, from 0.
    pub fn label(&self) -> u32 {
        self.1
    }

    /// Name of the class, as the file has it.
    pub fn class_name(&self) -> &str {
        &self.2
    }
}

/// The three lists of a split file, in file order.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SplitLists {
    /// Training images.
    pub train: Vec<Listed>,
    /// Validation images.
    pub val: Vec<Listed>,
    /// Test images.
    pub test: Vec<Listed>,
}

impl SplitLists {
    /// Reads and checks a split file.
    ///
    /// # Errors
    ///
    /// Fails if it cannot be read, is no split file, or contradicts itself (see [`Self::check`]).
    pub fn read(path: &Path) -> Result<Self, Error> {
        let lists: Self = read_json(path)?;
        lists.check(path)?;
        Ok(lists)
    }

    /// The lists with their names.
    pub fn lists(&self) -> [(&'static str, &[Listed]); 3] {
        [("train", &self.train), ("val", &self.val), ("test", &self.test)]
    }

    /// Class names in label order, as the file has them.
    pub fn class_names(&self) -> Vec<&str> {
        let by_label: BTreeMap<u32, &str> =
            self.lists().iter().flat_map(|(_, list)| *list).map(|e| (e.label(), e.class_name())).collect();
        by_label.into_values().collect()
    }

    /// SHA-256 over the lines `<split> TAB <path> TAB <label> LF` of the three lists.
    pub fn entries_sha256(&self) -> Digest {
        let mut hasher = Sha256::new();
        for (split, list) in self.lists() {
            for entry in list {
                hasher.update(format!("{split}\t{}\t{}\n", entry.path(), entry.label()));
            }
        }
        let hex: String = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Digest::try_from(hex).expect("SHA-256 has 64 hexadecimal digits")
    }

    /// Refuses paths that leave the data set, images named twice, labels with two names or none, and classes that
    /// the training list lacks.
    fn check(&self, path: &Path) -> Result<(), Error> {
        let bad = |problem: String| Error::SplitFile { path: path.into(), problem };
        if self.train.is_empty() {
            return Err(bad("the list `train` is empty".to_owned()));
        }
        let mut seen: HashMap<&str, &str> = HashMap::new();
        let mut names: BTreeMap<u32, &str> = BTreeMap::new();
        for (split, list) in self.lists() {
            for (index, entry) in list.iter().enumerate() {
                let at = |problem: &str| bad(format!("{split}[{index}] `{}`: {problem}", entry.path()));
                check_path(entry.path()).map_err(|problem| at(&problem))?;
                if let Some(first) = seen.insert(entry.path(), split) {
                    return Err(at(&format!("the image is in `{first}` already; each may stand once")));
                }
                let name = *names.entry(entry.label()).or_insert_with(|| entry.class_name());
                if name != entry.class_name() {
                    let (label, found) = (entry.label(), entry.class_name());
                    return Err(at(&format!("label {label} is `{name}` elsewhere and `{found}` here")));
                }
            }
        }
        let num_classes = names.len();
        if let Some(label) = names.keys().find(|&&label| label as usize >= num_classes) {
            let problem = format!(
                "there are {num_classes} labels, expected 0 to {}, found {label}; a class is empty or the label is out of range",
                num_classes - 1
            );
            return Err(bad(problem));
        }
        let mut in_train = vec![false; num_classes];
        self.train.iter().for_each(|e| in_train[e.label() as usize] = true);
        match in_train.iter().position(|there| !there) {
            Some(label) => {
                Err(bad(format!("class {label} `{}` has no training image", names[&(label as u32)])))
            }
            None => Ok(()),
        }
    }
}

/// Reads a JSON file of bounded size.
pub(crate) fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Error> {
    let bytes = read_bounded(path)?;
    serde_json::from_slice(&bytes).map_err(|e| {
        let problem = format!("{e}; expected lists of [path, label, class name] as CoOp publishes them");
        Error::SplitFile { path: path.into(), problem }
    })
}

/// Reads a list file of bounded size.
pub(crate) fn read_bounded(path: &Path) -> Result<Vec<u8>, Error> {
    let length = std::fs::metadata(path).map_err(|e| Error::io(path, e))?.len();
    if length > MAX_BYTES {
        let problem = format!("it has {length} bytes, expected at most {MAX_BYTES}");
        return Err(Error::SplitFile { path: path.into(), problem });
    }
    std::fs::read(path).map_err(|e| Error::io(path, e))
}
