//! One image of a data set before it is packed.

use std::collections::BTreeSet;
use std::path::PathBuf;

use pipeline_spec::spec::ClassHalf;

use crate::container::Container;

/// An image of a data set: where it stands and what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Name that is unique in the data set and stable between machines.
    pub sample_id: String,
    /// Split.
    pub split: String,
    /// Position of the class in the class list; absent for images of no class, which only pretraining sees.
    pub label: Option<u32>,
    /// Name of the class.
    pub class_name: Option<String>,
    /// Words that describe the image: its label and keywords, or the class name.
    pub caption: String,
    /// The icon set, or the folder, that it comes from.
    pub origin: String,
    /// What shows it.
    pub picture: Picture,
}

/// What shows an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Picture {
    /// A vector drawing: a whole SVG document.
    Svg(String),
    /// An image file.
    File(PathBuf),
    /// An image inside one of [`Dataset::containers`].
    Member {
        /// Index of the container.
        container: usize,
        /// Position of the image in it.
        position: usize,
    },
}

/// A data set before its images are made: class names in label order, and items in packed order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dataset {
    /// Class names in label order.
    pub class_names: Vec<String>,
    /// Every item, in packed order: that of the published lists, or by label and sample id, those without a label
    /// first.
    pub items: Vec<Item>,
    /// Archives and Parquet files that hold images.
    pub containers: Vec<Container>,
    /// Whether the split is a published one, which is kept even where a picture stands in two splits.
    pub published: bool,
}

impl Dataset {
    /// Sorts the items by label and sample id.
    pub(crate) fn sorted(class_names: Vec<String>, mut items: Vec<Item>, containers: Vec<Container>) -> Self {
        items.sort_by(|a, b| (a.label, &a.sample_id).cmp(&(b.label, &b.sample_id)));
        Self { class_names, items, containers, published: false }
    }

    /// The images of half of the classes, with labels from 0.
    pub(crate) fn half(self, half: ClassHalf) -> Self {
        let labels = half.labels(self.class_names.len() as u32);
        let class_names = self.class_names[labels.start as usize..labels.end as usize].to_vec();
        let keep = |item: Item| {
            let label = item.label.filter(|label| labels.contains(label))?;
            Some(Item { label: Some(label - labels.start), ..item })
        };
        let items = self.items.into_iter().filter_map(keep).collect();
        Self { class_names, items, ..self }
    }

    /// Number of items in `split`.
    pub fn count(&self, split: &str) -> u64 {
        self.items.iter().filter(|i| i.split == split).count() as u64
    }

    /// Names of the splits.
    pub fn splits(&self) -> BTreeSet<&str> {
        self.items.iter().map(|i| i.split.as_str()).collect()
    }

    /// What names the picture of an item to people: its file, or its container and name.
    pub fn place(&self, item: &Item) -> PathBuf {
        match &item.picture {
            Picture::Svg(_) => item.sample_id.clone().into(),
            Picture::File(path) => path.clone(),
            Picture::Member { container, .. } => self.containers[*container].path().join(&item.sample_id),
        }
    }
}
