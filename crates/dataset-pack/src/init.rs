//! `dataset-pack init`: a manifest for one's own images, with class names and a template to edit.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use artifacts::image_table;
use pipeline_spec::DatasetId;
use pipeline_spec::data_manifest::{
    CsvForm, CsvSplit, DataManifest, FolderClass, FolderForm, FolderSplit, Form, ParquetForm, ParquetSplit,
    TableClass,
};

use crate::Error;
use crate::source::csv_file;
use crate::source::files::parquet_files;

/// Split names and the folder or file names that people give them.
const SPLITS: [(&str, &[&str]); 3] = [
    ("train", &["train", "training"]),
    ("val", &["val", "valid", "validation"]),
    ("test", &["test", "testing"]),
];
/// Columns that people call so.
const PATH_COLUMNS: [&str; 7] = ["path", "image", "filename", "file_name", "file", "image_path", "filepath"];
const CLASS_COLUMNS: [&str; 7] =
    ["class", "label", "class_name", "category", "target", "label_name", "labels"];
const IMAGE_COLUMNS: [&str; 3] = ["image", "img", "picture"];

/// A manifest for the data in `folder`, whose name is the data set's, and one line for people: what was found.
///
/// # Errors
///
/// Fails if the folder holds neither Parquet files with an image column, a CSV file with columns for path and class,
/// nor a folder for each class.
pub fn describe(folder: &Path) -> Result<(DataManifest, String), Error> {
    let layout = |problem: String| Error::Layout { path: folder.into(), problem };
    let name = folder.canonicalize().map_err(|e| Error::io(folder, e))?;
    let name = name.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
    let dataset = DatasetId::try_from(name)
        .map_err(|e| layout(format!("{e}; its folder names the data set: rename it")))?;
    let form = match (parquet_form(folder)?, csv_form(folder)?) {
        (Some(form), _) => Form::Parquet(form),
        (None, Some(form)) => Form::Csv(form),
        (None, None) => Form::Folder(folder_form(folder)),
    };
    let mut manifest = DataManifest {
        description: format!("Images of {dataset}."),
        dataset,
        templates: vec!["a photo of a {}.".to_owned()],
        sources: Vec::new(),
        form,
    };
    let data = folder.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let data = if folder.file_name().is_some() { data.to_owned() } else { folder.join("..") };
    let loaded = crate::source::load(&manifest, &data)?;
    let counts: BTreeMap<String, u64> =
        loaded.splits().into_iter().map(|split| (split.to_owned(), loaded.count(split))).collect();
    let found = format!("{} classes, {}", loaded.class_names.len(), counts_text(&counts));
    match &mut manifest.form {
        Form::Folder(form) => {
            let mut classes: BTreeMap<u32, FolderClass> = BTreeMap::new();
            for item in &loaded.items {
                let (Some(label), Some(name)) = (item.label, &item.class_name) else { continue };
                let class = || FolderClass { folder: item.origin.clone(), name: name.clone() };
                classes.entry(label).or_insert_with(class);
            }
            form.classes = Some(classes.into_values().collect());
            form.expected = Some(counts);
        }
        Form::Csv(form) => {
            form.classes = Some(csv_classes(folder, form, &loaded.class_names)?);
            form.expected = Some(counts);
        }
        Form::Parquet(form) => {
            form.class_names = Some(loaded.class_names);
            form.expected = Some(counts);
        }
        Form::Emoji(_) | Form::Benchmark(_) => {}
    }
    Ok((manifest, found))
}

/// The manifest as TOML with a header that says what to edit.
///
/// # Errors
///
/// Fails if the manifest cannot be written as TOML.
pub fn to_toml(manifest: &DataManifest) -> Result<String, Error> {
    let bad = |e: toml::ser::Error| Error::Manifest {
        dataset: manifest.dataset.to_string(),
        field: "form".to_owned(),
        problem: e.to_string(),
    };
    let body = toml::to_string(manifest).map_err(bad)?;
    Ok(format!(
        "# Written by `dataset-pack init`. Edit `description`, the class names as they stand in a prompt, and `templates`\n\
         # (each with one `{{}}` for the class name). `expected` are the images found; packing fails when others are there.\n{body}"
    ))
}

