//! A folder per class, as torchvision's `ImageFolder` reads it: `<root>/[<split>/]<class>/**/<image>`.
//!
//! Images keep their bytes. A link may point anywhere inside the root; one that leaves it is refused, and so
//! is a name that is not UTF-8, because a sample id must be the same text on every machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_spec::data_manifest::{DataManifest, FolderClass, FolderForm, FolderSplit};

use super::tree::{Tree, layout};
use crate::Error;
use crate::item::{Dataset, Item, Picture};

/// Lists the images of a folder tree with their splits.
///
/// # Errors
///
/// Fails if a folder is missing, is no class of the manifest or holds no image, if a name is not UTF-8, a
/// link leaves the root, or an image has a format that is not read.
pub fn load(manifest: &DataManifest, form: &FolderForm, data_dir: &Path) -> Result<Dataset, Error> {
    let root = data_dir.join(manifest.dataset.as_str()).join(&form.root);
    let tree = Tree::closed(&root)?;
    let parts: Vec<(Option<&str>, PathBuf)> = match &form.split {
        FolderSplit::Folders(folders) => {
            folders.iter().map(|(split, folder)| (Some(split.as_str()), tree.root().join(folder))).collect()
        }
        FolderSplit::Percent(_) => vec![(None, tree.root().to_owned())],
    };
    let classes = match &form.classes {
        Some(classes) => classes.clone(),
        None => class_folders(&tree, &parts)?,
    };
    let mut items = Vec::new();
    let mut found = vec![0_usize; classes.len()];
    for (split, folder) in &parts {
        for name in tree.folders(folder)? {
            let path = folder.join(&name);
            let label = classes.iter().position(|c| c.folder == name).ok_or_else(|| {
                let problem = "it is no class of the manifest; add it to `form.folder.classes` or remove it";
                layout(&path, problem)
            })?;
            let mut files = Vec::new();
            tree.images(&path, 0, &mut files)?;
            found[label] += files.len();
            let of_class = class_items(&tree, files, &classes[label], label as u32)?;
            items.extend(match (&form.split, split) {
                (FolderSplit::Percent(shares), _) => deal(of_class, shares),
                (_, split) => in_split(of_class, split.unwrap_or_default()),
            });
        }
    }
    if let Some(empty) = found.iter().position(|n| *n == 0) {
        let problem = format!("no PNG or JPEG image of class `{}` below it", classes[empty].folder);
        return Err(layout(tree.root(), problem));
    }
    Ok(Dataset::sorted(classes.into_iter().map(|c| c.name).collect(), items, Vec::new()))
}

fn in_split(mut items: Vec<Item>, split: &str) -> Vec<Item> {
    for item in &mut items {
        split.clone_into(&mut item.split);
    }
    items
}

/// Deals the images of a class by the rank of the digest of their ids.
pub(super) fn deal(mut items: Vec<Item>, shares: &BTreeMap<String, u32>) -> Vec<Item> {
    items.sort_by_cached_key(|i| blake3::hash(i.sample_id.as_bytes()).to_hex().to_string());
    let total = items.len() as u64;
    let (mut percent, mut start) = (0, 0);
    for (split, share) in shares {
        percent += u64::from(*share);
        let end = (percent * total / 100) as usize;
        for item in &mut items[start..end] {
            split.clone_into(&mut item.split);
        }
        start = end;
    }
    items
}

/// The class folders of all splits, each once, in byte order.
fn class_folders(tree: &Tree, parts: &[(Option<&str>, PathBuf)]) -> Result<Vec<FolderClass>, Error> {
    let mut names = Vec::new();
    for (_, folder) in parts {
        names.extend(tree.folders(folder)?);
    }
    names.sort();
    names.dedup();
    if names.is_empty() {
        return Err(layout(tree.root(), "expected a folder for each class, found none"));
    }
    Ok(names.into_iter().map(|folder| FolderClass { name: folder.replace('_', " "), folder }).collect())
}

fn class_items(
    tree: &Tree,
    files: Vec<PathBuf>,
    class: &FolderClass,
    label: u32,
) -> Result<Vec<Item>, Error> {
    let item = |path: PathBuf| {
        Ok(Item {
            sample_id: tree.relative(&path)?,
            split: String::new(),
            label: Some(label),
            class_name: Some(class.name.clone()),
            caption: class.name.clone(),
            origin: class.folder.clone(),
            picture: Picture::File(path),
        })
    };
    files.into_iter().map(item).collect()
}
