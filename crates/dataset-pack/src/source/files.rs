//! The images of a layout by listed path: in folders, in archives, or in Parquet files.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use pipeline_spec::data_manifest::Layout;

use super::tree::{Tree, is_image};
use crate::Error;
use crate::container::Container;
use crate::item::Picture;

/// Images of a layout.
#[derive(Debug)]
pub struct Files {
    /// Start of a listed path and start of the same image's path here; longer ones first.
    starts: Vec<(String, String)>,
    /// Whether images are found by file name alone.
    by_name: bool,
    place: Place,
}

#[derive(Debug)]
enum Place {
    Folders(Tree),
    /// Containers, and where the image of each name is.
    Containers(Vec<Container>, HashMap<String, (usize, usize)>),
}

impl Files {
    /// Whether what `layout` needs is below `base`.
    pub fn present(base: &Path, layout: &Layout) -> bool {
        if !layout.archives.is_empty() {
            return layout.archives.iter().all(|archive| base.join(archive).is_file());
        }
        if let Some(folder) = &layout.parquet {
            return !parquet_files(&base.join(folder)).is_empty();
        }
        layout.paths.values().all(|start| base.join(start).is_dir())
    }

    /// What [`Self::present`] looks for.
    pub fn describe(layout: &Layout) -> String {
        let folder = &layout.folder;
        if let Some(parquet) = &layout.parquet {
            return format!("`{folder}/{parquet}/*.parquet`");
        }
        let names = if layout.archives.is_empty() {
            layout.paths.values().map(|start| format!("`{folder}/{start}`")).collect::<Vec<_>>()
        } else {
            layout.archives.iter().map(|archive| format!("`{folder}/{archive}`")).collect()
        };
        names.join(" and ")
    }

    /// Opens the images of `layout` below `base`; the names in archives are read here.
    ///
    /// # Errors
    ///
    /// Fails if an archive cannot be read or holds what it must not.
    pub fn open(base: &Path, layout: &Layout) -> Result<Self, Error> {
        let mut starts: Vec<_> = layout.paths.clone().into_iter().collect();
        starts.sort_by_key(|(from, _)| std::cmp::Reverse(from.len()));
        let containers: Vec<Container> = match &layout.parquet {
            Some(folder) => parquet_files(&base.join(folder)),
            None => layout.archives.iter().map(|archive| base.join(archive)).collect(),
        }
        .iter()
        .filter_map(|path| Container::at(path))
        .collect();
        if containers.is_empty() {
            return Ok(Self { starts, by_name: false, place: Place::Folders(Tree::open(base)) });
        }
        let mut index = HashMap::new();
        for (container, opened) in containers.iter().enumerate() {
            for (position, name) in opened.names()?.into_iter().enumerate() {
                if name.is_empty() {
                    continue;
                }
                if let Some(first) = index.insert(name.clone(), (container, position)) {
                    let path = opened.path().to_owned();
                    let problem = format!("it stands in `{}` as well", containers[first.0].path().display());
                    return Err(Error::Archive { path, entry: name, problem });
                }
            }
        }
        Ok(Self { starts, by_name: layout.parquet.is_some(), place: Place::Containers(containers, index) })
    }

    /// The picture of a listed path, if it is there.
    pub fn picture(&self, listed: &str) -> Option<Picture> {
        let (from, to) = self.starts.iter().find(|(from, _)| listed.starts_with(from.as_str()))?;
        let here = format!("{to}{}", &listed[from.len()..]);
        match &self.place {
            Place::Folders(tree) => tree.file(&here).map(Picture::File),
            Place::Containers(_, index) => {
                // Parquet files keep file names without folders.
                let name = if self.by_name { here.rsplit('/').next()? } else { &here };
                let found = index.get(name);
                found.map(|&(container, position)| Picture::Member { container, position })
            }
        }
    }

    /// Listed paths of all images that are there, in no order.
    ///
    /// # Errors
    ///
    /// Fails if a folder cannot be read.
    pub fn listed_paths(&self) -> Result<Vec<String>, Error> {
        let listed = |here: &str| {
            let start = self.starts.iter().filter(|(_, to)| here.starts_with(to.as_str()));
            let (from, to) = start.max_by_key(|(_, to)| to.len())?;
            Some(format!("{from}{}", &here[to.len()..]))
        };
        match &self.place {
            Place::Folders(tree) => {
                let mut paths = Vec::new();
                for (_, folder) in &self.starts {
                    paths.extend(tree.image_paths(folder)?.iter().filter_map(|path| listed(path)));
                }
                Ok(paths)
            }
            Place::Containers(_, index) => {
                Ok(index.keys().filter(|name| is_image(name)).filter_map(|name| listed(name)).collect())
            }
        }
    }

    /// The bytes of a file among the images, by its path here.
    ///
    /// # Errors
    ///
    /// Fails if its archive cannot be read.
    pub fn read(&self, here: &str) -> Result<Option<Vec<u8>>, Error> {
        match &self.place {
            Place::Folders(tree) => match tree.file(here) {
                Some(path) => crate::split_file::read_bounded(&path).map(Some),
                None => Ok(None),
            },
            Place::Containers(containers, index) => {
                let Some((container, position)) = index.get(here) else { return Ok(None) };
                let mut found = None;
                containers[*container].read(&[*position], |_, bytes| found = Some(bytes))?;
                Ok(found)
            }
        }
    }

    /// The archives and Parquet files.
    pub fn containers(&self) -> &[Container] {
        match &self.place {
            Place::Folders(_) => &[],
            Place::Containers(containers, _) => containers,
        }
    }

    /// The archives and Parquet files, by value.
    pub fn into_containers(self) -> Vec<Container> {
        match self.place {
            Place::Folders(_) => Vec::new(),
            Place::Containers(containers, _) => containers,
        }
    }
}

/// The Parquet files of a folder in byte order.
pub fn parquet_files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut files: Vec<PathBuf> =
        entries.filter(|p| p.extension().is_some_and(|e| e == "parquet") && p.is_file()).collect();
    files.sort();
    files
}
