//! Items to image bytes, in parallel and in a fixed order.

use rayon::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use pipeline_spec::spec::StoredSize;

use crate::Error;
use crate::item::{Dataset, Item, Picture};
use crate::photo;
use crate::render::render_png;
use crate::stored::shrink;

/// How pictures become bytes.
#[derive(Debug, Clone, Copy)]
pub struct Encoding {
    /// Side of rendered drawings in pixels.
    pub image_size: u32,
    /// How large photographs are stored; `None` keeps their bytes.
    pub stored: Option<StoredSize>,
    /// Most pixels of a photograph.
    pub max_pixels: u64,
}

/// The items of the asked-for splits, in packed order.
///
/// # Errors
///
/// Fails if the data set lacks one of `splits`.
pub fn select<'a>(dataset: &'a Dataset, name: &str, splits: &[String]) -> Result<Vec<&'a Item>, Error> {
    let known = dataset.splits();
    if let Some(split) = splits.iter().find(|s| !known.contains(s.as_str())) {
        let known = known.into_iter().collect::<Vec<_>>().join(", ");
        return Err(Error::UnknownSplit { dataset: name.to_owned(), split: split.clone(), known });
    }
    Ok(dataset.items.iter().filter(|i| splits.contains(&i.split)).collect())
}

/// The bytes of every item, in the order given; `on_done` is called once per image, from any thread, and may
/// stop the rest. Archives are read first, in one pass each.
///
/// # Errors
///
/// Fails with the first item, in order, that cannot be read, decoded, rendered or encoded, or with
/// [`Error::Stopped`].
pub fn encode_all(
    dataset: &Dataset,
    items: &[&Item],
    encoding: Encoding,
    on_done: impl Fn() -> ControlFlow<()> + Sync,
) -> Result<Vec<Vec<u8>>, Error> {
    let members = read_members(dataset, items)?;
    let stopped = AtomicBool::new(false);
    let results: Vec<_> = items
        .par_iter()
        .zip(members)
        .map(|(item, member)| {
            if stopped.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let bytes = encode(dataset, item, member, encoding);
            if on_done().is_break() {
                stopped.store(true, Ordering::Relaxed);
            }
            bytes
        })
        .collect();
    let bytes = results.into_iter().collect::<Result<_, _>>()?;
    if stopped.into_inner() { Err(Error::Stopped) } else { Ok(bytes) }
}

/// The bytes of those items that lie in a container.
///
/// # Errors
///
/// Fails if a container cannot be read.
pub fn read_members(dataset: &Dataset, items: &[&Item]) -> Result<Vec<Option<Vec<u8>>>, Error> {
    let mut wanted: BTreeMap<usize, BTreeMap<usize, usize>> = BTreeMap::new();
    for (index, item) in items.iter().enumerate() {
        if let Picture::Member { container, position } = item.picture {
            wanted.entry(container).or_default().insert(position, index);
        }
    }
    let mut members = vec![None; items.len()];
    for (container, positions) in wanted {
        let ascending: Vec<usize> = positions.keys().copied().collect();
        dataset.containers[container]
            .read(&ascending, |position, bytes| members[positions[&position]] = Some(bytes))?;
    }
    Ok(members)
}

/// The bytes of one item: a rendered PNG, or the photograph after it was decoded once, perhaps made smaller.
fn encode(
    dataset: &Dataset,
    item: &Item,
    member: Option<Vec<u8>>,
    encoding: Encoding,
) -> Result<Vec<u8>, Error> {
    let bad = |problem: String| Error::Image { path: dataset.place(item), problem };
    let bytes = match (&item.picture, member) {
        (Picture::Svg(svg), _) => {
            let rendered = render_png(svg, encoding.image_size);
            return rendered.map_err(|problem| Error::Drawing { id: item.sample_id.clone(), problem });
        }
        (Picture::File(path), _) => photo::read(path).map_err(bad)?,
        (Picture::Member { .. }, Some(bytes)) => bytes,
        (Picture::Member { .. }, None) => return Err(bad("it is not in its archive any more".to_owned())),
    };
    if let Some(stored) = &encoding.stored {
        let header = photo::Header::read(&bytes, encoding.max_pixels).map_err(bad)?;
        if let Some(small) = shrink(&bytes, &header, stored).map_err(bad)? {
            return Ok(small);
        }
    }
    photo::check(&bytes, encoding.max_pixels).map_err(bad)?;
    Ok(bytes)
}

/// Refuses a picture that stands in two splits.
///
/// # Errors
///
/// Fails with the first such pair.
pub fn check_leaks<'a>(pictures: impl IntoIterator<Item = (&'a Item, &'a [u8])>) -> Result<(), Error> {
    let mut seen: HashMap<blake3::Hash, &Item> = HashMap::new();
    for (item, bytes) in pictures {
        let first = *seen.entry(blake3::hash(bytes)).or_insert(item);
        if first.split != item.split {
            let name = |i: &Item| format!("{}/{}", i.split, i.sample_id);
            return Err(Error::Leak { first: name(first), second: name(item) });
        }
    }
    Ok(())
}
