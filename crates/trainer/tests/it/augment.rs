//! The augmentation against timm, Pillow and torchvision: `tests/golden/augment.py`.

use image::RgbImage;
use safetensors::SafeTensors;
use trainer::augment::crop::{Crop, resized_crop};
use trainer::augment::erasing::box_size;
use trainer::augment::operations::Operation;

const GOLDEN: &[u8] = include_bytes!("../golden/augment.safetensors");

fn image(file: &SafeTensors<'_>, name: &str) -> RgbImage {
    let view = file.tensor(name).unwrap();
    let [height, width] = [view.shape()[0] as u32, view.shape()[1] as u32];
    RgbImage::from_raw(width, height, view.data().to_vec()).unwrap()
}

fn differing(found: &RgbImage, expected: &RgbImage) -> usize {
    assert_eq!(found.dimensions(), expected.dimensions());
    found.iter().zip(expected.iter()).filter(|(a, b)| a != b).count()
}

fn operation(name: &str) -> Operation {
    let plain = name.trim_end_matches("Increasing").trim_end_matches("Rel");
    Operation::ALL.into_iter().find(|operation| format!("{operation:?}") == plain).unwrap()
}

#[test]
fn every_operation_equals_pillow_in_every_sample() {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let (mut cases, mut samples) = (0, 0);
    let mut failures = Vec::new();
    for name in file.names() {
        let [operation_name, level, direction, source] = name.split('/').collect::<Vec<_>>()[..] else {
            continue;
        };
        let operation = operation(operation_name);
        let source = image(&file, &format!("image/{source}"));
        let found = operation.apply(&source, level.parse().unwrap(), direction == "-1");
        let expected = image(&file, name);
        let count = differing(&found, &expected);
        if count > 0 {
            failures.push(format!("{name}: {count} of {}", expected.len()));
        }
        cases += 1;
        samples += expected.len();
    }
    failures.sort();
    assert!(failures.is_empty(), "{failures:#?}");
    eprintln!("{cases} cases, {samples} samples: 0 differ");
    assert!(cases > 150, "{cases}");
}

#[test]
fn a_resized_crop_equals_torchvision_in_every_sample() {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let noise = image(&file, "image/noise");
    let names = file.names().into_iter().filter(|name| name.starts_with("crop/"));
    let names: Vec<&str> = names.collect();
    assert_eq!(names.len(), 4);
    for name in names {
        let numbers: Vec<u32> = name.split('/').skip(1).map(|part| part.parse().unwrap()).collect();
        let [top, left, height, width] = numbers[..] else { panic!("{name}") };
        let found = resized_crop(&noise, Crop { left, top, width, height }, 16);
        assert_eq!(differing(&found, &image(&file, name)), 0, "{name}");
    }
}

#[test]
fn sides_of_erased_boxes_equal_those_of_timm() {
    let file = SafeTensors::deserialize(GOLDEN).unwrap();
    let view = file.tensor("boxes").unwrap();
    let values: Vec<f64> = view.data().as_chunks::<8>().0.iter().map(|b| f64::from_le_bytes(*b)).collect();
    for row in values.chunks_exact(4) {
        assert_eq!(box_size(row[0], row[1], 224), (row[2] as usize, row[3] as usize));
    }
}
