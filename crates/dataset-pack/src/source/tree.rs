//! Folder trees of images.
//!
//! A name that is not UTF-8 is refused, because a sample id must be the same text on every machine.

use std::path::{Path, PathBuf};

use crate::Error;

/// Deepest folder below a class folder.
const MAX_DEPTH: usize = 16;
/// Extensions of images that are read.
const READ: [&str; 3] = ["png", "jpg", "jpeg"];
/// Extensions of images that must not be left out in silence.
const REFUSED: [&str; 7] = ["webp", "gif", "bmp", "tif", "tiff", "avif", "heic"];

/// A folder and all below it.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    /// The root without links, if links must not leave it.
    real: Option<PathBuf>,
}

impl Tree {
    /// A tree whose links must stay inside it.
    ///
    /// # Errors
    ///
    /// Fails if there is no such folder.
    pub fn closed(root: &Path) -> Result<Self, Error> {
        let real = root.canonicalize().map_err(|e| Error::io(root, e))?;
        Ok(Self { root: root.into(), real: Some(real) })
    }

    /// A tree whose links may point anywhere, as people lay out benchmarks that they have elsewhere.
    pub fn open(root: &Path) -> Self {
        Self { root: root.into(), real: None }
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The file at a relative path, if it is there.
    pub fn file(&self, relative: &str) -> Option<PathBuf> {
        let path = self.root.join(relative);
        path.is_file().then_some(path)
    }

    /// Relative paths of the images below the folder at a relative path, in byte order of each folder.
    ///
    /// # Errors
    ///
    /// Fails as [`Self::images`] does.
    pub fn image_paths(&self, folder: &str) -> Result<Vec<String>, Error> {
        let mut files = Vec::new();
        self.images(&self.root.join(folder), 0, &mut files)?;
        files.iter().map(|path| self.relative(path)).collect()
    }

    /// The path of a file relative to the root, with `/` between its parts.
    ///
    /// # Errors
    ///
    /// Fails if it is not below the root or not UTF-8.
    pub fn relative(&self, path: &Path) -> Result<String, Error> {
        let relative = path.strip_prefix(&self.root).map_err(|_| layout(path, "it left the data set"))?;
        let parts: Option<Vec<&str>> = relative.iter().map(|part| part.to_str()).collect();
        Ok(parts.ok_or_else(|| layout(path, "its path is not UTF-8; rename it"))?.join("/"))
    }

    /// Names of the folders in `folder`, in byte order; files beside them are not images of a class.
    ///
    /// # Errors
    ///
    /// Fails if the folder cannot be read, or an image lies outside a class folder.
    pub fn folders(&self, folder: &Path) -> Result<Vec<String>, Error> {
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
    ///
    /// # Errors
    ///
    /// Fails if a folder cannot be read or lies too deep, an image has a format that is not read, a name is not UTF-8, or
    /// a link leaves a closed tree.
    pub fn images(&self, folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> Result<(), Error> {
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

    /// Visible entries of a folder in byte order; every one of a closed tree is checked to lie inside it.
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
            if let (Some(real), true) =
                (&self.real, entry.file_type().map_err(|e| Error::io(&path, e))?.is_symlink())
            {
                let target = path.canonicalize().map_err(|e| Error::io(&path, e))?;
                if !target.starts_with(real) {
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
}

/// The extension of a name in lower case.
fn extension(name: &str) -> Option<String> {
    Path::new(name).extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase)
}

/// Whether a name is that of an image that is read.
pub fn is_image(name: &str) -> bool {
    extension(name).is_some_and(|e| READ.contains(&e.as_str()))
}

/// An error about the layout of a tree.
pub(super) fn layout(path: &Path, problem: impl Into<String>) -> Error {
    Error::Layout { path: path.into(), problem: problem.into() }
}
