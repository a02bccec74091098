//! Preprocessing against Pillow and torchvision, sample for sample.

use std::fs;

use clip_model::{Error, Preprocess, resize_bicubic};
use image::RgbImage;
use serde_json::{Value, json};

use crate::golden::{Golden, device};

fn cases() -> Vec<(RgbImage, Vec<f32>, usize, Vec<u8>)> {
    let golden = Golden::open("preprocess.safetensors");
    let case = |index: usize| {
        let shape = golden.shape(&format!("{index}.image"));
        let image = RgbImage::from_raw(
            shape[1] as u32,
            shape[0] as u32,
            golden.bytes(&format!("{index}.image")).to_vec(),
        );
        let values = format!("{index}.pixel_values");
        let resized = golden.bytes(&format!("{index}.resized")).to_vec();
        (image.unwrap(), golden.floats(&values), golden.shape(&values)[1], resized)
    };
    (0..golden.keys().len() / 3).map(case).collect()
}

#[test]
fn resize_equals_pillow() {
    let mut samples = 0;
    for (index, (image, _, _, resized)) in cases().into_iter().enumerate() {
        assert!(resize_bicubic(&image, 23, 11).into_raw() == resized, "case {index}");
        samples += resized.len();
    }
    eprintln!("0 of {samples} samples differ");
}

#[test]
fn pixel_values_equal_torchvision() {
    let mut samples = 0;
    for (index, (image, expected, size, _)) in cases().into_iter().enumerate() {
        let values = Preprocess::new(size).pixel_values(&[image.clone(), image], &device());
        assert_eq!(values.dims(), [2, 3, size, size]);
        let values = values.into_data().try_into_vec::<f32>().unwrap();
        let differing = values[..expected.len()].iter().zip(&expected).filter(|(a, b)| a != b).count();
        assert_eq!(differing, 0, "case {index}");
        assert!(values[expected.len()..] == values[..expected.len()]);
        samples += expected.len();
    }
    eprintln!("0 of {samples} samples differ");
}

fn read(value: &Value) -> Result<Preprocess, Error> {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("preprocessor_config.json"), value.to_string()).unwrap();
    Preprocess::from_folder(dir.path())
}

#[test]
fn configuration_survives_a_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    Preprocess::new(64).save(dir.path()).unwrap();
    assert_eq!(Preprocess::from_folder(dir.path()).unwrap(), Preprocess::new(64));
}

#[test]
fn old_and_new_spellings_of_the_size_are_read() {
    let mean_std = |size: Value, crop: Value| json!({"size": size, "crop_size": crop, "image_mean": [0.5, 0.5, 0.5], "image_std": [1, 1, 1], "resample": 3});
    for (size, crop) in [
        (json!(224), json!(224)),
        (json!({"shortest_edge": 224}), json!({"height": 224, "width": 224})),
        (json!({"height": 224, "width": 224}), json!(224)),
    ] {
        assert_eq!(read(&mean_std(size, crop)).unwrap().image_size, 224);
    }
}

#[test]
fn other_preprocessing_is_refused() {
    let good = json!(Preprocess::new(32));
    assert!(read(&good).is_ok());
    for (field, value) in [
        ("resample", json!(2)),
        ("do_center_crop", json!(false)),
        ("crop_size", json!(16)),
        ("crop_size", json!({"height": 32, "width": 16})),
        ("size", json!(0)),
        ("rescale_factor", json!(1.0)),
        ("image_std", json!([1.0, 0.0, 1.0])),
        ("image_mean", json!([0.5])),
    ] {
        let mut changed = good.clone();
        changed[field] = value;
        assert!(matches!(read(&changed), Err(Error::Json { .. })), "{field}");
    }
}
