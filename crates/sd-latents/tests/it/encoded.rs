//! Latents of real images.

use std::collections::BTreeMap;
use std::time::Instant;

use artifacts::{
    ArtifactReader, ArtifactWriter, FewshotRow, FileContext, ImageFile, ImageRow, LatentRow, Row, SchemaInfo,
    Shard,
};
use backend::DeviceSpec;
use burn::tensor::{Tensor, TensorData};
use image::{ImageFormat, Rgb, RgbImage};
use pipeline_spec::spec::{EncodedLatentsSpec, FewshotSplitsSpec, ImagesSpec, ShortClass, ValShots};
use pipeline_spec::{ArtifactId, CheckpointRef, Digest, StageSpec, Store, Unit, checkpoint_digest};
use sd_model::StableDiffusion;

use crate::{Place, parts, run, tiny};

fn write<R: Row>(store: &Store, spec: StageSpec, inputs: &[(&str, &ArtifactId)], rows: &[R]) -> ArtifactId {
    let inputs = inputs.iter().map(|(name, id)| ((*name).to_owned(), (*id).clone())).collect();
    let unit = Unit { spec, inputs };
    let info = SchemaInfo { class_names: vec!["cat".into(), "sea lion".into()], ..SchemaInfo::default() };
    let writer = ArtifactWriter::open(store, &unit, 1, FileContext::new("0")).unwrap();
    writer.write_part(0, rows, &info).unwrap();
    writer.finish("none", Instant::now()).unwrap();
    unit.output()
}

/// An image of 24 x 20 pixels that tells label and number apart.
fn png(label: u32, number: u32) -> Vec<u8> {
    let image = RgbImage::from_fn(24, 20, |x, y| {
        Rgb([(x * 9 + number * 20) as u8, (y * 11) as u8, (label * 120 + x * y % 50) as u8])
    });
    let mut bytes = std::io::Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    bytes.into_inner()
}

/// Images of two classes, and a shot list of two of each; `split` is that of the listed images.
fn inputs(store: &Store, split: &str) -> BTreeMap<String, ArtifactId> {
    let name = |label: u32, number: u32| format!("{label}-{number}");
    let rows: Vec<ImageRow> = (0..2)
        .flat_map(|label| (0..4).map(move |number| (label, number)))
        .map(|(label, number)| ImageRow {
            sample_id: name(label, number),
            split: if number == 3 { "test" } else { split }.to_owned(),
            label: Some(label),
            class_name: Some(["cat", "sea lion"][label as usize].to_owned()),
            caption: None,
            source: "test".to_owned(),
            image: ImageFile { bytes: png(label, number), path: "a.png".to_owned() },
        })
        .collect();
    let spec = ImagesSpec {
        dataset: tiny::dataset(),
        manifest_digest: Digest::blake3(split.as_bytes()),
        splits: vec!["train".to_owned(), "test".to_owned()],
        image_size: 24,
        num_parts: 1,
        stored: None,
        classes: None,
    };
    let images = write(store, StageSpec::Images(spec), &[], &rows);
    let listed: Vec<FewshotRow> = [(0, 2), (0, 0), (1, 1), (1, 2)]
        .into_iter()
        .zip(0..)
        .map(|((label, number), order)| FewshotRow {
            sample_id: name(label, number),
            label,
            split: "train".to_owned(),
            shots: 2,
            seed: 1,
            order,
        })
        .collect();
    let spec = FewshotSplitsSpec {
        dataset: tiny::dataset(),
        shots: 2,
        seed: 1,
        val_shots: ValShots::MinShots4,
        short_class: ShortClass::TakeAll,
    };
    let shots = write(store, StageSpec::FewshotSplits(spec), &[("images", &images)], &listed);
    BTreeMap::from([("images".to_owned(), images), ("fewshot-splits".to_owned(), shots)])
}

fn unit(place: &Place, store: &Store, split: &str, image_size: u32) -> Unit {
    let spec = EncodedLatentsSpec {
        dataset: tiny::dataset(),
        checkpoint: CheckpointRef {
            id: tiny::CHECKPOINT.to_owned(),
            digest: checkpoint_digest(&place.weights().join(tiny::CHECKPOINT)).unwrap(),
        },
        run: "tiny-shots2-seed1".to_owned(),
        splits: None,
        image_size,
        num_parts: 3,
    };
    let unit = Unit { spec: StageSpec::EncodedLatents(spec), inputs: inputs(store, split) };
    unit.check().unwrap();
    unit
}

