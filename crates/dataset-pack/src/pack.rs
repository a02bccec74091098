//! Items to image bytes, in parallel and in a fixed order.

use rayon::prelude::*;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Error;
use crate::item::{Dataset, Item, Picture};
use crate::photo::read_checked;
use crate::render::render_png;

/// The items of the asked-for splits, in packed order: by label, those without one first, and by sample id.
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

/// The bytes of one item: a rendered PNG of `image_size` pixels a side, or the file's own bytes.
///
/// # Errors
///
/// Fails if a drawing cannot be rendered or a file cannot be decoded.
pub fn encode(item: &Item, image_size: u32) -> Result<Vec<u8>, Error> {
    match &item.picture {
        Picture::Svg(svg) => render_png(svg, image_size)
            .map_err(|problem| Error::Drawing { id: item.sample_id.clone(), problem }),
        Picture::File(path) => read_checked(path),
    }
}

/// The bytes of every item, in the order given; `on_done` is called once per image, from any thread, and may
/// stop the rest.
///
/// # Errors
///
/// Fails with the first item, in order, that cannot be encoded, or with [`Error::Stopped`].
pub fn encode_all(
    items: &[&Item],
    image_size: u32,
    on_done: impl Fn() -> ControlFlow<()> + Sync,
) -> Result<Vec<Vec<u8>>, Error> {
    let stopped = AtomicBool::new(false);
    let results: Vec<_> = items
        .par_iter()
        .map(|item| {
            if stopped.load(Ordering::Relaxed) {
                return Err(Error::Stopped);
            }
            let bytes = encode(item, image_size);
            if on_done().is_break() {
                stopped.store(true, Ordering::Relaxed);
            }
            bytes
        })
        .collect();
    let bytes = results.into_iter().collect::<Result<_, _>>()?;
    if stopped.into_inner() { Err(Error::Stopped) } else { Ok(bytes) }
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
