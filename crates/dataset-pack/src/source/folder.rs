//! A folder per class, as torchvision's `ImageFolder` reads it: `<root>/[<split>/]<class>/**/<image>`.
//!
//! Images keep their bytes. A link may point anywhere inside the root; one that leaves it is refused, and so
//! is a name that is not UTF-8, because a sample id must be the same text on every machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pipeline_spec::data_manifest::{DataManifest, FolderClass, FolderForm, FolderSplit};

use crate::Error;
use crate::item::{Dataset, Item, Picture};

/// Deepest folder below a class folder.
const MAX_DEPTH: usize = 16;
/// Extensions of images that are read.
const READ: [&str; 3] = ["png", "jpg", "jpeg"];
/// Extensions of images that must not be left out in silence.
const REFUSED: [&str; 7] = ["webp", "gif", "bmp", "tif", "tiff", "avif", "heic"];

/// Lists the images of a folder tree with their splits.
///
/// # Errors
///
/// Fails if a folder is missing, is no class of the manifest or holds no image, if a name is not UTF-8, a
/// link leaves the root, or an image has a format that is not read.
pub fn load(manifest: &DataManifest, form: &FolderForm, data_dir: &Path) -> Result<Dataset, Error> {
    let root = data_dir.join(manifest.dataset.as_str()).join(&form.root);
    let tree = Tree { real: root.canonicalize().map_err(|e| Error::io(&root, e))?, root };
    let parts: Vec<(Option<&str>, PathBuf)> = match &form.split {
        FolderSplit::Folders(folders) => {
            folders.iter().map(|(split, folder)| (Some(split.as_str()), tree.root.join(folder))).collect()
        }
        FolderSplit::Percent(_) => vec![(None, tree.root.clone())],
    };
    let classes = match &form.classes {
        Some(classes) => classes.clone(),
        None => tree.class_folders(&parts)?,
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
            let of_class = tree.items(files, &classes[label], label as u32)?;
            items.extend(match (&form.split, split) {
                (FolderSplit::Percent(shares), _) => deal(of_class, shares),
                (_, split) => in_split(of_class, split.unwrap_or_default()),
            });
        }
    }
    if let Some(empty) = found.iter().position(|n| *n == 0) {
        let problem = format!("no PNG or JPEG image of class `{}` below it", classes[empty].folder);
        return Err(layout(&tree.root, problem));
    }
    Ok(Dataset::new(classes.into_iter().map(|c| c.name).collect(), items))
}

fn in_split(mut items: Vec<Item>, split: &str) -> Vec<Item> {
    for item in &mut items {
        split.clone_into(&mut item.split);
    }
    items
}

/// Deals the images of a class by the rank of the digest of their ids.
fn deal(mut items: Vec<Item>, shares: &BTreeMap<String, u32>) -> Vec<Item> {
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

struct Tree {
    root: PathBuf,
    real: PathBuf,
}

impl Tree {
    /// The class folders of all splits, each once, in byte order.
    fn class_folders(&self, parts: &[(Option<&str>, PathBuf)]) -> Result<Vec<FolderClass>, Error> {
        let mut names = Vec::new();
        for (_, folder) in parts {
            names.extend(self.folders(folder)?);
        }
        names.sort();
        names.dedup();
        if names.is_empty() {
            return Err(layout(&self.root, "expected a folder for each class, found none"));
        }
        Ok(names.into_iter().map(|folder| FolderClass { name: folder.replace('_', " "), folder }).collect())
    }

    /// Names of the folders in `folder`, in byte order; files beside them are not images of a class.
    fn folders(&self, folder: &Path) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for (name, path) in self.entries(folder)? {
            if path.is_dir() {
                names.push(name);
            } else if is_image(&name) {
                return Err(layout(&path, "an image outside a class folder; move it into one"));
            }
        }
        Ok(names)
    }

    /// Appends the images below `folder`.
    fn images(&self, folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(layout(
                folder,
                format!("more than {MAX_DEPTH} folders deep; a link may point at a parent"),
            ));
        }
        for (name, path) in self.entries(folder)? {
            if path.is_dir() {
                self.images(&path, depth + 1, files)?;
            } else if is_image(&name) {
                files.push(path);
            } else if extension(&name).is_some_and(|e| REFUSED.contains(&e.as_str())) {
                let problem = "expected PNG or JPEG".to_owned();
                return Err(Error::Image { path, problem });
            }
        }
        Ok(())
    }

    /// Visible entries of a folder in byte order; every one is checked to lie inside the root.
    fn entries(&self, folder: &Path) -> Result<Vec<(String, PathBuf)>, Error> {
        let mut entries = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|e| Error::io(folder, e))? {
            let entry = entry.map_err(|e| Error::io(folder, e))?;
            let path = entry.path();
            let name = entry.file_name().into_string().map_err(|name| {
                let problem = format!("its name `{}` is not UTF-8; rename it", name.to_string_lossy());
                layout(&path, problem)
            })?;
            if name.starts_with('.') {
                continue;
            }
            if entry.file_type().map_err(|e| Error::io(&path, e))?.is_symlink() {
                let target = path.canonicalize().map_err(|e| Error::io(&path, e))?;
                if !target.starts_with(&self.real) {
                    let problem =
                        format!("it links to `{}`, outside the data set; copy the file", target.display());
                    return Err(layout(&path, problem));
                }
            }
            entries.push((name, path));
        }
        entries.sort();
        Ok(entries)
    }

    fn items(&self, files: Vec<PathBuf>, class: &FolderClass, label: u32) -> Result<Vec<Item>, Error> {
        let item = |path: PathBuf| {
            let relative =
                path.strip_prefix(&self.root).map_err(|_| layout(&path, "it left the data set"))?;
            let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
            let parts = parts.ok_or_else(|| layout(&path, "its path is not UTF-8; rename it"))?;
            Ok(Item {
                sample_id: parts.join("/"),
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
}

fn extension(name: &str) -> Option<String> {
    Path::new(name).extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase)
}

fn is_image(name: &str) -> bool {
    extension(name).is_some_and(|e| READ.contains(&e.as_str()))
}

fn layout(path: &Path, problem: impl Into<String>) -> Error {
    Error::Layout { path: path.into(), problem: problem.into() }
}
