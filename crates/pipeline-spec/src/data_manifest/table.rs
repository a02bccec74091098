//! Images named by the rows of a CSV file, and images inside Parquet files.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use super::{SplitCounts, check_inside, check_shares, field, unique};
use crate::Error;

/// A CSV file with a header: one row per image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CsvForm {
    /// The CSV file below `<data>/<dataset>/`.
    pub file: String,
    /// Folder below `<data>/<dataset>/` that the paths of the rows start at; `.` for that folder itself.
    pub root: String,
    /// Column of the image's path; also the sample id.
    pub path_column: String,
    /// Column of the class.
    pub class_column: String,
    /// Classes in label order. Absent: every value of the class column in byte order, `_` read as a space.
    pub classes: Option<Vec<TableClass>>,
    /// How images are dealt to splits.
    pub split: CsvSplit,
    /// Images that each split must hold. Absent: not checked.
    pub expected: Option<SplitCounts>,
}

/// A class of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TableClass {
    /// Its value in the class column.
    pub value: String,
    /// Name as it stands in a prompt.
    pub name: String,
}

/// How the rows of a CSV file are dealt to splits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum CsvSplit {
    /// A column holds the name of the split.
    Column(String),
    /// By rank of the BLAKE3 digest of the path within the class: split name to share in percent, 100 in all.
    Percent(BTreeMap<String, u32>),
}

/// Parquet files with an image column of struct `{bytes, path}` or bytes, and a class column.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ParquetForm {
    /// Folder of the files below `<data>/<dataset>/`; `.` for that folder itself.
    pub root: String,
    /// Column of the image.
    pub image_column: String,
    /// Column of the class: an integer label, or a name.
    pub class_column: String,
    /// Class names in label order, as they stand in a prompt. Absent: those of the files' `ClassLabel`, or every
    /// name of the class column in byte order; `_` read as a space.
    pub class_names: Option<Vec<String>>,
    /// How images are dealt to splits.
    pub split: ParquetSplit,
    /// Images that each split must hold. Absent: not checked.
    pub expected: Option<SplitCounts>,
}

/// How the rows of Parquet files are dealt to splits.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum ParquetSplit {
    /// By file: split name to the start of the names of its files, for example `train-`.
    Files(BTreeMap<String, String>),
    /// By rank of the BLAKE3 digest of the sample id within the class: split name to share in percent, 100 in all.
    Percent(BTreeMap<String, u32>),
}

impl CsvForm {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_inside("form.csv.file", &self.file)?;
        check_inside("form.csv.root", &self.root)?;
        unique("form.csv.classes.value", self.classes.iter().flatten().map(|c| c.value.as_str()))?;
        let split = match &self.split {
            CsvSplit::Column(column) => Some(column.as_str()),
            CsvSplit::Percent(shares) => {
                check_shares("form.csv.split.percent", shares)?;
                None
            }
        };
        let columns = [self.path_column.as_str(), self.class_column.as_str()];
        unique("form.csv.columns", columns.into_iter().chain(split))
    }
}

impl ParquetForm {
    pub(super) fn check(&self) -> Result<(), Error> {
        check_inside("form.parquet.root", &self.root)?;
        unique("form.parquet.columns", [self.image_column.as_str(), self.class_column.as_str()].into_iter())?;
        match &self.split {
            ParquetSplit::Percent(shares) => check_shares("form.parquet.split.percent", shares),
            ParquetSplit::Files(files) => {
                if files.is_empty() {
                    return Err(field("form.parquet.split.files", "expected at least one split, found none"));
                }
                unique("form.parquet.split.files", files.values().map(String::as_str))
            }
        }
    }
}
