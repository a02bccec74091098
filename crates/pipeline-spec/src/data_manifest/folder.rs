//! A folder per class.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{SplitCounts, check_inside, check_shares, field, single, unique};
use crate::Error;

/// A folder per class: `<data>/<dataset>/<root>/[<split>/]<class>/<image>`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderForm {
    /// Folder below `<data>/<dataset>/`; `.` for that folder itself.
    pub root: String,
    /// Classes in label order. Absent: every class folder in byte order, `_` in its name read as a space.
    pub classes: Option<Vec<FolderClass>>,
    /// How images are dealt to splits.
    pub split: FolderSplit,
    /// Images that each split must hold. Absent: not checked.
    pub expected: Option<SplitCounts>,
}

/// A class of a folder tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FolderClass {
    /// Name of the folder.
    pub folder: String,
    /// Name as it stands in a prompt.
    pub name: String,
}

/// How the images of a folder tree are dealt to splits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum FolderSplit {
    /// The tree has a folder per split: split name to folder name.
    Folders(BTreeMap<String, String>),
    /// By rank of the BLAKE3 digest of the path within the class: split name to share in percent, 100 in all.
    Percent(BTreeMap<String, u32>),
}

impl FolderForm {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_inside("form.folder.root", &self.root)?;
        for class in self.classes.iter().flatten() {
            if !single(&class.folder) {
                let problem = format!("expected the name of one folder, found `{}`", class.folder);
                return Err(field("form.folder.classes.folder", problem));
            }
        }
        unique("form.folder.classes.folder", self.classes.iter().flatten().map(|c| c.folder.as_str()))?;
        match &self.split {
            FolderSplit::Folders(folders) => {
                unique("form.folder.split.folders", folders.values().map(String::as_str))?;
                match folders.values().find(|f| !single(f)) {
                    None if folders.is_empty() => {
                        Err(field("form.folder.split.folders", "expected at least one split, found none"))
                    }
                    None => Ok(()),
                    Some(found) => {
                        let problem = format!("expected the name of one folder, found `{found}`");
                        Err(field("form.folder.split.folders", problem))
                    }
                }
            }
            FolderSplit::Percent(shares) => check_shares("form.folder.split.percent", shares),
        }
    }
}
