//! Single-file checkpoints against the diffusers folders of the same weights.

use burn::tensor::Tensor;
use clip_model::SaveDtype;
use sd_model::{Error, SingleFile, StableDiffusion};
use std::path::{Path, PathBuf};

use crate::golden::{Golden, distance, path};
use crate::pipeline::copy;

const V1: &str = "single_file/v1.ckpt";
const V2: &str = "single_file/v2.safetensors";

/// The tokenizer of the small pipelines in the folder of a single file.
pub fn put_tokenizer(folder: &Path) {
    copy(&path("pipeline_sd2/tokenizer"), &folder.join("tokenizer"));
}

/// A single file in a folder of its own with the configurations of the pipeline that it was made from.
fn beside_configurations(file: &str, pipeline: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    copy(&path(pipeline), folder.path());
    std::fs::remove_file(folder.path().join("golden.safetensors")).unwrap();
    for weights in ["text_encoder/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model"] {
        std::fs::remove_file(folder.path().join(format!("{weights}.safetensors"))).unwrap();
    }
    let target = folder.path().join(Path::new(file).file_name().unwrap());
    std::fs::copy(path(file), &target).unwrap();
    (folder, target)
}

fn sample(model: &StableDiffusion, pipeline: &str) -> Tensor<4> {
    let golden = Golden::open(&format!("{pipeline}/golden.safetensors"), &model.device);
    let [prompts, negative] = [["a photo of a cat", "two dogs, painted"], ["", "blurry"]]
        .map(|texts| model.encode_prompts(&texts.map(str::to_owned)).unwrap());
    let latents = model.sample(prompts, negative, golden.tensor("noise"), 2, 3.0).unwrap();
    model.decode(latents)
}

#[test]
fn a_single_file_gives_the_images_of_the_folder_it_was_made_from() {
    let device = backend::test_device();
    for (file, pipeline) in [(V1, "pipeline_sd1"), (V2, "pipeline_sd2")] {
        // The file is in f16, so the folder has to be.
        let half = tempfile::tempdir().unwrap();
        let folder = StableDiffusion::from_folder(&path(pipeline), &device).unwrap();
        folder.save_to_folder(half.path(), SaveDtype::F16).unwrap();
        let expected = sample(&StableDiffusion::from_folder(half.path(), &device).unwrap(), pipeline);

        let (folder, file) = beside_configurations(file, pipeline);
        let found = sample(&StableDiffusion::from_path(&file, &device).unwrap(), pipeline);
        assert_eq!(distance(found, expected.clone()), 0.0, "{pipeline}");
        // The folder of the file will do.
        std::fs::remove_file(folder.path().join("model_index.json")).unwrap();
        let found = sample(&StableDiffusion::from_path(folder.path(), &device).unwrap(), pipeline);
        assert_eq!(distance(found, expected), 0.0, "{pipeline}");
        std::fs::copy(&file, folder.path().join("second.ckpt")).unwrap();
        let error = StableDiffusion::from_path(folder.path(), &device).unwrap_err().to_string();
        assert!(
            error.contains("holds the weights of several models: ") && error.contains("second.ckpt"),
            "{error}"
        );
    }
}

#[test]
fn an_unknown_name_of_stable_diffusion_2_needs_its_scheduler_beside_it() {
    let folder = tempfile::tempdir().unwrap();
    put_tokenizer(folder.path());
    let file = folder.path().join("my-finetune.safetensors");
    std::fs::copy(path(V2), &file).unwrap();
    let error = SingleFile::open(&file).err().unwrap();
    assert!(matches!(error, Error::UnknownPrediction { .. }), "{error}");
    assert!(error.to_string().contains("put its `scheduler/scheduler_config.json` beside it"), "{error}");
}

#[test]
fn a_single_file_without_a_tokenizer_says_where_to_put_one() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("v1.ckpt");
    std::fs::copy(path(V1), &file).unwrap();
    let error = SingleFile::open(&file).err().unwrap().to_string();
    assert!(error.contains("tokenizer` holds no tokenizer; put `vocab.json` and `merges.txt`"), "{error}");
}

/// The tensors of the small file of Stable Diffusion 2 after a change, written anew beside its configurations.
fn changed(change: impl Fn(&mut Vec<(String, safetensors::tensor::TensorView<'_>)>)) -> Error {
    let (_folder, file) = beside_configurations(V2, "pipeline_sd2");
    let bytes = std::fs::read(&file).unwrap();
    let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let mut tensors = tensors.tensors();
    change(&mut tensors);
    safetensors::serialize_to_file(tensors, None, &file).unwrap();
    StableDiffusion::from_path(&file, &backend::test_device()).unwrap_err()
}

#[test]
fn a_missing_network_is_named() {
    for (prefix, component) in [
        ("model.diffusion_model.", "unet"),
        ("first_stage_model.", "vae"),
        ("cond_stage_model.", "text_encoder"),
    ] {
        let error = changed(|tensors| tensors.retain(|(key, _)| !key.starts_with(prefix)));
        assert!(error.to_string().contains(&format!("has no {component}: expected tensors")), "{error}");
    }
}

#[test]
fn a_tensor_too_few_too_many_or_of_another_shape_is_named() {
    let error = changed(|tensors| tensors.retain(|(key, _)| key != "model.diffusion_model.out.2.bias"));
    assert!(error.to_string().ends_with("1 missing, first `model.diffusion_model.out.2.bias`"), "{error}");
    for key in ["model.diffusion_model.label_emb.weight", "control_model.zero.weight"] {
        let error = changed(|tensors| {
            let extra = tensors[0].1.clone();
            tensors.push((key.to_owned(), extra));
        });
        assert!(error.to_string().ends_with(&format!("1 unread, first `{key}`")), "{error}");
    }
    // Numbers of the autoencoder's 1x1 convolutions as a matrix, which no published single file has.
    let key = "first_stage_model.encoder.mid.attn_1.q.weight";
    let error = changed(|tensors| {
        let (_, view) = tensors.iter_mut().find(|(name, _)| name == key).unwrap();
        let shape = view.shape()[..2].to_vec();
        *view = safetensors::tensor::TensorView::new(view.dtype(), shape, view.data()).unwrap();
    });
    assert!(
        error.to_string().contains(&format!("`{key}` has shape [8, 8], the model expects [8, 8, 1, 1]")),
        "{error}"
    );
}

#[test]
fn a_configuration_beside_that_contradicts_the_weights_is_refused() {
    let (folder, file) = beside_configurations(V2, "pipeline_sd2");
    let config = folder.path().join("unet/config.json");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        text.replace("\"use_linear_projection\": true", "\"use_linear_projection\": false"),
    )
    .unwrap();
    let error = StableDiffusion::from_path(&file, &backend::test_device()).unwrap_err().to_string();
    assert!(error.contains("proj_in.weight` has shape [4, 4], the model expects [4, 4, 1, 1]"), "{error}");
}
