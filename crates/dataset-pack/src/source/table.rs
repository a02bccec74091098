//! Rows of a table as images: a CSV file that names files, or Parquet files that hold them.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::Path;

use artifacts::image_table::{self, Cell, CellClass};
use pipeline_spec::data_manifest::{CsvForm, CsvSplit, DataManifest, ParquetForm, ParquetSplit, TableClass};

use super::csv_file;
use super::files::parquet_files;
use super::folder::deal;
use super::tree::{Tree, layout};
use crate::Error;
use crate::container::{Container, check_path};
use crate::item::{Dataset, Item, Picture};

/// Lists the images that the rows of a CSV file name.
///
/// # Errors
///
/// Fails if the file lacks a column, or with the first row that names a class that is none of the manifest's, an image
/// twice, a path that leaves the folder, or a file that is not there; and if a class has no row.
pub fn load_csv(manifest: &DataManifest, form: &CsvForm, data_dir: &Path) -> Result<Dataset, Error> {
    let base = data_dir.join(manifest.dataset.as_str());
    let (path, tree) = (base.join(&form.file), Tree::open(&base.join(&form.root)));
    let bad = |line: u64, problem: String| {
        let problem = format!("line {line}: {problem}");
        Error::SplitFile { path: path.clone(), problem }
    };
    let (header, records) = csv_file::read(&path)?;
    let column = |name: &str| {
        let missing = || bad(1, format!("expected a column `{name}`, found {}", header.join(", ")));
        header.iter().position(|h| h == name).ok_or_else(missing)
    };
    let (path_at, class_at) = (column(&form.path_column)?, column(&form.class_column)?);
    let split_at = match &form.split {
        CsvSplit::Column(name) => Some(column(name)?),
        CsvSplit::Percent(_) => None,
    };
    let mut rows = Vec::new();
    let mut seen = HashSet::new();
    for (line, record) in records {
        let value = |at: usize| record[at].clone();
        let image = value(path_at);
        check_path(&image).map_err(|problem| bad(line, format!("`{image}`: {problem}")))?;
        if !seen.insert(image.clone()) {
            return Err(bad(line, format!("image `{image}` stands twice; each may stand once")));
        }
        let file = tree
            .file(&image)
            .ok_or_else(|| bad(line, format!("image `{image}` is not below `{}`", tree.root().display())))?;
        let row = Row {
            sample_id: image,
            class: value(class_at),
            split: split_at.map(value).unwrap_or_default(),
            picture: Picture::File(file),
        };
        if split_at.is_some() && row.split.is_empty() {
            return Err(bad(line, "the split is empty".to_owned()));
        }
        rows.push((line, row));
    }
    let classes = match &form.classes {
        Some(classes) => classes.clone(),
        None => classes_of(rows.iter().map(|(_, row)| row.class.as_str())),
    };
    let shares = match &form.split {
        CsvSplit::Percent(shares) => Some(shares),
        CsvSplit::Column(_) => None,
    };
    dataset(manifest, &classes, rows, shares, Vec::new(), bad)
}

/// Lists the images inside Parquet files.
///
/// # Errors
///
/// Fails if there is no file, a file lacks a column, a label or class is none of the manifest's, or a class has no row.
pub fn load_parquet(manifest: &DataManifest, form: &ParquetForm, data_dir: &Path) -> Result<Dataset, Error> {
    let root = data_dir.join(manifest.dataset.as_str()).join(&form.root);
    let files = parquet_files(&root);
    let mut containers = Vec::new();
    let mut cells: Vec<(usize, usize, String, Cell)> = Vec::new();
    let mut seen = HashSet::new();
    for path in &files {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        let split = match &form.split {
            ParquetSplit::Percent(_) => String::new(),
            ParquetSplit::Files(starts) => match starts.iter().find(|(_, start)| name.starts_with(*start)) {
                Some((split, _)) => split.clone(),
                None => continue,
            },
        };
        let index = containers.len();
        containers.extend(Container::at(path).map(|c| c.with_image_column(&form.image_column)));
        let of_file = image_table::cells(path, &form.image_column, Some(&form.class_column))?;
        cells.extend(of_file.into_iter().enumerate().map(|(row, cell)| (index, row, split.clone(), cell)));
    }
    if containers.is_empty() {
        let problem = match &form.split {
            ParquetSplit::Percent(_) => "expected Parquet files, found none".to_owned(),
            ParquetSplit::Files(starts) => format!("expected Parquet files named {starts:?}, found none"),
        };
        return Err(layout(&root, problem));
    }
    let classes = parquet_classes(form, containers[0].path(), &cells)?;
    let mut rows = Vec::new();
    for (container, position, split, cell) in cells {
        let place = containers[container].path();
        let bad = |problem: String| Error::Layout {
            path: place.into(),
            problem: format!("row {position}: {problem}"),
        };
        let class = class_value(cell.class, &classes).map_err(bad)?;
        let file = place.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
        let sample_id =
            cell.path.filter(|path| !path.is_empty()).unwrap_or_else(|| format!("{file}/{position:07}"));
        if !seen.insert(sample_id.clone()) {
            return Err(bad(format!("image `{sample_id}` stands twice; each may stand once")));
        }
        let row = Row { sample_id, class, split, picture: Picture::Member { container, position } };
        rows.push((position as u64, row));
    }
    let shares = match &form.split {
        ParquetSplit::Percent(shares) => Some(shares),
        ParquetSplit::Files(_) => None,
    };
    dataset(manifest, &classes, rows, shares, containers, |row, problem| {
        layout(&root, format!("row {row}: {problem}"))
    })
}

