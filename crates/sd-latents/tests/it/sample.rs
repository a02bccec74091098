//! `sd-latents sample`.

use std::path::{Path, PathBuf};
use std::process::Command;

use artifacts::{ArtifactReader, LatentRow, Shard};
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};

use crate::binary::message;
use crate::{PROMPTS, Place, run, tiny};

struct Sampled {
    latents: Vec<f32>,
    image: Vec<f32>,
    image_shape: Vec<usize>,
    png: PathBuf,
}

fn command(place: &Place, name: &str, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sd-latents"));
    command.arg("sample").arg("--weights").arg(place.weights().join(tiny::CHECKPOINT));
    command.arg("--out").arg(place.folder.path().join(name).with_extension("safetensors"));
    command.arg("--png").arg(place.folder.path().join(name).with_extension("png"));
    command.args(["--prompt", PROMPTS[0].1]).args(args);
    command
}

fn sample(place: &Place, name: &str, args: &[&str]) -> Sampled {
    let output = command(place, name, args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", message(&output));
    assert!(output.stdout.is_empty(), "stdout is for data");
    let path = place.folder.path().join(name);
    let bytes = std::fs::read(path.with_extension("safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let values = |name: &str| {
        let tensor = file.tensor(name).unwrap();
        assert_eq!(tensor.dtype(), Dtype::F32);
        let values = tensor.data().chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap()));
        (values.collect::<Vec<_>>(), tensor.shape().to_vec())
    };
    let (latents, shape) = values("latents");
    assert_eq!(shape[..2], [1, 4]);
    let (image, image_shape) = values("image");
    Sampled { latents, image, image_shape, png: path.with_extension("png") }
}

fn gap(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

/// [`ARGS`] and more.
fn with(more: &[&'static str]) -> Vec<&'static str> {
    ARGS.iter().chain(more).copied().collect()
}

/// The sampler settings of the stage's unit.
const ARGS: [&str; 6] = ["--seed", "7", "--num-inference-steps", "3", "--guidance-scale", "2.5"];

#[test]
fn the_tool_draws_what_the_stage_draws() {
    let place = Place::new();
    let (store, unit) = place.unit("store", &PROMPTS, 1);
    run(&unit, &store, &place.weights(), Shard::default(), 4).unwrap();
    let rows = ArtifactReader::open(&store, &unit.output()).unwrap().rows::<LatentRow>().unwrap();
    let found = sample(&place, "own", &ARGS);
    // The stage rounds to f16 and draws in a batch.
    let bound = rows[0].latent.iter().fold(0.0_f32, |m, v| m.max(v.abs())) * 2.0_f32.powi(-10);
    assert!(gap(&found.latents, &rows[0].latent) <= bound);
    assert_eq!(found.image_shape, [1, 3, 16, 16]);
    assert!(found.image.iter().all(|v| (0.0..=1.0).contains(v)));
    let png = image::open(&found.png).unwrap().to_rgb8();
    for (x, y, pixel) in png.enumerate_pixels() {
        for channel in 0..3 {
            let value = found.image[channel * 256 + (y * 16 + x) as usize];
            assert_eq!(pixel[channel], (value * 255.0).round_ties_even() as u8);
        }
    }
    // Named or the checkpoint's own, and again: the same file.
    let again = sample(&place, "again", &with(&["--scheduler", "ddim"]));
    assert_eq!(again.latents, found.latents);
    let wide = sample(&place, "wide", &with(&["--height", "8", "--width", "24"]));
    assert_eq!(wide.image_shape, [1, 3, 8, 24]);
    for extra in [
        vec!["--scheduler", "euler-ancestral"],
        vec!["--scheduler", "dpm-solver-multistep", "--karras"],
        vec!["--negative", "a sea lion"],
        vec!["--eta", "0.5"],
        vec!["--dtype", "bf16"],
    ] {
        let other = sample(&place, "other", &with(&extra));
        assert!(gap(&other.latents, &found.latents) > 1e-4, "{extra:?}");
    }
}

fn write_noise(path: &Path, name: &str, shape: Vec<usize>, values: &[f32]) {
    let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
    let view = TensorView::new(Dtype::F32, shape, &bytes).unwrap();
    std::fs::write(path, safetensors::serialize([(name, view)], None).unwrap()).unwrap();
}

#[test]
fn noise_from_a_file_takes_the_place_of_the_drawn() {
    let place = Place::new();
    let path = place.folder.path().join("noise.safetensors");
    let file = path.to_str().unwrap();
    let noise = sd_model::noise(7, 0, 0, 0, [4, 8, 8]);
    write_noise(&path, "noise", vec![1, 4, 8, 8], &noise);
    let drawn = sample(&place, "drawn", &ARGS);
    let mut args: Vec<&str> = with(&["--seed", "8"]);
    args.drain(..2);
    args.extend(["--noise", file]);
    let given = sample(&place, "given", &args);
    assert_eq!(drawn.latents, given.latents);
    let refused = |args: &[&str]| {
        let output = command(&place, "refused", args).output().unwrap();
        (output.status.code().unwrap(), message(&output))
    };
    write_noise(&path, "noise", vec![4, 8, 4], &noise[..128]);
    let (code, text) = refused(&["--noise", file]);
    assert!(code == 65 && text.contains("expected F32 of shape [4, 8, 8]"), "{code}: {text}");
    write_noise(&path, "noise", vec![4, 8, 8], &[f32::NAN; 256]);
    let (code, text) = refused(&["--noise", file]);
    assert!(code == 65 && text.contains("NaN"), "{code}: {text}");
    std::fs::write(&path, "no tensors").unwrap();
    let (code, text) = refused(&["--noise", file]);
    assert!(code == 65 && text.contains("is not a safetensors file"), "{code}: {text}");
}

#[test]
fn what_cannot_be_drawn_or_written_has_its_exit_code() {
    let place = Place::new();
    let refused = |args: &[&str]| {
        let output = command(&place, "refused", args).output().unwrap();
        (output.status.code().unwrap(), message(&output))
    };
    let (code, text) = refused(&["--scheduler", "heun"]);
    assert!(code == 2 && text.contains("dpm-solver-multistep"), "{code}: {text}");
    let (code, text) = refused(&["--height", "17"]);
    assert!(code == 78 && text.contains("`--height` is 17: expected a multiple of 2"), "{code}: {text}");
    let (code, text) = refused(&["--num-inference-steps", "0"]);
    assert!(code == 78 && text.contains("num_inference_steps"), "{code}: {text}");
    let long = "a photo of a very small and very grey cat that sleeps";
    let (code, text) = refused(&["--negative", long]);
    assert!(code == 65 && text.contains("the text encoder takes 20"), "{code}: {text}");
    sample(&place, "cut", &with(&["--negative", long, "--truncate"]));
    // The device that is always full.
    let full = ["--num-inference-steps", "1", "--out", "/dev/full"];
    let mut command = Command::new(env!("CARGO_BIN_EXE_sd-latents"));
    command.arg("sample").arg("--weights").arg(place.weights().join(tiny::CHECKPOINT)).args(full);
    command.arg("--png").arg(place.folder.path().join("x.png")).args(["--prompt", "a cat"]);
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(74), "{}", message(&output));
    std::fs::remove_dir_all(place.weights().join(tiny::CHECKPOINT).join("vae")).unwrap();
    let (code, text) = refused(&[]);
    assert!(code == 65 && text.contains("vae"), "{code}: {text}");
}