fn counts_text(counts: &BTreeMap<String, u64>) -> String {
    counts.iter().map(|(split, n)| format!("{n} images of `{split}`")).collect::<Vec<_>>().join(", ")
}

/// 50 / 20 / 30 percent, as CoOp splits the sets that come without a split.
fn shares() -> BTreeMap<String, u32> {
    [("train", 50), ("val", 20), ("test", 30)].map(|(split, share)| (split.to_owned(), share)).into()
}

fn folder_form(folder: &Path) -> FolderForm {
    let mut folders = BTreeMap::new();
    for (split, names) in SPLITS {
        if let Some(name) = names.iter().find(|name| folder.join(name).is_dir()) {
            folders.insert(split.to_owned(), (*name).to_owned());
        }
    }
    let split = if folders.contains_key("train") {
        FolderSplit::Folders(folders)
    } else {
        FolderSplit::Percent(shares())
    };
    FolderForm { root: ".".to_owned(), classes: None, split, expected: None }
}

fn csv_form(folder: &Path) -> Result<Option<CsvForm>, Error> {
    let entries = std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))?.flatten().map(|e| e.path());
    let mut files: Vec<_> = entries.filter(|p| p.extension().is_some_and(|e| e == "csv")).collect();
    files.sort();
    for file in files {
        let (header, _) = csv_file::read(&file)?;
        let column =
            |names: &[&str]| names.iter().find(|n| header.iter().any(|h| h == **n)).map(|n| (*n).to_owned());
        let (Some(path_column), Some(class_column)) = (column(&PATH_COLUMNS), column(&CLASS_COLUMNS)) else {
            continue;
        };
        let split = match column(&["split", "subset", "partition"]) {
            Some(column) => CsvSplit::Column(column),
            None => CsvSplit::Percent(shares()),
        };
        let file = file.file_name().and_then(|n| n.to_str()).unwrap_or_default().to_owned();
        let (root, classes, expected) = (".".to_owned(), None, None);
        return Ok(Some(CsvForm { file, root, path_column, class_column, classes, split, expected }));
    }
    Ok(None)
}

/// The values of the class column beside the names that were made of them, both in byte order of the values.
fn csv_classes(folder: &Path, form: &CsvForm, names: &[String]) -> Result<Vec<TableClass>, Error> {
    let (header, records) = csv_file::read(&folder.join(&form.file))?;
    let at = header.iter().position(|h| *h == form.class_column).unwrap_or_default();
    let values: BTreeSet<String> =
        records.into_iter().map(|(_, mut fields)| fields.swap_remove(at)).collect();
    Ok(values.into_iter().zip(names).map(|(value, name)| TableClass { value, name: name.clone() }).collect())
}

fn parquet_form(folder: &Path) -> Result<Option<ParquetForm>, Error> {
    for root in [".", "data"] {
        let files = parquet_files(&folder.join(root));
        let Some(first) = files.first() else { continue };
        let has = |column: &str| image_table::cells(first, column, None).is_ok();
        let class = |image: &str| {
            CLASS_COLUMNS.iter().find(|class| image_table::cells(first, image, Some(class)).is_ok())
        };
        let Some(image_column) = IMAGE_COLUMNS.iter().find(|column| has(column)) else { continue };
        let Some(class_column) = class(image_column) else { continue };
        let mut starts = BTreeMap::new();
        for (split, names) in SPLITS {
            let named = |start: &str| {
                files
                    .iter()
                    .any(|f| f.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with(start)))
            };
            if let Some(name) = names.iter().find(|name| named(name)) {
                starts.insert(split.to_owned(), (*name).to_owned());
            }
        }
        let split =
            if starts.len() > 1 { ParquetSplit::Files(starts) } else { ParquetSplit::Percent(shares()) };
        return Ok(Some(ParquetForm {
            root: root.to_owned(),
            image_column: (*image_column).to_owned(),
            class_column: (*class_column).to_owned(),
            class_names: None,
            split,
            expected: None,
        }));
    }
    Ok(None)
}
