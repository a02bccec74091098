//! A small set of drawn images and recipes of the smallest models.

use artifacts::{ImageFile, ImageRow};
use pretrain::ImageSet;
use pretrain::recipe::Recipe;
use std::path::Path;

/// Twelve squares on white, in three colours that are the three classes; the last three have no class.
pub fn images(side: u32) -> ImageSet {
    let names = ["red thing", "green thing", "blue thing"];
    let rows = (0..12_u32).map(|index| {
        let label = index % 3;
        let mut color = [30; 3];
        color[label as usize] = 220;
        let square = |x: u32, y: u32| {
            let inside = |v: u32| (side / 4 + index % 4..3 * side / 4).contains(&v);
            if inside(x) && inside(y) { image::Rgb(color) } else { image::Rgb([255; 3]) }
        };
        let mut bytes = std::io::Cursor::new(Vec::new());
        image::RgbImage::from_fn(side, side, square).write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        let labelled = index < 9;
        ImageRow {
            sample_id: format!("{index:02}"),
            split: "base".to_owned(),
            label: labelled.then_some(label),
            class_name: labelled.then(|| names[label as usize].to_owned()),
            caption: Some(format!("square {index}, box, shape")),
            source: "test".to_owned(),
            image: ImageFile { bytes: bytes.into_inner(), path: format!("{index}.png") },
        }
    });
    let names = names.map(str::to_owned).to_vec();
    ImageSet::from_rows(rows.collect(), "base", "fixtures", side as usize, names).unwrap()
}

/// A recipe of the repository.
pub fn recipe<R: Recipe>(name: &str) -> R {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../pipelines/pretrain").join(name);
    R::from_file(&path).unwrap()
}
