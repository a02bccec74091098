//! The forms in which shot lists are published and exchanged.
//!
//! | form | what it is |
//! |---|---|
//! | `tsv` | `path TAB label` lines: train, an empty line, val |
//! | `cross-modal` | JSON of `linzhiqiu/cross_modal_adaptation`: `{train, val}` of `{data: [{impath, label, classname}], indices}` |
//! | `2sfs` | JSON lines of `FarinaMatteo/rethinking_fewshot_vlms`: `{_impath, _label, _domain, _classname}`; train and val in two files |
//! | `compact` | JSON `{train, val}` of `[path, label]`; read only |
//!
//! Published paths start with a folder of their authors (`./data/dtd/images/`); they are matched to the split file
//! by their end.

use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::DrawnShots;
use crate::Error;
use crate::split_file::{Listed, SplitLists, read_bounded};

/// A form of shot lists that is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IndexFormat {
    /// `path TAB label` lines.
    Tsv,
    /// JSON of `cross_modal_adaptation`.
    CrossModal,
    /// JSON lines of `rethinking_fewshot_vlms`.
    TwoStage,
}

#[derive(Deserialize, Serialize)]
struct CrossModal {
    train: CrossModalList,
    val: CrossModalList,
}

#[derive(Deserialize, Serialize)]
struct CrossModalList {
    data: Vec<CrossModalEntry>,
    #[serde(default)]
    indices: Vec<u64>,
}

#[derive(Deserialize, Serialize)]
struct CrossModalEntry {
    impath: String,
    label: u32,
    classname: String,
}

#[derive(Deserialize)]
struct Compact {
    train: Vec<(String, u32)>,
    val: Vec<(String, u32)>,
}

#[derive(Deserialize, Serialize)]
struct TwoStageEntry {
    #[serde(rename = "_impath")]
    impath: String,
    #[serde(rename = "_label")]
    label: u32,
    #[serde(rename = "_domain")]
    domain: i64,
    #[serde(rename = "_classname")]
    classname: String,
}

/// A list as published: paths and labels of train and val.
type Published = [Vec<(String, u32)>; 2];

/// Reads a published list and finds its images in the split file.
///
/// A `.jsonl` file holds one of the two lists; its name ends in `_train.jsonl` or `_val.jsonl`, and the other one is
/// read from beside it if it is there.
///
/// # Errors
///
/// Fails if the file has none of the forms, or names an image or label that the split file does not have.
pub fn read<'a>(path: &Path, lists: &'a SplitLists) -> Result<DrawnShots<'a>, Error> {
    let [train, val] = parse(path)?;
    Ok(DrawnShots {
        train: find(path, "train", &train, &lists.train)?,
        val: find(path, "val", &val, &lists.val)?,
    })
}

fn parse(path: &Path) -> Result<Published, Error> {
    if path.extension().is_some_and(|e| e == "jsonl") {
        return parse_two_stage(path);
    }
    let bytes = read_bounded(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|e| bad(path, e.to_string()))?;
    if !text.trim_start().starts_with('{') {
        return parse_tsv(path, text);
    }
    if let Ok(Compact { train, val }) = serde_json::from_str(text) {
        return Ok([train, val]);
    }
    let CrossModal { train, val } = serde_json::from_str(text).map_err(|e| {
        bad(
            path,
            format!(
                "{e}; expected the JSON of cross_modal_adaptation, `{{\"train\": {{\"data\": [...]}}, ...}}`"
            ),
        )
    })?;
    Ok([train, val].map(|list| list.data.into_iter().map(|e| (e.impath, e.label)).collect()))
}

fn parse_tsv(path: &Path, text: &str) -> Result<Published, Error> {
    let mut lists: Published = Default::default();
    let mut current = 0;
    for (index, line) in text.lines().enumerate() {
        if line.is_empty() {
            current += 1;
            continue;
        }
        let entry =
            line.rsplit_once('\t').and_then(|(path, label)| Some((path.to_owned(), label.parse().ok()?)));
        match (entry, lists.get_mut(current)) {
            (Some(entry), Some(list)) => list.push(entry),
            (None, _) => {
                let problem = format!("line {}: expected `path TAB label`, found `{line}`", index + 1);
                return Err(bad(path, problem));
            }
            (_, None) => {
                return Err(bad(path, format!("line {}: expected one empty line, found two", index + 1)));
            }
        }
    }
    Ok(lists)
}

fn parse_two_stage(path: &Path) -> Result<Published, Error> {
    let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let Some(stem) = name.strip_suffix("_train.jsonl").or_else(|| name.strip_suffix("_val.jsonl")) else {
        return Err(bad(path, "expected a name that ends in `_train.jsonl` or `_val.jsonl`".to_owned()));
    };
    let read = |split: &str| -> Result<Vec<(String, u32)>, Error> {
        let file = path.with_file_name(format!("{stem}_{split}.jsonl"));
        if file != path && !file.is_file() {
            return Ok(Vec::new());
        }
        let bytes = read_bounded(&file)?;
        let text = std::str::from_utf8(&bytes).map_err(|e| bad(&file, e.to_string()))?;
        let entry = |(index, line): (usize, &str)| {
            let entry: TwoStageEntry =
                serde_json::from_str(line).map_err(|e| bad(&file, format!("line {}: {e}", index + 1)))?;
            Ok((entry.impath, entry.label))
        };
        text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()).map(entry).collect()
    };
    Ok([read("train")?, read("val")?])
}