#[test]
fn the_training_images_of_a_shot_list_are_encoded_and_no_other() {
    let place = Place::new();
    let store = place.store("store");
    let whole = unit(&place, &store, "train", 16);
    run(&whole, &store, &place.weights(), Shard::default(), 4).unwrap();
    let reader = ArtifactReader::open(&store, &whole.output()).unwrap();
    assert_eq!(reader.tensor_shape().unwrap(), [4, 8, 8]);
    let rows = reader.rows::<LatentRow>().unwrap();
    let found: Vec<_> = rows.iter().map(|r| (r.class_id, r.sample_index, r.prompt.as_str())).collect();
    assert_eq!(found, [(0, 0, "0-2"), (0, 1, "0-0"), (1, 0, "1-1"), (1, 1, "1-2")]);

    // The autoencoder on the picture that the row holds.
    let device = DeviceSpec::Cpu.open().unwrap();
    let model = StableDiffusion::from_folder(&place.weights().join(tiny::CHECKPOINT), &device).unwrap();
    for row in &rows {
        let image = image::load_from_memory(&row.image_png).unwrap().to_rgb8();
        assert_eq!(image.dimensions(), (16, 16));
        let value = |c: usize, y: u32, x: u32| f32::from(image.get_pixel(x, y)[c]) / 255.0;
        let pixels = (0..3).flat_map(|c| (0..16).flat_map(move |y| (0..16).map(move |x| (c, y, x))));
        let pixels: Vec<f32> = pixels.map(|(c, y, x)| value(c, y, x)).collect();
        let pixels = Tensor::<4>::from_data(TensorData::new(pixels, [1, 3, 16, 16]), &device);
        let latent = model.vae.encode(pixels * 2.0 - 1.0).mean * model.vae_config.scaling_factor;
        let latent = latent.try_into_vec_as::<f32>().unwrap();
        let gap = latent
            .iter()
            .zip(&row.latent)
            .map(|(a, b)| (a - b).abs() / a.abs().max(1e-2))
            .fold(0.0, f32::max);
        assert!(gap <= 2.0_f32.powi(-11), "rounded to f16 only: {gap}");
    }

    let sharded = place.store("sharded");
    inputs(&sharded, "train");
    for index in [1, 0] {
        run(&whole, &sharded, &place.weights(), Shard::new(index, 2).unwrap(), 1).unwrap();
    }
    assert_eq!(parts(&sharded, &whole), parts(&store, &whole));
}

#[test]
fn a_held_out_image_and_a_size_that_does_not_fit_are_refused() {
    let place = Place::new();
    let store = place.store("store");
    let error =
        |unit: Unit| run(&unit, &store, &place.weights(), Shard::default(), 4).unwrap_err().to_string();
    let message = error(unit(&place, &store, "test", 16));
    assert!(message.contains("is of split `test`, expected `train`"), "{message}");
    let message = error(unit(&place, &store, "train", 17));
    assert!(message.contains("field `image_size` is 17: expected a multiple of 2"), "{message}");
}

/// The unit that encodes all images of `splits`.
fn whole_splits(place: &Place, store: &Store, splits: &[&str]) -> Unit {
    let mut unit = unit(place, store, "train", 16);
    unit.inputs.remove("fewshot-splits");
    if let StageSpec::EncodedLatents(spec) = &mut unit.spec {
        spec.splits = Some(splits.iter().map(|split| (*split).to_owned()).collect());
        spec.num_parts = 2;
    }
    unit.check().unwrap();
    unit
}

#[test]
fn every_image_of_whole_splits_is_encoded_as_that_of_a_shot_list() {
    let place = Place::new();
    let store = place.store("store");
    let encode = |unit: &Unit| {
        run(unit, &store, &place.weights(), Shard::default(), 4).unwrap();
        ArtifactReader::open(&store, &unit.output()).unwrap().rows::<LatentRow>().unwrap()
    };
    let listed = encode(&unit(&place, &store, "train", 16));
    let both = encode(&whole_splits(&place, &store, &["test", "train"]));
    let found: Vec<_> = both.iter().map(|r| (r.class_id, r.sample_index, r.prompt.as_str())).collect();
    let expected = [
        [(0, 0, "0-0"), (0, 1, "0-1"), (0, 2, "0-2"), (0, 3, "0-3")],
        [(1, 0, "1-0"), (1, 1, "1-1"), (1, 2, "1-2"), (1, 3, "1-3")],
    ];
    assert_eq!(found, expected.concat());
    for row in listed {
        let same = both.iter().find(|other| other.prompt == row.prompt).unwrap();
        assert_eq!((&same.latent, &same.image_png), (&row.latent, &row.image_png));
    }
    let test = encode(&whole_splits(&place, &store, &["test"]));
    assert_eq!(test.iter().map(|r| r.prompt.as_str()).collect::<Vec<_>>(), ["0-3", "1-3"]);
    let unit = whole_splits(&place, &store, &["test", "shift"]);
    let error = run(&unit, &store, &place.weights(), Shard::default(), 4).unwrap_err().to_string();
    assert!(error.contains("no image of split `shift`"), "{error}");
}
