//! Published benchmarks: the fixed split of one listing over images in whatever layout people have them.
//!
//! The items and their order do not depend on the layout, so neither do the packed bytes. Images keep the order of
//! the split file, because shot lists are drawn from it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pipeline_spec::data_manifest::{BenchmarkForm, ClassFolders, DataManifest, Layout, Listing, TextFiles};

use super::files::Files;
use crate::Error;
use crate::item::{Dataset, Item};
use crate::split_file::{Listed, SplitLists};

/// A benchmark on disk: which layout it has and what its listing names.
#[derive(Debug)]
pub struct Found {
    /// Name of the layout.
    pub layout: String,
    /// Folder that the layout was found in.
    pub base: PathBuf,
    /// The listing file, where there is one.
    pub listing: Option<PathBuf>,
    /// The images by path.
    pub files: Files,
    /// Split and entry of every listed image, in packed order.
    pub listed: Vec<(String, Listed)>,
}

/// Lists the images of a benchmark with their splits.
///
/// # Errors
///
/// Fails if no layout or listing is found (the message says what was looked for), the listing is not the one of the
/// manifest, or images are missing.
pub fn load(manifest: &DataManifest, form: &BenchmarkForm, root: &Path) -> Result<Dataset, Error> {
    let found = find(manifest, form, root)?;
    tracing::info!(layout = found.layout, folder = %found.base.display(), "found the images");
    let mut items = Vec::with_capacity(found.listed.len());
    let mut missing = Vec::new();
    for (split, entry) in &found.listed {
        let Some(picture) = found.files.picture(entry.path()) else {
            missing.push(entry.path());
            continue;
        };
        let class_name = form.class_names.get(entry.label() as usize).ok_or_else(|| {
            let (label, expected) = (entry.label(), form.class_names.len());
            let problem =
                format!("image `{}` has label {label}, the manifest has {expected} classes", entry.path());
            Error::SplitFile { path: found.listing.clone().unwrap_or_default(), problem }
        })?;
        items.push(Item {
            sample_id: entry.path().to_owned(),
            split: split.clone(),
            label: Some(entry.label()),
            class_name: Some(class_name.clone()),
            caption: class_name.clone(),
            origin: manifest.dataset.to_string(),
            picture,
        });
    }
    if let Some(first) = missing.first() {
        let problem = format!(
            "{} of {} listed images are missing, first `{first}`; run `dataset-pack doctor {}` for all of them",
            missing.len(),
            found.listed.len(),
            manifest.dataset
        );
        return Err(Error::Layout { path: found.base, problem });
    }
    let containers = found.files.into_containers();
    Ok(Dataset { class_names: form.class_names.clone(), items, containers, published: true })
}

/// Finds the layout and reads the listing; images need not all be there.
///
/// # Errors
///
/// Fails if no layout or listing is found, or the listing cannot be used.
pub fn find(manifest: &DataManifest, form: &BenchmarkForm, root: &Path) -> Result<Found, Error> {
    let (layout, base) = find_layout(manifest, form, root)?;
    let files = Files::open(&base, layout)?;
    let (listing, listed) = match &form.listing {
        Listing::SplitFile(split) => {
            let path = find_list(manifest, root, &base, &split.file)?;
            let lists = SplitLists::read(&path)?;
            let found = lists.entries_sha256();
            if found != split.entries_sha256 {
                let problem = format!(
                    "its entries have sha256 {found}, the manifest says {}; download it again",
                    split.entries_sha256
                );
                return Err(Error::SplitFile { path, problem });
            }
            let named = |(split, list): (&str, &[Listed])| {
                list.iter().map(|entry| (split.to_owned(), entry.clone())).collect::<Vec<_>>()
            };
            (Some(path), lists.lists().into_iter().flat_map(named).collect())
        }
        Listing::TextFiles(text) => (None, read_text_files(form, text, layout, &base, &files)?),
        Listing::ClassFolders(tree) => (None, list_tree(form, tree, &base, &files)?),
    };
    Ok(Found { layout: layout.name.clone(), base, listing, files, listed })
}

/// The first layout whose folders, archives or Parquet files are there.
fn find_layout<'a>(
    manifest: &DataManifest,
    form: &'a BenchmarkForm,
    root: &Path,
) -> Result<(&'a Layout, PathBuf), Error> {
    let mut looked_for = Vec::new();
    for layout in &form.layouts {
        let mut bases =
            vec![root.join(&layout.folder), root.join(manifest.dataset.as_str()), root.to_owned()];
        bases.dedup();
        for base in bases {
            if Files::present(&base, layout) {
                return Ok((layout, base));
            }
        }
        looked_for.push(format!("{} ({})", layout.name, Files::describe(layout)));
    }
    let problem = format!(
        "no layout of `{}` is there; looked in it, in its folder of that name and in those of the layouts for: {}",
        manifest.dataset,
        looked_for.join("; ")
    );
    Err(Error::Layout { path: root.into(), problem })
}

