//! Shot lists: drawn as the published ones were, read from and written to the forms that others publish.

pub mod draw;
pub mod index_file;
pub mod python_random;

use pipeline_spec::spec::{ShortClass, ValShots};

pub use draw::{ShotList, draw};
pub use index_file::IndexFormat;

use crate::Error;
use crate::split_file::{Listed, SplitLists};

/// The images of a shot list, in drawn order, with their positions in the split file's lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrawnShots<'a> {
    /// Training images.
    pub train: Vec<(usize, &'a Listed)>,
    /// Validation images.
    pub val: Vec<(usize, &'a Listed)>,
}

impl DrawnShots<'_> {
    /// The first place where `other` differs, in words; `None` if the lists are the same in the same order.
    pub fn first_difference(&self, other: &DrawnShots<'_>) -> Option<String> {
        [("train", &self.train, &other.train), ("val", &self.val, &other.val)].into_iter().find_map(
            |(split, ours, theirs)| {
                let at = (0..ours.len().max(theirs.len())).find(|&i| ours.get(i) != theirs.get(i))?;
                let name =
                    |list: &[(usize, &Listed)]| list.get(at).map_or("nothing", |(_, e)| e.path()).to_owned();
                Some(format!("{split}[{at}] is `{}`, there it is `{}`", name(ours), name(theirs)))
            },
        )
    }
}

/// Draws a shot list from the lists of a split file.
///
/// # Errors
///
/// Fails as [`draw`] does.
pub fn from_lists(
    lists: &SplitLists,
    shots: u32,
    seed: u64,
    val_shots: ValShots,
    short_class: ShortClass,
) -> Result<DrawnShots<'_>, Error> {
    let labels = |list: &[Listed]| list.iter().map(Listed::label).collect::<Vec<_>>();
    let drawn = draw(&labels(&lists.train), &labels(&lists.val), shots, seed, val_shots, short_class)?;
    Ok(DrawnShots { train: pick(&lists.train, &drawn.train), val: pick(&lists.val, &drawn.val) })
}

fn pick<'a>(list: &'a [Listed], positions: &[usize]) -> Vec<(usize, &'a Listed)> {
    positions.iter().map(|&position| (position, &list[position])).collect()
}