/// Finds published paths in a list of the split file, by the longest end that is listed.
fn find<'a>(
    file: &Path,
    split: &str,
    published: &[(String, u32)],
    list: &'a [Listed],
) -> Result<Vec<(usize, &'a Listed)>, Error> {
    let positions: HashMap<&str, usize> = list.iter().enumerate().map(|(i, e)| (e.path(), i)).collect();
    let entry = |(path, label): &(String, u32)| {
        let ends = std::iter::successors(Some(path.as_str()), |p| p.split_once('/').map(|(_, rest)| rest));
        let Some(&position) = ends.filter_map(|end| positions.get(end)).next() else {
            let problem = format!("{split} image `{path}` is not in the list `{split}` of the split file");
            return Err(bad(file, problem));
        };
        let listed = &list[position];
        if listed.label() != *label {
            let expected = listed.label();
            let problem = format!("{split} image `{path}` has label {label}, the split file says {expected}");
            return Err(bad(file, problem));
        }
        Ok((position, listed))
    };
    published.iter().map(entry).collect()
}

/// Writes a shot list to `out`; `prefix` is put before every path.
///
/// # Errors
///
/// Fails if `out` cannot be written, or for [`IndexFormat::TwoStage`], which needs two files ([`write_files`]).
pub fn write(
    shots: &DrawnShots<'_>,
    format: IndexFormat,
    prefix: &str,
    out: &mut impl Write,
) -> io::Result<()> {
    match format {
        IndexFormat::Tsv => {
            write_tsv(&shots.train, prefix, out)?;
            writeln!(out)?;
            write_tsv(&shots.val, prefix, out)
        }
        IndexFormat::CrossModal => {
            let list = |entries: &[(usize, &Listed)]| CrossModalList {
                indices: entries.iter().map(|(position, _)| *position as u64).collect(),
                data: entries
                    .iter()
                    .map(|(_, e)| CrossModalEntry {
                        impath: format!("{prefix}{}", e.path()),
                        label: e.label(),
                        classname: e.class_name().to_owned(),
                    })
                    .collect(),
            };
            let json = CrossModal { train: list(&shots.train), val: list(&shots.val) };
            let mut serializer = serde_json::Serializer::with_formatter(
                &mut *out,
                serde_json::ser::PrettyFormatter::with_indent(b"    "),
            );
            json.serialize(&mut serializer)?;
            Ok(())
        }
        IndexFormat::TwoStage => {
            write_two_stage(&shots.train, prefix, out)?;
            write_two_stage(&shots.val, prefix, out)
        }
    }
}

/// Writes a shot list to `target`: one file, or `<target>_train.jsonl` and `<target>_val.jsonl` for
/// [`IndexFormat::TwoStage`]. Gives the files written.
///
/// # Errors
///
/// Fails if a file cannot be written.
pub fn write_files(
    shots: &DrawnShots<'_>,
    format: IndexFormat,
    prefix: &str,
    target: &Path,
) -> Result<Vec<PathBuf>, Error> {
    let save = |path: PathBuf, bytes: Vec<u8>| {
        std::fs::write(&path, bytes).map_err(|e| Error::write(&path, e))?;
        Ok(path)
    };
    let filled = |fill: &dyn Fn(&mut Vec<u8>) -> io::Result<()>| {
        let mut bytes = Vec::new();
        fill(&mut bytes).map_err(|e| Error::write(target, e))?;
        Ok::<_, Error>(bytes)
    };
    if format != IndexFormat::TwoStage {
        return Ok(vec![save(target.to_owned(), filled(&|out| write(shots, format, prefix, out))?)?]);
    }
    [("train", &shots.train), ("val", &shots.val)]
        .into_iter()
        .map(|(split, list)| {
            let mut name = target.as_os_str().to_owned();
            name.push(format!("_{split}.jsonl"));
            save(name.into(), filled(&|out| write_two_stage(list, prefix, out))?)
        })
        .collect()
}

fn write_tsv(list: &[(usize, &Listed)], prefix: &str, out: &mut impl Write) -> io::Result<()> {
    list.iter().try_for_each(|(_, e)| writeln!(out, "{prefix}{}\t{}", e.path(), e.label()))
}

fn write_two_stage(list: &[(usize, &Listed)], prefix: &str, out: &mut impl Write) -> io::Result<()> {
    for (_, entry) in list {
        let json = TwoStageEntry {
            impath: format!("{prefix}{}", entry.path()),
            label: entry.label(),
            domain: 0,
            classname: entry.class_name().to_owned(),
        };
        serde_json::to_writer(&mut *out, &json)?;
        writeln!(out)?;
    }
    Ok(())
}

fn bad(path: &Path, problem: String) -> Error {
    Error::SplitFile { path: path.into(), problem }
}