/// The classes: the form's, or those that the first file names, or those of the rows.
fn parquet_classes(
    form: &ParquetForm,
    first: &Path,
    cells: &[(usize, usize, String, Cell)],
) -> Result<Vec<TableClass>, Error> {
    let names = match &form.class_names {
        Some(names) => Some(names.clone()),
        None => image_table::class_names(first, &form.class_column)?
            .map(|names| names.iter().map(|name| name.replace('_', " ")).collect()),
    };
    Ok(match names {
        Some(names) => {
            names.into_iter().map(|name| TableClass { value: name.replace(' ', "_"), name }).collect()
        }
        None => classes_of(cells.iter().filter_map(|(.., cell)| match &cell.class {
            Some(CellClass::Name(name)) => Some(name.as_str()),
            _ => None,
        })),
    })
}

/// The value of a row's class. Values compare by the name in a prompt, so a label becomes its class's value.
fn class_value(class: Option<CellClass>, classes: &[TableClass]) -> Result<String, String> {
    match class {
        Some(CellClass::Label(label)) => {
            let known = usize::try_from(label).ok().and_then(|label| classes.get(label));
            let last = classes.len() as i64 - 1;
            known
                .map(|class| class.value.clone())
                .ok_or_else(|| format!("label {label} is out of range, expected 0 to {last}"))
        }
        Some(CellClass::Name(name)) => Ok(name),
        None => Err("it has no class".to_owned()),
    }
}

struct Row {
    sample_id: String,
    class: String,
    split: String,
    picture: Picture,
}

/// A class for each value, in byte order.
fn classes_of<'a>(values: impl Iterator<Item = &'a str>) -> Vec<TableClass> {
    let values: BTreeSet<&str> = values.collect();
    values
        .into_iter()
        .map(|value| TableClass { value: value.to_owned(), name: value.replace('_', " ") })
        .collect()
}

fn dataset(
    manifest: &DataManifest,
    classes: &[TableClass],
    rows: Vec<(u64, Row)>,
    shares: Option<&BTreeMap<String, u32>>,
    containers: Vec<Container>,
    bad: impl Fn(u64, String) -> Error,
) -> Result<Dataset, Error> {
    let mut labels: HashMap<&str, usize> = classes.iter().map(|c| c.name.as_str()).zip(0..).collect();
    labels.extend(classes.iter().map(|c| c.value.as_str()).zip(0..));
    let mut of_class: Vec<Vec<Item>> = vec![Vec::new(); classes.len()];
    for (line, row) in rows {
        let label = *labels.get(row.class.as_str()).ok_or_else(|| {
            bad(line, format!("`{}` is no class of the manifest; add it or correct the row", row.class))
        })?;
        of_class[label].push(Item {
            sample_id: row.sample_id,
            split: row.split,
            label: Some(label as u32),
            class_name: Some(classes[label].name.clone()),
            caption: classes[label].name.clone(),
            origin: manifest.dataset.to_string(),
            picture: row.picture,
        });
    }
    if let Some(empty) = of_class.iter().position(Vec::is_empty) {
        let problem = format!("no image of class `{}`; remove the class or add images", classes[empty].name);
        return Err(Error::Manifest {
            dataset: manifest.dataset.to_string(),
            field: "classes".to_owned(),
            problem,
        });
    }
    let items = of_class.into_iter().flat_map(|items| match shares {
        Some(shares) => deal(items, shares),
        None => items,
    });
    Ok(Dataset::sorted(classes.iter().map(|c| c.name.clone()).collect(), items.collect(), containers))
}