/// The listing file `name`: beside the images, in the root, or in `<root>/splits`.
fn find_list(manifest: &DataManifest, root: &Path, base: &Path, name: &str) -> Result<PathBuf, Error> {
    let dataset = manifest.dataset.as_str();
    let mut folders = vec![base.to_owned(), root.join(dataset), root.to_owned(), root.join("splits")];
    folders.extend(base.parent().map(Path::to_owned));
    let candidates: Vec<PathBuf> = folders.into_iter().map(|folder| folder.join(name)).collect();
    if let Some(found) = candidates.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let looked: Vec<String> = candidates.iter().map(|p| format!("`{}`", p.display())).collect();
    let problem = format!("it is not there; looked for {}", looked.join(", "));
    Err(Error::SplitFile { path: base.join(name), problem })
}

fn read_text_files(
    form: &BenchmarkForm,
    text: &TextFiles,
    layout: &Layout,
    base: &Path,
    files: &Files,
) -> Result<Vec<(String, Listed)>, Error> {
    let labels: HashMap<&str, u32> = form.class_names.iter().map(String::as_str).zip(0..).collect();
    let mut listed = Vec::new();
    let mut seen = HashMap::new();
    // In the order of CoOp's lists, which shots are drawn in: train, val, test.
    let mut order: Vec<(&String, &String)> = text.files.iter().collect();
    order.sort_by_key(|(split, _)| ["train", "val", "test"].iter().position(|s| s == split));
    for (split, name) in order {
        let inner = layout.lists.as_deref().map(|start| format!("{start}{name}"));
        let (path, bytes) = match inner {
            Some(inner) => (base.join(&inner), files.read(&inner)?),
            None => (base.join(name), crate::split_file::read_bounded(&base.join(name)).map(Some)?),
        };
        let bad = |line: usize, problem: String| {
            let problem = format!("line {}: {problem}", line + 1);
            Error::SplitFile { path: path.clone(), problem }
        };
        let Some(bytes) = bytes else {
            return Err(Error::Layout { path, problem: "the list is not there".to_owned() });
        };
        let lines = std::str::from_utf8(&bytes).map_err(|e| bad(0, e.to_string()))?;
        for (index, line) in lines.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let (image, class) = line
                .trim()
                .split_once(' ')
                .ok_or_else(|| bad(index, format!("expected `<image> <class name>`, found `{line}`")))?;
            let label = *labels
                .get(class)
                .ok_or_else(|| bad(index, format!("`{class}` is no class of the manifest")))?;
            let entry = Listed(format!("{image}{}", text.extension), label, class.to_owned());
            crate::container::check_path(entry.path()).map_err(|problem| bad(index, problem))?;
            if let Some(first) = seen.insert(entry.0.clone(), split) {
                return Err(bad(
                    index,
                    format!("image `{image}` is in `{first}` already; each may stand once"),
                ));
            }
            listed.push((split.clone(), entry));
        }
    }
    Ok(listed)
}

/// The images of a folder per class, sorted by split, label and path.
fn list_tree(
    form: &BenchmarkForm,
    tree: &ClassFolders,
    base: &Path,
    files: &Files,
) -> Result<Vec<(String, Listed)>, Error> {
    let labels: HashMap<&str, u32> = tree.folders.iter().map(String::as_str).zip(0..).collect();
    let mut listed = Vec::new();
    for path in files.listed_paths()? {
        // The longest start wins: `train/` before the empty one.
        let split = tree.splits.iter().filter(|(_, start)| path.starts_with(start.as_str()));
        let Some((split, start)) = split.max_by_key(|(_, start)| start.len()) else { continue };
        let rest = &path[start.len()..];
        let Some((folder, _)) = rest.split_once('/') else { continue };
        let Some(label) = labels.get(folder) else {
            let problem = format!("folder `{folder}` is no class of the manifest; remove it");
            return Err(Error::Layout { path: base.join(&path), problem });
        };
        let class = form.class_names[*label as usize].clone();
        listed.push((split.clone(), Listed(path, *label, class)));
    }
    listed.sort_by(|a, b| (&a.0, a.1.label(), a.1.path()).cmp(&(&b.0, b.1.label(), b.1.path())));
    Ok(listed)
}
